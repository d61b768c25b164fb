//! What the pool should do next: a pure function of what the store says.
//!
//! Invariants, held by the property tests: a claimed server is never touched; there are never more
//! servers than the ceiling allows; never more creations at once than allowed; idle servers are never
//! taken below the target to be renewed; repeating the plan until nothing is left to do ends with as
//! many warm servers as wanted, all of them fresh, and no more.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tidepool_shared::{document::GatewayLimits, id::ServerId};

use super::demand;
use crate::{
    ambient::Moment,
    cloud::Placement,
    model::{PoolKey, PoolStanding, Server, ServerState},
};

#[cfg(test)]
mod tests;

/// How large a pool should be, and how patient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub pool: PoolKey,
    /// What servers are made as, the preferred one first.
    pub placements: Vec<Placement>,
    /// Idle servers wanted at the least, and at the most.
    pub floor: u32,
    pub most_idle: u32,
    /// What idle servers may cost in a month, in hundredths of the cloud's currency. The floor is wanted
    /// all the same.
    pub idle_budget_cents: Option<u64>,
    /// Of 1,000 customers this many should find an idle server.
    pub hits_per_mille: u32,
    /// Servers of the pool that may exist at once, claimed ones included.
    pub ceiling: u32,
    /// Servers that may be on their way at once: clouds close accounts that ask for too many, and
    /// starting one costs a local machine 15 CPU seconds.
    pub creating_at_once: u32,
    /// A server that is not warm after this long is given up.
    pub boot_deadline: Duration,
    /// How long an address that was taken out of trust rests before its server is deleted, and the address may
    /// be another's: longer than a proxy that cannot read the store goes by its copy of the table.
    pub address_rest: Duration,
    /// A server is not removed as surplus before it was idle for this long: clouds bill whole hours.
    pub minimum_idle: Duration,
    /// An idle server that is older is replaced.
    pub max_age: Duration,
    /// After a failure, the pause before the next order: this, doubled per failure in a row.
    pub failure_pause: Duration,
    /// After so many failures in a row nothing is ordered until an operator says so.
    pub halt_after: u32,
    /// How long the pool may be below its target before somebody is told.
    pub below_target_for: Duration,
    /// What a gateway may take once it is somebody's.
    pub limits: GatewayLimits,
}

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Idle servers beyond the target while old ones are replaced.
const SURGE: u32 = 1;

/// What the store says.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// All servers that are not gone.
    pub servers: &'a [Server],
    /// Those with a cloud call under way.
    pub busy: &'a HashSet<ServerId>,
    /// Customers who wait for a server.
    pub pending: u32,
    /// Idle servers wanted: see [`target`].
    pub target: u32,
    pub standing: &'a PoolStanding,
    /// Placements that had no room a short while ago.
    pub cooling: &'a HashSet<Placement>,
    /// What new servers are made from, by server type; an idle server of another image is replaced.
    pub images: &'a HashMap<String, String>,
    pub now: Moment,
}

/// A thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Have one more server made.
    Order(Placement),
    /// Find out what became of a creation that a crash interrupted.
    Recover(ServerId),
    /// Give up a server that did not become warm.
    Fail(ServerId, &'static str),
    /// Take an idle server out of service.
    Retire(ServerId),
    /// Delete a server that nobody uses any more.
    Delete(ServerId),
    /// Order nothing more until an operator says so, and tell.
    Halt,
    /// Remember that the pool is below its target since now.
    FallBelow,
    /// Tell that the pool has been below its target for too long.
    TellBelow,
    /// Remember that the pool is at its target again.
    Reach,
}

/// How many idle servers are wanted, given the customers of the last day and how long a boot takes.
/// `affordable` is what the budget for idle servers pays for; the floor is wanted all the same.
pub fn target(
    policy: &Policy,
    arrivals: &[Moment],
    boot: Duration,
    affordable: u32,
    now: Moment,
) -> u32 {
    let rate = demand::rate_per_s(arrivals, now);
    let most = policy.most_idle.min(affordable).max(policy.floor);
    demand::idle_for(rate, boot, policy.hits_per_mille, most).clamp(policy.floor, most)
}

/// Decides.
pub fn plan(policy: &Policy, view: &View<'_>) -> Vec<Action> {
    let counts = Counts::of(policy, view);
    let mut actions = upkeep(policy, view);
    actions.extend(watch_target(policy, view, counts));
    if view.standing.paused {
        return actions;
    }
    if halts(policy, view) {
        actions.push(Action::Halt);
    }
    let orders = orders(policy, view, counts);
    match placement(policy, view) {
        Some(placement) if may_order(policy, view) => {
            actions.extend((0..orders).map(|_| Action::Order(placement.clone())));
        }
        _ => {}
    }
    actions.extend(surplus(policy, view, counts));
    actions
}

/// Servers of the pool, by what the plan needs to know of them.
#[derive(Debug, Clone, Copy)]
struct Counts {
    warm: u32,
    /// Warm ones that are to be replaced.
    stale: u32,
    coming: u32,
    /// All that exist or may exist in the cloud.
    all: u32,
    /// Warm ones wanted, for who waits and who may come.
    wanted: u32,
}

impl Counts {
    fn of(policy: &Policy, view: &View<'_>) -> Self {
        let count = |states: &[ServerState]| number(ours(policy, view, states).count());
        Self {
            warm: count(&[ServerState::Warm]),
            stale: number(stale(policy, view).count()),
            coming: count(&COMING),
            all: count(&COMING) + count(&PRESENT),
            wanted: view.pending.saturating_add(view.target),
        }
    }
}

