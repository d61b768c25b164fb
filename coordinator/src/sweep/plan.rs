//! What a sweep should do: a pure function of what the cloud has and what the store says.
//!
//! Invariants, held by the property tests: nothing of a server that the store still counts on is
//! removed; nothing young is removed; never more in a pass than the cap; a server is lost only if two
//! lists in a row and a question of its own did not find it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use tidepool_shared::id::ServerId;

use crate::{
    ambient::Moment,
    cloud::{CloudObject, ObjectKind},
    model::{Server, ServerState},
};

#[cfg(test)]
mod tests;

/// How careful a sweep is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What nobody knows is removed when it is older: longer than a creation may take, so that a server
    /// whose answer is still on its way is never taken for an orphan.
    pub minimum_age: Duration,
    /// Snapshots are kept for this long after they are of no use.
    pub snapshot_age: Duration,
    /// Removals in one pass; more than that is a mistake of ours until a person looked.
    pub most_removals: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            minimum_age: Duration::from_mins(30),
            snapshot_age: Duration::from_hours(7 * 24),
            most_removals: 5,
        }
    }
}

/// What there is.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Everything in the cloud that bears our labels.
    pub objects: &'a [CloudObject],
    /// All servers that are not gone.
    pub servers: &'a [Server],
    /// Servers that the pass before did not find either.
    pub missed: &'a HashSet<ServerId>,
    /// Firewalls and snapshots that what is made next will use, by id.
    pub needed: &'a HashSet<(ObjectKind, String)>,
    /// What earlier passes could not remove.
    pub stubborn: &'a HashSet<(ObjectKind, String)>,
    pub now: Moment,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// To be removed from the cloud, the oldest first, but what resisted before last: it must not use up
    /// every pass.
    pub remove: Vec<CloudObject>,
    /// How many more would be removed if the cap allowed it.
    pub over_cap: usize,
    /// In the store but in no list for two passes: ask for each, then close it.
    pub lost: Vec<ServerId>,
    /// In the store but not in this list.
    pub missed: HashSet<ServerId>,
}

/// Decides.
pub fn plan(policy: &Policy, view: &View<'_>) -> Plan {
    let mut remove: Vec<_> = orphans(policy, view).cloned().collect();
    remove.sort_by_cached_key(|object| {
        let key = (object.kind, object.id.clone());
        (view.stubborn.contains(&key), object.created_at, key.1)
    });
    let over_cap = remove.len().saturating_sub(policy.most_removals);
    remove.truncate(policy.most_removals);
    let missed = missing(view);
    Plan {
        remove,
        over_cap,
        lost: ordered(missed.intersection(view.missed).copied()),
        missed,
    }
}

fn orphans<'a>(policy: &Policy, view: &View<'a>) -> impl Iterator<Item = &'a CloudObject> {
    let known: HashMap<&str, ServerState> = view
        .servers
        .iter()
        .map(|server| (server.name.as_str(), server.state))
        .collect();
    let (now, needed) = (view.now, view.needed);
    let (young, recent) = (policy.minimum_age, policy.snapshot_age);
    view.objects.iter().filter(move |object| {
        let age = now.since(object.created_at);
        let is_used = object.in_use || needed.contains(&(object.kind, object.id.clone()));
        match object.kind {
            ObjectKind::Server => !known.contains_key(object.name.as_str()) && age > young,
            ObjectKind::Firewall | ObjectKind::PrimaryAddress => !is_used && age > young,
            ObjectKind::Snapshot => !is_used && age > recent,
        }
    })
}

/// Servers that the cloud should have and did not list.
fn missing(view: &View<'_>) -> HashSet<ServerId> {
    let listed: HashSet<&str> = view
        .objects
        .iter()
        .filter(|object| object.kind == ObjectKind::Server)
        .map(|object| object.name.as_str())
        .collect();
    view.servers
        .iter()
        .filter(|server| is_expected(server.state) && !listed.contains(server.name.as_str()))
        .map(|server| server.id)
        .collect()
}

/// Whether the cloud answered that it has this server and was not asked to delete it.
fn is_expected(state: ServerState) -> bool {
    match state {
        ServerState::Booting | ServerState::Warm | ServerState::Claimed => true,
        ServerState::Planned
        | ServerState::Creating
        | ServerState::Draining
        | ServerState::Deleting
        | ServerState::Gone
        | ServerState::Failed => false,
    }
}

fn ordered(ids: impl Iterator<Item = ServerId>) -> Vec<ServerId> {
    ids.collect::<BTreeSet<_>>().into_iter().collect()
}
