//! The table of routes: host name → instance, read without a lock and swapped as a whole.
//!
//! It is a cache of the store with one writer. Each instance has a token that lives as long as its
//! access is unchanged; open streams and WebSockets hold it and end when it is cancelled. The new
//! table is in place *before* the old tokens are cancelled, so that whoever reconnects at once
//! already meets the new rules.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use tidepool_shared::id::InstanceId;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::model::Route;

/// Host name → where it leads.
pub(super) type Entries = HashMap<Arc<str>, Arc<Entry>>;

/// A route and the life of its instance's access.
pub(super) struct Entry {
    pub(super) route: Route,
    /// Cancelled when the access that let requests in has changed or ended.
    pub(super) live: CancellationToken,
    /// Since when this access is in the table.
    pub(super) since: Instant,
}

/// The table.
pub(super) struct Table {
    entries: ArcSwap<Entries>,
    /// Serialises read-change-store; holds nothing.
    writing: Mutex<()>,
    /// Counts the swaps, for those who wait for one.
    version: watch::Sender<u64>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            entries: ArcSwap::default(),
            writing: Mutex::new(()),
            version: watch::Sender::new(0),
        }
    }
}

impl Table {
    /// The entry of a host name in canonical form.
    pub(super) fn find(&self, host: &str) -> Option<Arc<Entry>> {
        self.entries.load().get(host).map(Arc::clone)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.load().len()
    }

    /// Waits until the table is as wanted. Cancel-safe.
    pub(super) async fn until(&self, wanted: impl Fn(&Entries) -> bool) {
        let mut version = self.version.subscribe();
        while !wanted(&self.entries.load()) {
            if version.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Waits for a version after this one. Cancel-safe.
    pub(super) async fn changed(&self, since: u64) {
        // The sender is ours and lives as long as we do.
        drop(self.version.subscribe().wait_for(|now| *now > since).await);
    }

    /// All routes anew.
    pub(super) fn replace_all(&self, routes: Vec<Route>) {
        self.replace(|_| true, routes);
    }

    /// The routes of one instance anew; none: it is gone.
    pub(super) fn replace_instance(&self, id: InstanceId, routes: Vec<Route>) {
        self.replace(|instance| instance == id, routes);
    }

    fn replace(&self, affected: impl Fn(InstanceId) -> bool, routes: Vec<Route>) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.entries.load_full();
        let (touched, mut next): (Vec<_>, Entries) = before.iter().fold(
            (Vec::new(), Entries::new()),
            |(mut touched, mut kept), (host, entry)| {
                if affected(entry.route.instance) {
                    touched.push(Arc::clone(entry));
                } else {
                    kept.insert(Arc::clone(host), Arc::clone(entry));
                }
                (touched, kept)
            },
        );
        let ended = ended(&touched, &routes);
        let mut lives: HashMap<InstanceId, (CancellationToken, Instant)> = touched
            .iter()
            .filter(|entry| !ended.contains(&entry.route.instance))
            .map(|entry| (entry.route.instance, (entry.live.clone(), entry.since)))
            .collect();
        let now = Instant::now();
        for route in routes {
            let new = || (CancellationToken::new(), now);
            let (live, since) = lives.entry(route.instance).or_insert_with(new).clone();
            next.insert(
                route.host.as_str().into(),
                Arc::new(Entry { route, live, since }),
            );
        }
        self.entries.store(Arc::new(next));
        for entry in &touched {
            if ended.contains(&entry.route.instance) {
                entry.live.cancel();
            }
        }
        self.version.send_modify(|version| *version += 1);
    }
}

/// The instances of which a route vanished or changed in what it lets through.
fn ended(before: &[Arc<Entry>], after: &[Route]) -> HashSet<InstanceId> {
    let after: HashMap<&str, &Route> = after
        .iter()
        .map(|route| (route.host.as_str(), route))
        .collect();
    before
        .iter()
        .filter(|entry| {
            after
                .get(entry.route.host.as_str())
                .is_none_or(|route| !same_access(route, &entry.route))
        })
        .map(|entry| entry.route.instance)
        .collect()
}

/// A change of status alone ends nobody's connection, unless it shuts the door.
fn same_access(a: &Route, b: &Route) -> bool {
    a.instance == b.instance
        && a.upstream.map(|to| (to.server, to.address))
            == b.upstream.map(|to| (to.server, to.address))
        && a.edge_proof == b.edge_proof
        && a.basic_auth == b.basic_auth
        && a.moved_to == b.moved_to
        && a.status.power() == b.status.power()
}

#[cfg(test)]
mod tests {
    use tidepool_shared::{document::EdgeProof, id::ServerId};
    use uuid::Uuid;

    use super::*;
    use crate::model::{Door, EdgeLimits, InstanceStatus, Upstream};

    fn id(number: u128) -> InstanceId {
        InstanceId::new(Uuid::from_u128(number))
    }

    fn route(host: &str, instance: u128) -> Route {
        Route {
            host: host.to_owned(),
            instance: id(instance),
            upstream: Some(Upstream {
                server: ServerId::new(Uuid::from_u128(instance)),
                address: [127, 0, 0, 1].into(),
                door: Door::Mutual,
            }),
            edge_proof: EdgeProof("ab".to_owned()),
            basic_auth: None,
            limits: EdgeLimits::default(),
            status: InstanceStatus::Starting,
            notice: None,
            hooks: Vec::new(),
            is_renaming: false,
            moved_to: None,
        }
    }

    #[test]
    fn a_change_of_status_alone_cuts_nobody() {
        let table = Table::default();
        table.replace_all(vec![route("a", 1)]);
        let before = table.find("a").unwrap();
        let running = Route {
            status: InstanceStatus::Running,
            ..route("a", 1)
        };
        table.replace_instance(id(1), vec![running]);
        assert!(!before.live.is_cancelled());
        assert_eq!(table.find("a").unwrap().since, before.since);
        assert_eq!(
            table.find("a").unwrap().route.status,
            InstanceStatus::Running
        );
    }

    #[test]
    fn a_vanished_route_cuts_its_instance_and_no_other() {
        let table = Table::default();
        table.replace_all(vec![route("a", 1), route("b", 2)]);
        let (a, b) = (table.find("a").unwrap(), table.find("b").unwrap());
        table.replace_instance(id(1), Vec::new());
        assert!(a.live.is_cancelled() && !b.live.is_cancelled());
        assert!(table.find("a").is_none() && table.find("b").is_some());
    }

    #[test]
    fn another_password_cuts_those_let_in_by_the_old_one() {
        let table = Table::default();
        table.replace_all(vec![route("a", 1)]);
        let live = table.find("a").unwrap().live.clone();
        let locked = Route {
            basic_auth: Some("u:h".to_owned()),
            ..route("a", 1)
        };
        table.replace_all(vec![locked]);
        assert!(live.is_cancelled());
        assert!(!table.find("a").unwrap().live.is_cancelled());
    }

    #[test]
    fn a_host_that_passed_to_another_instance_is_not_taken_by_the_late_news() {
        let table = Table::default();
        table.replace_all(vec![route("a", 2)]);
        table.replace_instance(id(1), Vec::new());
        assert_eq!(table.find("a").unwrap().route.instance, id(2));
    }
}
