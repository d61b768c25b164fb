//! Which servers a task of this process is working on, and how often work on them failed.
//!
//! An action is never started twice at once, and what failed is tried again later and later: a cloud
//! that is down must not be asked by every server every second.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tidepool_shared::id::ServerId;

/// The pause after the first failure; doubled by each further one in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// The servers that are being worked on. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Busy(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    under_way: HashSet<ServerId>,
    failures: HashMap<ServerId, u32>,
}

impl Busy {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All that are being worked on, or rest after a failure.
    pub(super) fn servers(&self) -> HashSet<ServerId> {
        self.with(|state| state.under_way.clone())
    }

    /// Takes a server; `false` when it is taken.
    pub(super) fn take(&self, id: ServerId) -> bool {
        self.with(|state| state.under_way.insert(id))
    }

    /// The work is done.
    pub(super) fn done(&self, id: ServerId) {
        self.with(|state| {
            state.failures.remove(&id);
            state.under_way.remove(&id);
        });
    }

    /// The work failed: how long to rest before the server is released.
    pub(super) fn failed(&self, id: ServerId) -> Duration {
        self.with(|state| {
            let failures = state.failures.entry(id).or_default();
            *failures = failures.saturating_add(1);
            let doublings = (*failures - 1).min(16);
            FIRST_PAUSE
                .saturating_mul(1 << doublings)
                .min(LONGEST_PAUSE)
        })
    }

    /// Whatever became of it, it may be taken again.
    pub(super) fn release(&self, id: ServerId) {
        self.with(|state| state.under_way.remove(&id));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_server_is_taken_once_and_rests_longer_after_each_failure() {
        let (busy, id) = (Busy::default(), ServerId::new(Uuid::from_u128(1)));
        assert!(busy.take(id) && !busy.take(id));
        let pauses = [1, 2, 4].map(|seconds| (busy.failed(id), Duration::from_secs(seconds)));
        assert!(pauses.iter().all(|(pause, expected)| pause == expected));
        busy.release(id);
        assert!(busy.take(id));
        busy.done(id);
        assert_eq!(busy.failed(id), FIRST_PAUSE);
    }
}
