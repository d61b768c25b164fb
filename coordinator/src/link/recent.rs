//! What was done a short while ago and is not to be done again yet: durable things that a peer could
//! otherwise cause as often as it likes.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// When each key was last taken. Bounded: when it is full of fresh ones, no other is taken.
#[derive(Debug)]
pub(super) struct Recent<K> {
    pause: Duration,
    capacity: usize,
    taken: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash> Recent<K> {
    pub(super) fn new(pause: Duration, capacity: usize) -> Self {
        Self {
            pause,
            capacity,
            taken: Mutex::default(),
        }
    }

    /// Takes the key, unless it was taken within the pause.
    pub(super) fn take(&self, key: K, now: Instant) -> bool {
        let mut taken = self.lock();
        if taken.get(&key).is_some_and(|at| self.is_fresh(*at, now)) {
            return false;
        }
        if taken.len() >= self.capacity {
            taken.retain(|_, at| self.is_fresh(*at, now));
        }
        if taken.len() >= self.capacity {
            return false;
        }
        taken.insert(key, now);
        true
    }

    /// Whether the key was taken within the pause.
    pub(super) fn holds(&self, key: &K, now: Instant) -> bool {
        let taken = self.lock();
        taken.get(key).is_some_and(|at| self.is_fresh(*at, now))
    }

    /// For a key whose deed was not done after all.
    pub(super) fn give_back(&self, key: &K) {
        self.lock().remove(key);
    }

    fn is_fresh(&self, at: Instant, now: Instant) -> bool {
        now.duration_since(at) < self.pause
    }

    /// The guard never lives across an await.
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets one line into the log per pause and counts the others.
#[derive(Debug)]
pub(super) struct Brake {
    pause: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl Brake {
    pub(super) fn new(pause: Duration) -> Self {
        Self {
            pause,
            state: Mutex::default(),
        }
    }

    /// How many lines were held back since the last one, if it is time for one again.
    pub(super) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, suppressed) = &mut *state;
        if last.is_some_and(|last| now.duration_since(last) < self.pause) {
            *suppressed = suppressed.saturating_add(1);
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_mins(1);

    #[test]
    fn a_key_is_taken_once_per_pause() {
        let (recent, start) = (Recent::new(PAUSE, 8), Instant::now());
        assert!(recent.take(1, start));
        assert!(!recent.take(1, start + PAUSE / 2));
        assert!(recent.holds(&1, start + PAUSE / 2));
        assert!(recent.take(2, start), "another key is another matter");
        assert!(recent.take(1, start + PAUSE));
    }

    #[test]
    fn a_key_that_is_given_back_may_be_taken_at_once() {
        let (recent, start) = (Recent::new(PAUSE, 8), Instant::now());
        assert!(recent.take(1, start));
        recent.give_back(&1);
        assert!(recent.take(1, start));
    }

    #[test]
    fn it_never_holds_more_than_its_capacity() {
        let (recent, start) = (Recent::new(PAUSE, 8), Instant::now());
        let taken = (0..100).filter(|key| recent.take(*key, start)).count();
        assert_eq!(taken, 8);
        assert!(recent.take(100, start + PAUSE), "the old ones made room");
    }

    #[test]
    fn a_braked_log_tells_how_much_it_held_back() {
        let (brake, start) = (Brake::new(PAUSE), Instant::now());
        let passed = [start, start, start, start + PAUSE, start + PAUSE].map(|now| brake.pass(now));
        assert_eq!(passed, [Some(0), None, None, Some(2), None]);
    }
}
