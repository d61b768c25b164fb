//! Looks for what strangers name: sessions, login links, challenges. Each is a question to the store, so those that
//! find nothing have a pace, for each neighbourhood.
//!
//! A look is taken before the store is asked, so that many at once count as many, and is given back when it found
//! something: whoever is signed in may come as often as they like.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tidepool_shared::quota::neighbourhood;
use tokio::time::Instant;

use crate::store::Stored;

/// In vain, at once, and then one every so often. A browser whose session is over asks a few dozen times for a page.
const AT_ONCE: u32 = 100;
const EVERY: Duration = Duration::from_millis(100);
/// Neighbourhoods that are remembered. A newcomer beyond them is not held up: that would shut out everybody.
const REMEMBERED: usize = 16 * 1024;

/// When each neighbourhood will be at rest again.
#[derive(Default)]
pub(super) struct Lookups(Mutex<HashMap<IpAddr, Instant>>);

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked<T> {
    Found(T),
    Nothing,
    /// Too many were in vain: there was none.
    NotNow,
}

impl Lookups {
    /// Looks, if this peer may.
    pub(super) async fn look<T>(
        &self,
        peer: IpAddr,
        look: impl Future<Output = Stored<Option<T>>>,
    ) -> Stored<Looked<T>> {
        let neighbours = neighbourhood(peer);
        if !self.take(neighbours) {
            return Ok(Looked::NotNow);
        }
        let found = look.await;
        // That a store does not answer is nobody's fault.
        if !matches!(found, Ok(None)) {
            self.give_back(neighbours);
        }
        Ok(found?.map_or(Looked::Nothing, Looked::Found))
    }

    fn take(&self, neighbours: IpAddr) -> bool {
        let now = Instant::now();
        let mut rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rest.len() >= REMEMBERED && !rest.contains_key(&neighbours) {
            rest.retain(|_, at| *at > now);
            if rest.len() >= REMEMBERED {
                return true;
            }
        }
        let at = rest.entry(neighbours).or_insert(now);
        let next = (*at).max(now) + EVERY;
        let fits = next.duration_since(now) <= EVERY * AT_ONCE;
        if fits {
            *at = next;
        }
        fits
    }

    fn give_back(&self, neighbours: IpAddr) {
        let mut rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = rest.get_mut(&neighbours) {
            *at = at.checked_sub(EVERY).unwrap_or(*at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    fn peer(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    async fn vain(lookups: &Lookups, peer: IpAddr) -> bool {
        let looked = lookups.look(peer, ready(Ok(None::<()>))).await.unwrap();
        looked == Looked::Nothing
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_makes_things_up_is_slowed_down_and_nobody_else() {
        let lookups = Lookups::default();
        for _ in 0..AT_ONCE {
            assert!(vain(&lookups, peer(1)).await);
        }
        assert!(!vain(&lookups, peer(1)).await);
        assert!(vain(&lookups, peer(2)).await);
        tokio::time::advance(EVERY).await;
        assert!(vain(&lookups, peer(1)).await);
        assert!(!vain(&lookups, peer(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_found_costs_nothing() {
        let lookups = Lookups::default();
        for _ in 0..10 * AT_ONCE {
            let found = lookups.look(peer(1), ready(Ok(Some(7)))).await;
            assert_eq!(found.unwrap(), Looked::Found(7));
        }
        assert!(vain(&lookups, peer(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_has_an_end_and_who_has_rested_is_forgotten() {
        let lookups = Lookups::default();
        let all = |number: u32| IpAddr::V4(number.into());
        for number in 0..=u32::try_from(REMEMBERED).unwrap() {
            assert!(vain(&lookups, all(number)).await);
        }
        assert_eq!(lookups.0.lock().unwrap().len(), REMEMBERED);
        tokio::time::advance(EVERY).await;
        assert!(vain(&lookups, all(u32::MAX)).await);
        assert_eq!(lookups.0.lock().unwrap().len(), 1);
    }
}
