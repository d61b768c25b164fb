//! What the shared statements need to be done otherwise here: SQLite has one writer, so nothing has to be
//! locked, and lists travel as JSON.

use std::future::{Ready, ready};

use serde_json::{Value, json};
use tidepool_shared::id::InstanceId;

use super::{Connection, SqliteStore, claims, during, events::Entry, rows};
use crate::{
    ambient::Moment,
    model::{Instance, NewInstance, PoolKey},
    store::CreateRefused,
};

/// A `SELECT` whose rows are the transaction's until it ends: all rows are.
macro_rules! locked {
    ($select:literal) => {
        $select
    };
}

/// A `SELECT` for the first rows that no other transaction holds: there is no other.
macro_rules! skip_locked {
    ($select:literal) => {
        $select
    };
}

pub(super) use {locked, skip_locked};

/// Rows come to light in the order of their numbers: there is one writer at a time.
pub(super) const USAGE_RECORDS: &str = "SELECT *, '0' AS \"transaction\" FROM usage_records \
     WHERE $1 IS NOT NULL AND ordinal > $2 ORDER BY ordinal LIMIT $3";

/// The claim. All changes of this process are in one queue, so what it found holds until its commit.
pub(super) async fn create_instance(
    store: &SqliteStore,
    new: &NewInstance,
    now: Moment,
) -> Result<Instance, CreateRefused> {
    let attempt = async {
        let mut tx = store.begin().await?;
        let created = claims::create(&mut tx, store.journal(now), new, now).await?;
        if created.is_ok() {
            tx.commit().await?;
        }
        Ok(created)
    };
    attempt.await.map_err(during("create an instance"))?
}

/// The order of those who wait is that of the writer's queue.
pub(super) fn hold_queue(_: &mut Connection, _pool: &PoolKey) -> Ready<sqlx::Result<()>> {
    ready(Ok(()))
}

/// `false` when a host name is another instance's.
pub(super) async fn insert_routes(
    tx: &mut Connection,
    instance: InstanceId,
    hosts: &[String],
) -> sqlx::Result<bool> {
    let result = sqlx::query(
        "INSERT INTO routes (host, instance_id) SELECT value, $1 FROM json_each($2) WHERE true
         ON CONFLICT DO NOTHING",
    )
    .bind(instance.to_string())
    .bind(rows::as_json(&hosts)?)
    .execute(tx)
    .await?;
    Ok(usize::try_from(result.rows_affected()) == Ok(hosts.len()))
}

/// Numbers and writes events: the greatest number plus one is free as long as this is the writer.
pub(super) async fn insert_events(
    tx: &mut Connection,
    entries: &[Entry],
    now: Moment,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO events (sequence, id, kind, instance_id, server_id, data, at)
         SELECT (SELECT coalesce(max(sequence), 0) FROM events) + 1 + entry.key,
                entry.value ->> 'id', entry.value ->> 'kind', entry.value ->> 'instance',
                entry.value ->> 'server', entry.value ->> 'data', $1
         FROM json_each($2) AS entry",
    )
    .bind(now.0)
    .bind(entries.iter().map(as_json).collect::<Value>().to_string())
    .execute(tx)
    .await?;
    Ok(())
}

fn as_json(entry: &Entry) -> Value {
    json!({
        "id": entry.id,
        "kind": entry.kind,
        "instance": entry.instance,
        "server": entry.server,
        // Text within the text: the log keeps it as it is, order of keys included.
        "data": entry.data,
    })
}

/// Events have their numbers from the start.
pub(super) fn number_events(_: &SqliteStore) -> Ready<sqlx::Result<()>> {
    ready(Ok(()))
}

/// One process, one clock.
pub(super) fn now(_: &SqliteStore, now: Moment) -> Ready<sqlx::Result<Moment>> {
    ready(Ok(now))
}