const COMING: [ServerState; 3] = [
    ServerState::Planned,
    ServerState::Creating,
    ServerState::Booting,
];

const PRESENT: [ServerState; 5] = [
    ServerState::Warm,
    ServerState::Claimed,
    ServerState::Draining,
    ServerState::Deleting,
    ServerState::Failed,
];

/// What must be done whatever the numbers are.
pub(super) fn upkeep(policy: &Policy, view: &View<'_>) -> Vec<Action> {
    all_ours(policy, view)
        .filter(|server| !view.busy.contains(&server.id))
        .filter_map(|server| match server.state {
            ServerState::Planned | ServerState::Creating
                if view.now.since(server.state_since) > policy.boot_deadline =>
            {
                Some(Action::Fail(server.id, "not made in time"))
            }
            ServerState::Planned | ServerState::Creating => Some(Action::Recover(server.id)),
            ServerState::Booting if view.now.since(server.state_since) > policy.boot_deadline => {
                Some(Action::Fail(server.id, "not warm in time"))
            }
            ServerState::Draining | ServerState::Failed
                if view.now.since(server.state_since) >= policy.address_rest =>
            {
                Some(Action::Delete(server.id))
            }
            ServerState::Deleting => Some(Action::Delete(server.id)),
            ServerState::Booting
            | ServerState::Warm
            | ServerState::Claimed
            | ServerState::Draining
            | ServerState::Failed
            | ServerState::Gone => None,
        })
        .collect()
}

fn watch_target(policy: &Policy, view: &View<'_>, counts: Counts) -> Option<Action> {
    let standing = view.standing;
    match standing.below_since {
        None if counts.warm < view.target => Some(Action::FallBelow),
        Some(_) if counts.warm >= view.target => Some(Action::Reach),
        Some(since) if !standing.told_below && view.now.since(since) >= policy.below_target_for => {
            Some(Action::TellBelow)
        }
        None | Some(_) => None,
    }
}

fn halts(policy: &Policy, view: &View<'_>) -> bool {
    !view.standing.halted && view.standing.failures >= policy.halt_after
}

/// Whether anything may be ordered at all now.
fn may_order(policy: &Policy, view: &View<'_>) -> bool {
    let standing = view.standing;
    let held = standing.held_until.is_some_and(|until| view.now < until);
    let recovering = standing
        .last_failure
        .is_some_and(|last| view.now.since(last) < pause(policy, standing.failures));
    !(standing.halted || halts(policy, view) || held || recovering)
}

fn pause(policy: &Policy, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    match failures {
        0 => Duration::ZERO,
        _ => policy
            .failure_pause
            .saturating_mul(1 << doublings)
            .min(LONGEST_PAUSE),
    }
}

/// The most preferred placement that is not known to be full.
fn placement(policy: &Policy, view: &View<'_>) -> Option<Placement> {
    let mut placements = policy.placements.iter();
    placements
        .find(|placement| !view.cooling.contains(placement))
        .cloned()
}

/// How many more servers are wanted, as far as there is room.
fn orders(policy: &Policy, view: &View<'_>, counts: Counts) -> u32 {
    let missing = counts.wanted.saturating_sub(counts.warm + counts.coming);
    // Nobody waits for a replacement: one at a time, and only when all else is in order.
    let renewals = match counts {
        Counts { stale: 0, .. } => 0,
        Counts {
            coming: 0, warm, ..
        } if warm <= view.target && view.pending == 0 => SURGE,
        Counts { .. } => 0,
    };
    let room = policy.ceiling.saturating_sub(counts.all);
    let slots = policy.creating_at_once.saturating_sub(counts.coming);
    missing.max(renewals).min(room).min(slots)
}

/// Idle servers beyond what is wanted: those to be replaced first, then the oldest. Those on their way
/// do not count, because they may never arrive.
fn surplus(policy: &Policy, view: &View<'_>, counts: Counts) -> Vec<Action> {
    let excess = usize::try_from(counts.warm.saturating_sub(counts.wanted)).unwrap_or(usize::MAX);
    let is_stale: HashSet<_> = stale(policy, view).map(|server| server.id).collect();
    let mut idle: Vec<_> = ours(policy, view, &[ServerState::Warm])
        .filter(|server| {
            is_stale.contains(&server.id)
                || view.now.since(server.state_since) >= policy.minimum_idle
        })
        .collect();
    idle.sort_by_key(|server| (!is_stale.contains(&server.id), server.created_at, server.id));
    idle.into_iter()
        .take(excess)
        .map(|server| Action::Retire(server.id))
        .collect()
}

/// Idle servers that are too old, or not of the image that new ones are made from.
fn stale<'a>(policy: &Policy, view: &View<'a>) -> impl Iterator<Item = &'a Server> {
    let (now, images, max_age) = (view.now, view.images, policy.max_age);
    ours(policy, view, &[ServerState::Warm]).filter(move |server| {
        let image = images.get(&server.placement.server_type);
        let is_outdated = image.is_some() && server.image.as_ref() != image;
        is_outdated || now.since(server.created_at) > max_age
    })
}

fn all_ours<'a>(policy: &Policy, view: &View<'a>) -> impl Iterator<Item = &'a Server> {
    let pool = policy.pool.clone();
    view.servers
        .iter()
        .filter(move |server| server.pool == pool)
}

fn ours<'a>(
    policy: &Policy,
    view: &View<'a>,
    states: &[ServerState],
) -> impl Iterator<Item = &'a Server> {
    all_ours(policy, view).filter(move |server| states.contains(&server.state))
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
