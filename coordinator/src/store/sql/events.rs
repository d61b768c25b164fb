//! The event log. Entries are collected while a transaction decides and are written by it in one
//! statement, so there is no event without its change and no change without its event.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tidepool_shared::id::{EventId, InstanceId, ServerId};

use super::{Connection, SqlStore, dialect, during, rows, transaction};
use crate::{
    ambient::{Chance, Moment},
    model::Event,
    store::{EventStore, Stored},
};

/// What an event is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum About {
    Nothing,
    Server(ServerId),
    Instance(InstanceId),
    Both(InstanceId, ServerId),
}

impl About {
    /// An instance and, if it has one, its server.
    pub(super) fn instance(instance: InstanceId, server: Option<ServerId>) -> Self {
        server.map_or(Self::Instance(instance), |server| {
            Self::Both(instance, server)
        })
    }

    /// A server and, if it has one, its instance.
    pub(super) fn server(server: ServerId, instance: Option<InstanceId>) -> Self {
        instance.map_or(Self::Server(server), |instance| {
            Self::Both(instance, server)
        })
    }

    fn ids(self) -> (Option<InstanceId>, Option<ServerId>) {
        match self {
            Self::Nothing => (None, None),
            Self::Server(server) => (None, Some(server)),
            Self::Instance(instance) => (Some(instance), None),
            Self::Both(instance, server) => (Some(instance), Some(server)),
        }
    }
}

/// The events of one transaction, oldest first.
pub(super) struct Journal<'c> {
    chance: &'c Chance,
    now: Moment,
    entries: Vec<Entry>,
}

/// An event to be: what a row of the log is made from, but for its number.
pub(super) struct Entry {
    pub(super) id: EventId,
    pub(super) kind: String,
    pub(super) instance: Option<InstanceId>,
    pub(super) server: Option<ServerId>,
    pub(super) data: String,
}

impl<'c> Journal<'c> {
    pub(super) fn new(chance: &'c Chance, now: Moment) -> Self {
        Self {
            chance,
            now,
            entries: Vec::new(),
        }
    }

    /// Adds an event. `data` holds nothing secret: the log is shown to API clients.
    pub(super) fn note(&mut self, kind: &str, about: About, data: &Value) {
        let (instance, server) = about.ids();
        self.entries.push(Entry {
            id: EventId::new(self.chance.uuid(self.now)),
            kind: kind.to_owned(),
            instance,
            server,
            data: data.to_string(),
        });
    }

    /// Writes what was noted. The last step of a transaction that decided to change something.
    pub(super) async fn write(self, tx: &mut Connection) -> sqlx::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        dialect::insert_events(tx, &self.entries, self.now).await
    }
}

/// How long an event is kept.
const KEPT: Duration = Duration::from_hours(30 * 24);

/// The most events that one turn forgets: everything else waits for the writer meanwhile.
const FORGOTTEN_AT_ONCE: i64 = 10_000;

/// Forgets the oldest events up to the first that is young enough. The clock was read before the number
/// was given, so moments are not quite in order; the numbers are, and stay without gaps.
pub(super) async fn trim(tx: &mut Connection, now: Moment) -> sqlx::Result<u64> {
    let trimmed = sqlx::query(
        "DELETE FROM events
         WHERE sequence < (SELECT min(sequence) FROM events) + $2
           AND sequence < coalesce(
             (SELECT sequence FROM events WHERE at > $1 ORDER BY sequence LIMIT 1),
             (SELECT max(sequence) FROM events))",
    )
    .bind(now.minus(KEPT).0)
    .bind(FORGOTTEN_AT_ONCE)
    .execute(tx)
    .await?;
    Ok(trimmed.rows_affected())
}

#[async_trait]
impl EventStore for SqlStore {
    async fn events_after(
        &self,
        sequence: u64,
        instance: Option<InstanceId>,
        limit: u32,
    ) -> Stored<Vec<Event>> {
        let doing = "read events";
        dialect::number_events(self).await.map_err(during(doing))?;
        let after = rows::as_integer(sequence);
        let query = match instance {
            None => {
                sqlx::query("SELECT * FROM events WHERE sequence > $1 ORDER BY sequence LIMIT $2")
                    .bind(after)
                    .bind(i64::from(limit))
            }
            Some(instance) => sqlx::query(
                "SELECT * FROM events WHERE sequence > $1 AND instance_id = $3
                 ORDER BY sequence LIMIT $2",
            )
            .bind(after)
            .bind(i64::from(limit))
            .bind(instance.to_string()),
        };
        let found = query
            .fetch_all(self.readers())
            .await
            .map_err(during(doing))?;
        found
            .iter()
            .map(rows::event)
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }

    async fn event_sequence(&self, id: &str) -> Stored<Option<u64>> {
        let doing = "find an event";
        let found = sqlx::query("SELECT sequence FROM events WHERE id = $1")
            .bind(id)
            .fetch_optional(self.readers())
            .await
            .map_err(during(doing))?;
        found
            .map(|row| rows::unsigned(&row, "sequence"))
            .transpose()
            .map_err(during(doing))
    }

    async fn tell(&self, kind: &str, data: Value, now: Moment) -> Stored<()> {
        transaction!(self, "write an event", |tx| {
            let mut journal = self.journal(now);
            journal.note(kind, About::Nothing, &data);
            journal.write(tx).await
        })
    }

    async fn last_sequence(&self) -> Stored<u64> {
        let doing = "read the last event's number";
        dialect::number_events(self).await.map_err(during(doing))?;
        sqlx::query("SELECT coalesce(max(sequence), 0) AS sequence FROM events")
            .fetch_one(self.readers())
            .await
            .and_then(|row| rows::unsigned(&row, "sequence"))
            .map_err(during(doing))
    }
}
