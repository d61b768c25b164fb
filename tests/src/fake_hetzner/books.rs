//! What there was and when: for leaks, for money, and for what clients asked.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;
use tidepool_coordinator::ambient::Moment;

use super::label::Labels;

/// The kinds of things that can be left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Server,
    Firewall,
    Image,
    PrimaryIp,
    SshKey,
}

/// Something that exists or existed.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    pub kind: Kind,
    pub id: u64,
    /// Empty for snapshots.
    pub name: String,
    /// Server type and location of a server, size of an image, type of a primary IP.
    pub detail: String,
    /// As they were last.
    pub labels: Labels,
    pub created: Moment,
    /// When it was gone; deletions of servers take a while.
    pub deleted: Option<Moment>,
}

impl Entry {
    pub fn exists(&self) -> bool {
        self.deleted.is_none()
    }

    /// Every started hour counts, and the first at once.
    pub fn billed_hours(&self, now: Moment) -> u64 {
        let lived = self.deleted.unwrap_or(now).since(self.created);
        let hour = Duration::from_hours(1);
        lived.as_secs().div_ceil(hour.as_secs()).max(1)
    }
}

/// A copy of the books.
#[derive(Debug, Clone, Serialize)]
pub struct Books {
    pub now: Moment,
    /// In order of creation.
    pub entries: Vec<Entry>,
    /// Calls that arrived, by operation.
    pub calls: BTreeMap<String, u64>,
}

impl Books {
    /// Everything of a kind that ever existed.
    pub fn ever(&self, kind: Kind) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.kind == kind)
    }

    /// Everything of a kind that exists.
    pub fn existing(&self, kind: Kind) -> impl Iterator<Item = &Entry> {
        self.ever(kind).filter(|entry| entry.exists())
    }

    /// Hours that all servers together are billed for.
    pub fn server_hours(&self) -> u64 {
        self.ever(Kind::Server)
            .map(|entry| entry.billed_hours(self.now))
            .sum()
    }

    /// How often an operation was called.
    pub fn calls_of(&self, operation: &str) -> u64 {
        self.calls.get(operation).copied().unwrap_or(0)
    }
}

/// A request that arrived.
#[derive(Clone)]
pub struct Request {
    pub at: Moment,
    /// Such as `POST /servers`.
    pub operation: String,
    /// With the query.
    pub path: String,
    /// Null when there was none or it was not JSON.
    pub body: Value,
}

/// Bodies hold user data, and with it tokens.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("at", &self.at)
            .field("operation", &self.operation)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The books as they are kept.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<(Kind, u64), Entry>,
    calls: BTreeMap<String, u64>,
    requests: VecDeque<Request>,
}

impl Ledger {
    pub(super) fn arrived(&mut self, request: Request, remembered: usize) {
        *self.calls.entry(request.operation.clone()).or_default() += 1;
        self.requests.push_back(request);
        while self.requests.len() > remembered {
            self.requests.pop_front();
        }
    }

    pub(super) fn enter(&mut self, entry: Entry) {
        self.entries.insert((entry.kind, entry.id), entry);
    }

    pub(super) fn relabel(&mut self, kind: Kind, id: u64, name: &str, labels: &Labels) {
        if let Some(entry) = self.entries.get_mut(&(kind, id)) {
            name.clone_into(&mut entry.name);
            entry.labels.clone_from(labels);
        }
    }

    pub(super) fn end(&mut self, kind: Kind, id: u64, now: Moment) {
        if let Some(entry) = self.entries.get_mut(&(kind, id)) {
            entry.deleted.get_or_insert(now);
        }
    }

    pub(super) fn books(&self, now: Moment) -> Books {
        let mut entries: Vec<_> = self.entries.values().cloned().collect();
        // Ids come from one sequence.
        entries.sort_by_key(|entry| entry.id);
        Books {
            now,
            entries,
            calls: self.calls.clone(),
        }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_started_hour_is_billed() {
        let lived = |seconds: i64| {
            let entry = Entry {
                kind: Kind::Server,
                id: 1,
                name: "a".to_owned(),
                detail: String::new(),
                labels: Labels::new(),
                created: Moment(0),
                deleted: Some(Moment(seconds * 1_000_000)),
            };
            entry.billed_hours(Moment(i64::MAX))
        };
        assert_eq!([0, 120, 3600, 3601].map(lived), [1, 1, 1, 2]);
    }
}
