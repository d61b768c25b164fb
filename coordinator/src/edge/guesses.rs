//! Wrong passwords, counted for each peer address at each instance, for each of the two in all.
//!
//! The first bound stops one who guesses without locking out the owner, who comes from elsewhere. The
//! others bound what many together can try, and how many there are to remember, and what one can try everywhere:
//! each guess is a hash that all instances wait for.

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
/// The same for one peer at all instances together. A second of hashing every half minute.
const OF_PEER: Allowance = Allowance {
    guesses: 30,
    forgiven_after: Duration::from_secs(1),
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
    each: HashMap<(InstanceId, IpAddr), Count>,
    instances: HashMap<InstanceId, Count>,
    peers: HashMap<IpAddr, Count>,
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
        let Counts {
            each,
            instances,
            peers,
        } = &mut *counts;
        // A peer that may not guess takes nothing from the others, and with nothing left for all no
        // new peer is remembered.
        let peer = neighbourhood(peer);
        let guesser = (instance, peer);
        if !OF_ALL.has_left(instances, &instance)
            || !OF_PEER.has_left(peers, &peer)
            || !OF_ONE.has_left(each, &guesser)
        {
            return false;
        }
        OF_ALL.take(instances, instance);
        OF_PEER.take(peers, peer);
        OF_ONE.take(each, guesser);
        true
    }

    /// The guess was right.
    pub(super) fn give_back(&self, instance: InstanceId, peer: IpAddr) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *counts;
        let peer = neighbourhood(peer);
        let taken = [
            counts.each.get_mut(&(instance, peer)),
            counts.instances.get_mut(&instance),
            counts.peers.get_mut(&peer),
        ];
        for count in taken.into_iter().flatten() {
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
    async fn one_who_guesses_at_every_instance_is_stopped_at_all_of_them() {
        let guesses = Guesses::default();
        let instances = 1..=100;
        let taken = instances.filter(|number| guesses.take(id(*number), peer(1)));
        assert_eq!(taken.count(), 30);
        assert!(guesses.take(id(1), peer(2)));
        tokio::time::advance(OF_PEER.forgiven_after).await;
        assert!(guesses.take(id(200), peer(1)));
        assert!(!guesses.take(id(201), peer(1)));
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
