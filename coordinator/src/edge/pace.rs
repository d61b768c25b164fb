//! How fast requests may follow one another: those of an instance's owner, and those of its web hooks,
//! each for themselves, so that neither takes the other's turn.
//!
//! Only what may pass is counted: a stranger cannot use up what is the owner's. Each edge counts for
//! itself, so that no request waits for another machine; with several edges the bound is that of each.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tidepool_shared::id::InstanceId;
use tokio::time::Instant;

use super::headers::Visitor;
use crate::model::EdgeLimits;

/// Remembered at least; beyond it, who has rested is forgotten.
const REMEMBERED: usize = 4096;

/// When the next request of each would be on time (GCRA).
#[derive(Default)]
pub(super) struct Pace(Mutex<HashMap<(InstanceId, Visitor), Instant>>);

impl Pace {
    /// Takes a place for a request, if there is one.
    pub(super) fn take(&self, instance: InstanceId, visitor: Visitor, limits: &EdgeLimits) -> bool {
        let now = Instant::now();
        let every = Duration::from_secs(1) / limits.requests_per_second();
        let early = every * (limits.request_burst() - 1);
        let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if due.len() >= REMEMBERED {
            due.retain(|_, at| *at > now);
        }
        let next = due.entry((instance, visitor)).or_insert(now);
        let on_time = (*next).max(now);
        let fits = on_time.duration_since(now) <= early;
        if fits {
            *next = on_time + every;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const LIMITS: EdgeLimits = EdgeLimits {
        max_body_bytes: None,
        requests_per_second: Some(10),
        request_burst: Some(3),
    };

    fn id(number: u128) -> InstanceId {
        InstanceId::new(Uuid::from_u128(number))
    }

    fn taken(pace: &Pace, tries: usize) -> usize {
        let take = |_: &usize| pace.take(id(1), Visitor::Owner, &LIMITS);
        (0..tries).filter(take).count()
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_burst_requests_pass_as_fast_as_was_said() {
        let pace = Pace::default();
        assert_eq!(taken(&pace, 9), 3);
        for _ in 0..20 {
            tokio::time::advance(Duration::from_millis(100)).await;
            assert_eq!(taken(&pace, 9), 1);
        }
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(taken(&pace, 9), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_hooks_or_of_another_instance_takes_nothing_from_the_owner() {
        let pace = Pace::default();
        while pace.take(id(1), Visitor::Hook, &LIMITS) {}
        while pace.take(id(2), Visitor::Owner, &LIMITS) {}
        assert_eq!(taken(&pace, 9), 3);
    }
}
