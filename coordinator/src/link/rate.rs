//! How often something may happen for each of many: some at once, then one every interval.
//!
//! What is durable or logged for a peer is paced by it, so that whoever holds one server's key cannot
//! fill the disk with it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Above so many keys those that are at rest are forgotten; a fleet is below it.
const PRUNED_ABOVE: usize = 16 * 1024;

/// A pace, kept for each key.
#[derive(Debug)]
pub(super) struct Rate<K> {
    burst: u32,
    interval: Duration,
    /// When each key will be at rest again, with all its burst.
    rest: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash> Rate<K> {
    pub(super) fn new(burst: u32, interval: Duration) -> Self {
        Self {
            burst,
            interval,
            rest: Mutex::default(),
        }
    }

    /// Takes one of this key's, or says how long there will be none.
    pub(super) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        if rest.len() >= PRUNED_ABOVE {
            rest.retain(|_, at| *at > now);
        }
        let at = rest.get(&key).copied().unwrap_or(now).max(now) + self.interval;
        let full = now + self.interval * self.burst;
        if at > full {
            return Err(at - full);
        }
        rest.insert(key, at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn a_burst_is_let_through_and_then_one_an_interval() {
        let (rate, start) = (Rate::new(3, INTERVAL), Instant::now());
        assert!((0..3).all(|_| rate.take('a', start).is_ok()));
        assert_eq!(rate.take('a', start), Err(INTERVAL));
        assert!(rate.take('b', start).is_ok(), "another has its own");
        let later = start + INTERVAL;
        assert!(rate.take('a', later).is_ok());
        assert_eq!(rate.take('a', later), Err(INTERVAL));
        assert_eq!(rate.take('a', later + INTERVAL / 2), Err(INTERVAL / 2));
    }

    #[test]
    fn whoever_rested_long_has_a_whole_burst_and_no_more() {
        let (rate, start) = (Rate::new(3, INTERVAL), Instant::now());
        assert!((0..3).all(|_| rate.take('a', start).is_ok()));
        let later = start + INTERVAL * 100;
        assert!((0..3).all(|_| rate.take('a', later).is_ok()));
        assert!(rate.take('a', later).is_err());
    }

    #[test]
    fn who_is_at_rest_is_forgotten_when_there_are_many() {
        let (rate, start) = (Rate::new(3, INTERVAL), Instant::now());
        for key in 0..PRUNED_ABOVE {
            rate.take(key, start).unwrap();
        }
        rate.take(0, start + INTERVAL).unwrap();
        assert_eq!(rate.rest.lock().unwrap().len(), 1);
    }
}
