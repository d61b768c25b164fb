//! Rings on their way to other processes. A ring that waits is not added a second time, and a burst that
//! is too long becomes "look at everything", so that a slow database costs no memory.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::Ring;

/// More than this is told in one word.
const LIMIT: usize = 1000;

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Waiting {
    Rings(HashSet<Ring>),
    Everything,
}

/// What waits, and who is woken by it.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    added: Notify,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Waiting::Rings(HashSet::new())),
            added: Notify::new(),
        }
    }
}

impl Outbox {
    pub(super) fn add(&self, ring: Ring) {
        self.change(|waiting| {
            if let Waiting::Rings(rings) = waiting {
                rings.insert(ring);
                if rings.len() > LIMIT {
                    *waiting = Waiting::Everything;
                }
            }
        });
        self.added.notify_one();
    }

    /// What was taken could not be told.
    pub(super) fn add_everything(&self) {
        self.change(|waiting| *waiting = Waiting::Everything);
        self.added.notify_one();
    }

    /// Waits until there is something to tell, and takes it. Cancel-safe: nothing is taken before the end.
    pub(super) async fn take(&self) -> Waiting {
        loop {
            let nothing = Waiting::Rings(HashSet::new());
            let taken = self.change(|waiting| mem::replace(waiting, nothing.clone()));
            if taken != nothing {
                return taken;
            }
            self.added.notified().await;
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use tidepool_shared::id::ServerId;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn a_ring_that_waits_is_told_once() {
        let outbox = Outbox::default();
        for _ in 0..3 {
            outbox.add(Ring::Pool);
        }
        outbox.add(Ring::Events);
        let rings = HashSet::from([Ring::Pool, Ring::Events]);
        assert_eq!(outbox.take().await, Waiting::Rings(rings));
    }

    #[tokio::test]
    async fn a_long_burst_becomes_everything() {
        let outbox = Outbox::default();
        for number in 0..=1000 {
            outbox.add(Ring::Server(ServerId::new(Uuid::from_u128(number))));
        }
        assert_eq!(outbox.take().await, Waiting::Everything);
        outbox.add(Ring::Pool);
        assert_eq!(
            outbox.take().await,
            Waiting::Rings(HashSet::from([Ring::Pool]))
        );
    }
}
