//! The customer's milliseconds, step by step, from the create call on.
//!
//! Each step ends at a moment that was seen, and moments are cut to whole milliseconds before they are
//! subtracted: so the steps add up to the total exactly. A moment that this process could not see (it
//! was started later) has no step, and its time is in the next one.

use crate::{
    ambient::Moment,
    model::{Instance, StepMs},
};

/// When this process saw what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The instance was committed: the whole create call at the store, its wait for the writer included.
    pub(super) committed: Option<Moment>,
    /// The edge took in the route to its server.
    pub(super) routed: Option<Moment>,
    /// The agent had said that nginx answers to the instance's names.
    pub(super) served: Moment,
    /// The instance's own URL had answered.
    pub(super) verified: Moment,
}

/// The steps and their `total`.
pub(super) fn steps(instance: &Instance, seen: &Seen) -> Vec<StepMs> {
    let first = if instance.warm {
        ("claim", seen.committed)
    } else {
        ("wait", instance.claimed_at)
    };
    let ends = [
        first,
        ("route", seen.routed),
        ("agent", Some(seen.served)),
        ("verify", Some(seen.verified)),
    ];
    let mut total = 0;
    let mut steps: Vec<_> = ends
        .into_iter()
        .filter_map(|(name, end)| Some((name, end?.since(instance.created_at))))
        .map(|(name, after)| {
            // Route and agent work at the same time: of the one that is ready first nothing is left.
            let after = u64::try_from(after.as_millis())
                .unwrap_or(u64::MAX)
                .max(total);
            step(name, after - std::mem::replace(&mut total, after))
        })
        .collect();
    steps.push(step("total", total));
    steps
}

fn step(name: &str, ms: u64) -> StepMs {
    StepMs {
        name: name.to_owned(),
        ms,
    }
}
