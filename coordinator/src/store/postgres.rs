//! The store on PostgreSQL: many writers, in this process and in others.
//!
//! The statements are those of every database, in `store/sql`, compiled here with what is PostgreSQL's
//! own: the types below, `dialect`, and `claim`. Transactions are READ COMMITTED: each statement sees what
//! was committed before it began, and waits for rows that another transaction is changing. What was looked
//! at to decide is therefore held until the commit (`locked!`), decided in the statement that changes it,
//! or backed by a unique index. Locks are taken in one order, server, instance, operation; where that
//! fails, PostgreSQL breaks the deadlock and the transaction is tried again, a bounded number of times.
//!
//! Commits are synchronous, whatever the server's default: a claim that is forgotten would be given away a
//! second time. A future that is dropped rolls its transaction back, or leaves the one statement it sent to
//! succeed or fail as a whole.

#[path = "sql/access.rs"]
mod access;
#[path = "sql/agents.rs"]
mod agents;
#[path = "sql/changes.rs"]
mod changes;
mod claim;
#[path = "sql/claims.rs"]
mod claims;
#[path = "sql/deletion.rs"]
mod deletion;
mod dialect;
#[path = "sql/documents.rs"]
mod documents;
#[path = "sql/domains.rs"]
mod domains;
#[path = "sql/enrolment.rs"]
mod enrolment;
#[path = "sql/events.rs"]
mod events;
#[path = "sql/halts.rs"]
mod halts;
#[path = "sql/instances.rs"]
mod instances;
#[path = "sql/keys.rs"]
mod keys;
#[path = "sql/leases.rs"]
mod leases;
#[path = "sql/lost.rs"]
mod lost;
#[path = "sql/operations.rs"]
mod operations;
#[path = "sql/orders.rs"]
mod orders;
#[path = "sql/pools.rs"]
mod pools;
#[path = "sql/providers.rs"]
mod providers;
#[path = "sql/renames.rs"]
mod renames;
#[path = "sql/reports.rs"]
mod reports;
mod retry;
#[path = "sql/rollouts.rs"]
mod rollouts;
#[path = "sql/routes.rs"]
mod routes;
#[path = "sql/rows.rs"]
mod rows;
#[path = "sql/sagas.rs"]
mod sagas;
#[path = "sql/servers.rs"]
mod servers;
#[path = "sql/stats.rs"]
mod stats;
#[cfg(test)]
mod tests;
#[path = "sql/upgrades.rs"]
mod upgrades;
#[path = "sql/usage.rs"]
mod usage;
#[path = "sql/verifications.rs"]
mod verifications;

use std::{sync::Arc, time::Duration};

use sqlx::{
    PgPool, Postgres,
    postgres::{PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow},
};

use self::{
    dialect::{locked, skip_locked},
    events::Journal,
};
use super::{StoreError, Stored};
use crate::ambient::{Chance, Moment};

// What the shared statements call the types of their database.
type SqlStore = PostgresStore;
type Database = Postgres;
type Connection = sqlx::PgConnection;
type Row = PgRow;
type QueryResult = PgQueryResult;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/postgres");

/// Connections of this process. Commits that wait for the disk share one sync, so more than there are
/// cores; each is a process of PostgreSQL's, so not many more.
const CONNECTIONS: u32 = 24;

/// How long a call may queue for a connection before it is told that the store is overrun.
const QUEUE: Duration = Duration::from_secs(10);

/// What every connection asks of PostgreSQL. Every statement has an index, and plans are kept: one made
/// while a table was small must not read it from end to end when it is large. Nobody may hold locks, or
/// wait for them, for longer than callers wait.
const SETTINGS: [(&str, &str); 7] = [
    ("default_transaction_isolation", "read committed"),
    ("synchronous_commit", "on"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
    ("statement_timeout", "15s"),
    ("idle_in_transaction_session_timeout", "15s"),
];

/// The store in a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
    /// For the ids of events; all other ids come from callers.
    chance: Arc<Chance>,
}

impl PostgresStore {
    /// Connects and brings the tables up to date. Of several that start at once one does it, under
    /// sqlx's advisory lock, and the others wait.
    pub async fn open(options: PgConnectOptions, chance: Arc<Chance>) -> Stored<Self> {
        let options = options.application_name("tidepool");
        migrate(&options).await?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .min_connections(1)
            .acquire_timeout(QUEUE)
            // Tested when they are given back: a test at each use would be one more round trip.
            .test_before_acquire(false)
            .connect_with(options.options(SETTINGS))
            .await
            .map_err(during("connect to the database"))?;
        Ok(Self { pool, chance })
    }

    /// Waits for what is running and disconnects. Calls after it are errors.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn begin(&self) -> sqlx::Result<sqlx::Transaction<'static, Postgres>> {
        self.pool.begin().await
    }

    fn readers(&self) -> &PgPool {
        &self.pool
    }

    /// Collects the events of one transaction.
    fn journal(&self, now: Moment) -> Journal<'_> {
        Journal::new(&self.chance, now)
    }
}

/// On a connection of its own: a change of tables may take longer than a statement may.
async fn migrate(options: &PgConnectOptions) -> Stored<()> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(QUEUE)
        .connect_with(options.clone())
        .await
        .map_err(during("connect to the database"))?;
    let migrated = MIGRATIONS.run(&pool).await;
    pool.close().await;
    migrated.map_err(|source| StoreError {
        doing: "migrate the database",
        source: source.into(),
    })
}

/// Says what was being attempted when the database refused.
fn during(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError {
        doing,
        source: source.into(),
    }
}

/// Runs one transaction: `transaction!(self, "do it", |tx| work(&mut *tx).await)`.
///
/// The work gives a `sqlx::Result`; its error, or dropping the future, rolls everything back, and the
/// whole is tried again if only others were in its way. A macro because the work borrows both the
/// connection and the caller's arguments across awaits, which a closure cannot promise to be `Send`.
macro_rules! transaction {
    ($store:expr, $doing:literal, |$tx:ident| $work:expr) => {
        $crate::store::postgres::retry::retried!(async {
            let mut held = $store.begin().await?;
            let $tx: &mut sqlx::PgConnection = &mut held;
            let outcome: sqlx::Result<_> = $work;
            let outcome = outcome?;
            held.commit().await?;
            Ok(outcome)
        })
        .map_err($crate::store::postgres::during($doing))
    };
}
use transaction;
