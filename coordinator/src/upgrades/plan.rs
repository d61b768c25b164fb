//! What a rollout does next: a pure function of the store.
//!
//! Canaries first, then waves. A wave begins only when all that was begun has ended and has stayed well for the
//! soak time. Failures beyond what is allowed halt it, whatever the stage.

use std::{cmp::Reverse, time::Duration};

use tidepool_shared::{document::Digest, id::InstanceId};

use crate::{
    ambient::Moment,
    model::{Health, OperationState, Rollout, RolloutCandidate, RolloutMember, RolloutState},
};

/// An order of which nothing is heard for so long has failed: an agent allows itself some ten minutes, and more
/// for an image that it must load.
const DEADLINE: Duration = Duration::from_mins(30);

/// What is known.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) rollout: Rollout,
    pub(super) members: Vec<RolloutMember>,
    pub(super) candidates: Vec<RolloutCandidate>,
    pub(super) now: Moment,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Upgrade(InstanceId),
    Halt(String),
    Finish,
}

/// The next things to do.
pub(super) fn plan(snapshot: &Snapshot) -> Vec<Action> {
    let Snapshot {
        rollout,
        members,
        candidates,
        now,
    } = snapshot;
    if rollout.state != RolloutState::Running {
        return Vec::new();
    }
    let failed = failures(rollout, members, *now);
    if failed.saturating_sub(rollout.forgiven) > rollout.max_failures {
        return vec![Action::Halt(reason(rollout, members, *now))];
    }
    let settling = members
        .iter()
        .any(|member| is_under_way(member, *now) || is_fresh(rollout, member, *now));
    if settling {
        return Vec::new();
    }
    let left = left(rollout, members, candidates);
    if left.is_empty() {
        return vec![Action::Finish];
    }
    let mut ready: Vec<_> = left.iter().filter(|candidate| candidate.ready).collect();
    // The same order at every look, and another one for every rollout: not always the same are the first.
    ready.sort_by_key(|candidate| {
        let name = format!("{}{}", rollout.id, candidate.instance);
        (Reverse(Digest::of(name.as_bytes()).0), candidate.instance)
    });
    let size = wave(rollout, members.len(), left.len());
    let next = ready.into_iter().take(size);
    next.map(|candidate| Action::Upgrade(candidate.instance))
        .collect()
}

/// How many did not take the version: those whose order failed, or has no end, and those that are down within the
/// soak time.
pub fn failures(rollout: &Rollout, members: &[RolloutMember], now: Moment) -> u32 {
    let failed = members
        .iter()
        .filter(|member| fault(rollout, member, now).is_some());
    u32::try_from(failed.count()).unwrap_or(u32::MAX)
}

/// Whom the rollout has not reached and should.
pub(crate) fn left<'s>(
    rollout: &Rollout,
    members: &[RolloutMember],
    candidates: &'s [RolloutCandidate],
) -> Vec<&'s RolloutCandidate> {
    let wants = |candidate: &&RolloutCandidate| {
        candidate.version.as_deref() != Some(rollout.version.as_str())
            && candidate
                .pin
                .as_ref()
                .is_none_or(|pin| *pin == rollout.version)
            && !members
                .iter()
                .any(|member| member.instance == candidate.instance)
    };
    candidates.iter().filter(wants).collect()
}

fn wave(rollout: &Rollout, reached: usize, left: usize) -> usize {
    let canaries = usize::try_from(rollout.canaries).unwrap_or(usize::MAX);
    if reached < canaries {
        return canaries - reached;
    }
    let percent = usize::try_from(rollout.wave_percent).unwrap_or(100);
    let all = reached.saturating_add(left);
    all.saturating_mul(percent).div_ceil(100).max(1)
}

fn is_under_way(member: &RolloutMember, now: Moment) -> bool {
    member.ended_at.is_none() && !is_overdue(member, now)
}

fn is_overdue(member: &RolloutMember, now: Moment) -> bool {
    member.ended_at.is_none() && now.since(member.begun_at) > DEADLINE
}

/// Whether it ended within the soak time.
fn is_fresh(rollout: &Rollout, member: &RolloutMember, now: Moment) -> bool {
    let soak = Duration::from_secs(rollout.soak_s.into());
    member.ended_at.is_some_and(|ended| now.since(ended) < soak)
}

/// What is wrong with a member.
fn fault<'m>(rollout: &Rollout, member: &'m RolloutMember, now: Moment) -> Option<&'m str> {
    match member.state {
        OperationState::Queued | OperationState::Running => {
            is_overdue(member, now).then_some("nothing was heard of it for half an hour")
        }
        OperationState::Failed => Some(member.error.as_deref().unwrap_or("it failed")),
        OperationState::Succeeded => (member.health == Health::Down
            && is_fresh(rollout, member, now))
        .then_some("it is down"),
        // It was deleted meanwhile.
        OperationState::Canceled => None,
    }
}

fn reason(rollout: &Rollout, members: &[RolloutMember], now: Moment) -> String {
    let of = |member: &RolloutMember| {
        fault(rollout, member, now).map(|why| format!("{}: {why}", member.name))
    };
    // The last one is the new one.
    members.iter().rev().find_map(of).unwrap_or_default()
}

#[cfg(test)]
mod tests;
