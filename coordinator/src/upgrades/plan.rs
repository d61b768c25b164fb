//! What a rollout does next: a pure function of the store.
//!
//! Canaries first, then waves. A wave begins only when all that was begun has ended and has stayed well for the
//! soak time. Failures beyond what is allowed halt it, whatever the stage. A canary counts once it has the version:
//! whoever failed, or was stopped before it was tried, has proven nothing, and another one takes its place.

use std::{cmp::Reverse, collections::HashSet, time::Duration};

use tidepool_shared::{document::Digest, id::InstanceId};

use crate::{
    ambient::Moment,
    model::{
        Health, InstanceStatus, OperationState, Rollout, RolloutCandidate, RolloutMember,
        RolloutState,
    },
};

/// Trouble that is over sooner is a restart, or a link that was lost for a moment.
const LASTING: Duration = Duration::from_mins(1);

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
    let failed = faulty(rollout, members, *now).count();
    if failed > usize::try_from(rollout.max_failures).unwrap_or(usize::MAX) {
        return vec![Action::Halt(reason(rollout, members, *now))];
    }
    if members
        .iter()
        .any(|member| is_settling(rollout, member, *now))
    {
        return Vec::new();
    }
    let left = left(rollout, members, candidates);
    if left.is_empty() {
        return vec![Action::Finish];
    }
    let canaries = canaries_due(rollout, members, *now);
    let mut ready = ready(&left, canaries);
    // The same order at every look, and another one for every rollout: not always the same are the first.
    ready.sort_by_key(|candidate| {
        let name = format!("{}{}", rollout.id, candidate.instance);
        (Reverse(Digest::of(name.as_bytes()).0), candidate.instance)
    });
    let size = match canaries {
        0 => wave(rollout, members, left.len()),
        canaries => canaries,
    };
    let next = ready.into_iter().take(size);
    next.map(|candidate| Action::Upgrade(candidate.instance))
        .collect()
}

/// How far a rollout is still to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outlook {
    /// Whom it has not reached and should.
    pub(crate) left: usize,
    /// How many of those could be the next.
    pub(crate) ready: usize,
}

impl Outlook {
    pub(crate) fn of(
        rollout: &Rollout,
        members: &[RolloutMember],
        candidates: &[RolloutCandidate],
        now: Moment,
    ) -> Self {
        let left = left(rollout, members, candidates);
        let ready = ready(&left, canaries_due(rollout, members, now));
        Self {
            left: left.len(),
            ready: ready.len(),
        }
    }
}

fn ready<'s>(left: &[&'s RolloutCandidate], canaries: usize) -> Vec<&'s RolloutCandidate> {
    left.iter()
        .copied()
        .filter(|candidate| candidate.ready)
        // Of one that was not well before, nobody could say whether it is the version's fault.
        .filter(|candidate| canaries == 0 || candidate.health == Health::Ok)
        .collect()
}

/// Who did not take the version: whoever failed, and whoever is down or silent since its soak time.
pub(crate) fn faulty<'m>(
    rollout: &Rollout,
    members: &'m [RolloutMember],
    now: Moment,
) -> impl Iterator<Item = &'m RolloutMember> {
    members
        .iter()
        .filter(move |member| fault(rollout, member, now).is_some())
}

/// Whom the rollout has not reached and should. An order that was taken back has reached nobody.
fn left<'s>(
    rollout: &Rollout,
    members: &[RolloutMember],
    candidates: &'s [RolloutCandidate],
) -> Vec<&'s RolloutCandidate> {
    let reached: HashSet<_> = members
        .iter()
        .filter(|member| is_reached(member))
        .map(|member| member.instance)
        .collect();
    let wants = |candidate: &&RolloutCandidate| {
        candidate.version.as_deref() != Some(rollout.version.as_str())
            && candidate
                .pin
                .as_ref()
                .is_none_or(|pin| *pin == rollout.version)
            && !reached.contains(&candidate.instance)
    };
    candidates.iter().filter(wants).collect()
}

fn is_reached(member: &RolloutMember) -> bool {
    member.state != OperationState::Canceled
}

/// How many canaries are still to take the version and stay well.
fn canaries_due(rollout: &Rollout, members: &[RolloutMember], now: Moment) -> usize {
    let has_it = |member: &&RolloutMember| {
        member.state == OperationState::Succeeded
            && !member.forgiven
            && fault(rollout, member, now).is_none()
    };
    let canaries = usize::try_from(rollout.canaries).unwrap_or(usize::MAX);
    canaries.saturating_sub(members.iter().filter(has_it).count())
}

fn wave(rollout: &Rollout, members: &[RolloutMember], left: usize) -> usize {
    let percent = usize::try_from(rollout.wave_percent).unwrap_or(100);
    let reached = members.iter().filter(|member| is_reached(member)).count();
    let all = reached.saturating_add(left);
    all.saturating_mul(percent).div_ceil(100).max(1)
}

/// Whether nothing more is begun because of it.
fn is_settling(rollout: &Rollout, member: &RolloutMember, now: Moment) -> bool {
    let is_under_way = member.ended_at.is_none();
    let is_fresh = member
        .ended_at
        .is_some_and(|ended| now < ended.plus(soak(rollout)));
    let may_be_faulty = unwell_since(rollout, member).is_some() && !lasts(rollout, member, now);
    is_under_way || is_fresh || may_be_faulty
}

fn soak(rollout: &Rollout) -> Duration {
    Duration::from_secs(rollout.soak_s.into())
}

/// Since when a member that has the version is down or silent, if that began within its soak time: later it has other
/// reasons. One that was switched off is not to be well.
fn unwell_since(rollout: &Rollout, member: &RolloutMember) -> Option<Moment> {
    let soaked = member.ended_at?.plus(soak(rollout));
    let is_judged = member.state == OperationState::Succeeded
        && member.status == InstanceStatus::Running
        && !member.forgiven;
    member
        .unwell_since
        .filter(|since| is_judged && *since < soaked)
}

fn lasts(rollout: &Rollout, member: &RolloutMember, now: Moment) -> bool {
    unwell_since(rollout, member).is_some_and(|since| now.since(since) >= LASTING)
}

/// What is wrong with a member.
fn fault<'m>(rollout: &Rollout, member: &'m RolloutMember, now: Moment) -> Option<&'m str> {
    if member.forgiven {
        return None;
    }
    match member.state {
        OperationState::Failed => Some(member.error.as_deref().unwrap_or("it failed")),
        OperationState::Succeeded => lasts(rollout, member, now).then_some(match member.health {
            Health::Unknown => "nothing is heard of it any more",
            Health::Ok | Health::Degraded | Health::Down => "it is down",
        }),
        // Canceled: it was stopped or deleted meanwhile, or the order was taken back. One without an end is failed by
        // who looks for those.
        OperationState::Queued | OperationState::Running | OperationState::Canceled => None,
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
