//! What the shared statements need to be done otherwise here: rows are locked because others write, too,
//! lists travel as arrays, and events get their numbers when they are read.

use tidepool_shared::id::InstanceId;

use super::{
    Connection, PostgresStore, claim, claims, during, events::Entry, retry::retried, rows,
};
use crate::{
    ambient::Moment,
    model::{Instance, NewInstance, PoolKey},
    store::CreateRefused,
};

/// A `SELECT` whose rows are the transaction's until it ends. No key is ever changed, so what refers to a
/// row need not wait for whoever holds it.
macro_rules! locked {
    ($select:literal) => {
        concat!($select, " FOR NO KEY UPDATE")
    };
}

/// A `SELECT` for the first rows that no other transaction holds.
macro_rules! skip_locked {
    ($select:literal) => {
        concat!($select, " FOR NO KEY UPDATE SKIP LOCKED")
    };
}

pub(super) use {locked, skip_locked};

/// Advisory locks of this program, beside the one of sqlx's migrations.
const QUEUES: i32 = 0x7469_6465;
const NUMBERS: i64 = 0x7469_6465_706f_6f6c;

/// Records of transactions that no older one is still open beside: none of those can come to light before
/// one of these. A number of the future is another cluster's, from which the database was restored.
pub(super) const USAGE_RECORDS: &str = "SELECT *, CAST(written_by AS TEXT) AS transaction \
     FROM usage_records \
     WHERE (written_by, ordinal) > (CAST($1 AS xid8), $2) \
       AND (written_by < pg_snapshot_xmin(pg_current_snapshot()) \
            OR written_by >= pg_snapshot_xmax(pg_current_snapshot())) \
     ORDER BY written_by, ordinal LIMIT $3";

/// How many events get their numbers in one transaction.
const NUMBERED_AT_ONCE: i64 = 1000;

/// The claim: one statement if a server is warm and nobody waits; otherwise, or if something unique was
/// taken, the transaction that finds out what to do, in the queue of its tier.
pub(super) async fn create_instance(
    store: &PostgresStore,
    new: &NewInstance,
    now: Moment,
) -> Result<Instance, CreateRefused> {
    let doing = "create an instance";
    if let Some(claimed) = claim::at_once(store, new, now)
        .await
        .map_err(during(doing))?
    {
        return Ok(claimed);
    }
    retried!(async {
        let mut tx = store.begin().await?;
        let created = claims::create(&mut tx, store.journal(now), new, now).await?;
        match created {
            Ok(_) => tx.commit().await?,
            Err(_) => tx.rollback().await?,
        }
        Ok(created)
    })
    .map_err(during(doing))?
}

/// Those who wait for a server of a pool, and those who give them one, do it one after the other: only then
/// is a place in the queue a promise. Held until the commit is seen by others.
pub(super) async fn hold_queue(tx: &mut Connection, pool: &PoolKey) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))")
        .bind(QUEUES)
        .bind(pool.to_string())
        .execute(tx)
        .await
        .map(drop)
}

/// `false` when a host name is another instance's.
pub(super) async fn insert_routes(
    tx: &mut Connection,
    instance: InstanceId,
    hosts: &[String],
) -> sqlx::Result<bool> {
    let result = sqlx::query(
        "INSERT INTO routes (host, instance_id) SELECT host, $1 FROM unnest($2) AS host
         ON CONFLICT DO NOTHING",
    )
    .bind(instance.to_string())
    .bind(hosts)
    .execute(tx)
    .await?;
    Ok(usize::try_from(result.rows_affected()) == Ok(hosts.len()))
}

/// Writes events without numbers: a number has no gap before it only once all before it are committed, and
/// to wait for that would put all transactions of all coordinators behind each other's sync.
pub(super) async fn insert_events(
    tx: &mut Connection,
    entries: &[Entry],
    now: Moment,
) -> sqlx::Result<()> {
    let texts = |of: fn(&Entry) -> Option<String>| entries.iter().map(of).collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO event_inbox (id, kind, instance_id, server_id, data, at)
         SELECT id, kind, instance_id, server_id, data, $6
         FROM unnest($1, $2, $3, $4, $5) WITH ORDINALITY
              AS entry (id, kind, instance_id, server_id, data, place)
         ORDER BY place",
    )
    .bind(texts(|entry| Some(entry.id.to_string())))
    .bind(texts(|entry| Some(entry.kind.clone())))
    .bind(texts(|entry| entry.instance.map(|id| id.to_string())))
    .bind(texts(|entry| entry.server.map(|id| id.to_string())))
    .bind(texts(|entry| Some(entry.data.clone())))
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}

/// Numbers the events that are committed, before somebody reads them. One at a time does it, and looks for
/// what is there only once the one before is seen to be done; so numbers have no gaps, whoever has seen one
/// has seen all before it, and an event that was caused by another comes after it.
pub(super) async fn number_events(store: &PostgresStore) -> sqlx::Result<()> {
    loop {
        let unnumbered = sqlx::query("SELECT 1 FROM event_inbox LIMIT 1")
            .fetch_optional(&store.pool)
            .await?;
        if unnumbered.is_none() || number_some(store).await? < NUMBERED_AT_ONCE.unsigned_abs() {
            return Ok(());
        }
    }
}

async fn number_some(store: &PostgresStore) -> sqlx::Result<u64> {
    let mut tx = store.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(NUMBERS)
        .execute(&mut *tx)
        .await?;
    let numbered = sqlx::query(
        "WITH taken AS (
             DELETE FROM event_inbox WHERE position IN
                 (SELECT position FROM event_inbox ORDER BY position LIMIT $1)
             RETURNING *)
         INSERT INTO events (sequence, id, kind, instance_id, server_id, data, at)
         SELECT (SELECT coalesce(max(sequence), 0) FROM events) + row_number() OVER (ORDER BY position),
                id, kind, instance_id, server_id, data, at
         FROM taken",
    )
    .bind(NUMBERED_AT_ONCE)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(numbered.rows_affected())
}

/// The database's clock, whatever the caller's says: the coordinators share it.
pub(super) async fn now(store: &PostgresStore, _: Moment) -> sqlx::Result<Moment> {
    let row = sqlx::query(
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT AS microseconds",
    )
    .fetch_one(&store.pool)
    .await?;
    rows::moment(&row, "microseconds")
}
