//! Wrong passwords, counted for each peer address at each instance, and for each instance in all.
//!
//! The first bound stops one who guesses without locking out the owner, who comes from elsewhere. The
//! second bounds what many together can try, and how many there are to remember.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tidepool_shared::{id::InstanceId, quota::neighbourhood};
use tokio::time::Instant;

/// Wrong guesses of one peer at one instance, and how soon each is forgiven.
const OF_ONE: Allowance = Allowance {
    guesses: 10,
    forgiven_after: Duration::from_secs(3),
};
/// The same for all peers of an instance together. Many times as fast as one peer can go.
const OF_ALL: Allowance = Allowance {
    guesses: 100,
    forgiven_after: Duration::from_millis(200),
};
/// Remembered at least; beyond it, what is forgiven is forgotten.
const REMEMBERED: usize = 4096;

struct Allowance {
    guesses: u32,
    forgiven_after: Duration,
}

/// How many guesses are left.
#[derive(Default)]
pub(super) struct Guesses(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    of_one: HashMap<(InstanceId, IpAddr), Count>,
    of_all: HashMap<InstanceId, Count>,
}

/// What was guessed and is not forgiven yet.
struct Count {
    wrong: u32,
    since: Instant,
}

impl Guesses {
    /// Takes a guess, before it is known whether it is wrong: many at once count as many.
    pub(super) fn take(&self, instance: InstanceId, peer: IpAddr) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { of_one, of_all } = &mut *counts;
        // A peer that may not guess takes nothing from the others, and with nothing left for all no
        // new peer is remembered.
        let guesser = (instance, neighbourhood(peer));
        if !OF_ALL.has_left(of_all, &instance) || !OF_ONE.has_left(of_one, &guesser) {
            return false;
        }
        OF_ALL.take(of_all, instance);
        OF_ONE.take(of_one, guesser);
        true
    }

    /// The guess was right.
    pub(super) fn give_back(&self, instance: InstanceId, peer: IpAddr) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = counts.of_one.get_mut(&(instance, neighbourhood(peer)));
        if let Some(count) = of_one {
            count.wrong = count.wrong.saturating_sub(1);
        }
        if let Some(count) = counts.of_all.get_mut(&instance) {
            count.wrong = count.wrong.saturating_sub(1);
        }
    }
}

impl Allowance {
    fn has_left<K: Eq + Hash>(&self, counts: &mut HashMap<K, Count>, key: &K) -> bool {
        counts.get_mut(key).is_none_or(|count| {
            self.forgive(count);
            count.wrong < self.guesses
        })
    }

    fn take<K: Eq + Hash>(&self, counts: &mut HashMap<K, Count>, key: K) {
        if counts.len() >= REMEMBERED {
            counts.retain(|_, count| {
                self.forgive(count);
                count.wrong > 0
            });
        }
        let count = counts.entry(key).or_insert_with(|| Count {
            wrong: 0,
            since: Instant::now(),
        });
        count.wrong = count.wrong.saturating_add(1);
    }

    fn forgive(&self, count: &mut Count) {
        let steps = count.since.elapsed().as_millis() / self.forgiven_after.as_millis();
        let forgiven = u32::try_from(steps).unwrap_or(u32::MAX).min(self.guesses);
        if forgiven > 0 {
            count.wrong = count.wrong.saturating_sub(forgiven);
            count.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> InstanceId {
        InstanceId::new(Uuid::from_u128(number))
    }

    fn peer(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_who_guesses_all_day_never_locks_out_the_owner() {
        let guesses = Guesses::default();
        for _ in 0..1000 {
            guesses.take(id(1), peer(1));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        while guesses.take(id(1), peer(1)) {}
        assert!(guesses.take(id(1), peer(2)));
        assert!(guesses.take(id(2), peer(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn many_together_are_stopped_too_and_forgiven_in_time() {
        let guesses = Guesses::default();
        let taken = (0..=255)
            .filter(|last| guesses.take(id(1), peer(*last)))
            .count();
        assert_eq!(taken, 100);
        assert!(guesses.take(id(2), peer(1)));
        tokio::time::advance(OF_ALL.forgiven_after).await;
        assert!(guesses.take(id(1), peer(200)));
        assert!(!guesses.take(id(1), peer(201)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_guess_costs_nothing() {
        let guesses = Guesses::default();
        for _ in 0..1000 {
            assert!(guesses.take(id(1), peer(1)));
            guesses.give_back(id(1), peer(1));
        }
    }
}
