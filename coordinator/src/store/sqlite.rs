//! The store on SQLite: one file, one writer, several readers.
//!
//! Every change takes `BEGIN IMMEDIATE` on the only writing connection, so changes queue in this
//! process and never meet `SQLITE_BUSY` half-way; what was decided on is still true at commit. Readers
//! see the last commit and wait for nobody (WAL). `synchronous=FULL`: a commit that was answered
//! survives a power cut, since a claim that is forgotten would be given away a second time. A future
//! that is dropped rolls its transaction back.
//!
//! The statements are those of every database, in `store/sql`, compiled here with what is SQLite's own:
//! the types below and `dialect`. Another program, `tidepool-proxy`, reads the `trust` table in the
//! same file.

#[path = "sql/access.rs"]
mod access;
#[path = "sql/agents.rs"]
mod agents;
#[path = "sql/changes.rs"]
mod changes;
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

use std::{path::Path, sync::Arc, time::Duration};

use sqlx::{
    Connection as _, Sqlite, SqlitePool,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteQueryResult, SqliteRow,
        SqliteSynchronous,
    },
};

use self::{
    dialect::{locked, skip_locked},
    events::Journal,
};
use super::{StoreError, Stored};
use crate::ambient::{Chance, Moment};

// What the shared statements call the types of their database.
type SqlStore = SqliteStore;
type Database = Sqlite;
type Connection = sqlx::SqliteConnection;
type Row = SqliteRow;
type QueryResult = SqliteQueryResult;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");

/// Readers run on the page cache; more than this only queue for the same cores.
const READERS: u32 = 4;

/// How long the file may be locked by another program (a checkpoint, a backup).
const BUSY: Duration = Duration::from_secs(5);

/// How long a call may queue for a connection before it is told that the store is overrun.
const QUEUE: Duration = Duration::from_secs(10);

/// A log file that grew over this in a burst is cut back at the next checkpoint.
const LOG_LIMIT_BYTES: &str = "67108864";

/// The store in a file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    /// Of size one: the queue of all changes.
    writer: SqlitePool,
    readers: SqlitePool,
    /// For the ids of events; all other ids come from callers.
    chance: Arc<Chance>,
    #[cfg(test)]
    pub(crate) faults: Arc<super::faults::Faults>,
}

impl SqliteStore {
    /// Opens the file, creating it for its owner only, and brings its tables up to date.
    pub async fn open(path: &Path, chance: Arc<Chance>) -> Stored<Self> {
        keep_private(path).await.map_err(|source| StoreError {
            doing: "create the database file",
            source: source.into(),
        })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .pragma("journal_size_limit", LOG_LIMIT_BYTES);
        let writer = lasting_pool(1)
            .connect_with(options.clone())
            .await
            .map_err(during("open the database"))?;
        MIGRATIONS.run(&writer).await.map_err(|source| StoreError {
            doing: "migrate the database",
            source: source.into(),
        })?;
        let readers = lasting_pool(READERS)
            .connect_with(options.pragma("query_only", "ON"))
            .await
            .map_err(during("open the database for reading"))?;
        let store = Self {
            writer,
            readers,
            chance,
            #[cfg(test)]
            faults: Arc::default(),
        };
        store.forget_leases().await?;
        Ok(store)
    }

    /// Waits for what is running and closes the file. Calls after it are errors.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// A file has one coordinator: whoever held a lease is dead, and need not be waited for.
    async fn forget_leases(&self) -> Stored<()> {
        sqlx::query("DELETE FROM leases")
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(during("forget the leases of the dead"))
    }

    async fn begin(&self) -> sqlx::Result<sqlx::Transaction<'static, Sqlite>> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Collects the events of one transaction.
    fn journal(&self, now: Moment) -> Journal<'_> {
        Journal::new(&self.chance, now)
    }
}

/// The log and index beside the file get its mode from SQLite.
async fn keep_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    tokio::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .await?
        .set_permissions(std::fs::Permissions::from_mode(0o600))
        .await
}

/// Connections to a local file do not go stale: none is tested, aged or dropped.
fn lasting_pool(size: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(size)
        .min_connections(1)
        .acquire_timeout(QUEUE)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // A full disk ends a transaction in SQLite that sqlx then believes open for ever: its `ROLLBACK` fails.
        .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
}

/// Says what was being attempted when the database refused.
fn during(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError {
        doing,
        source: source.into(),
    }
}

/// Runs one transaction on the writer: `transaction!(self, "do it", |tx| work(&mut *tx).await)`.
///
/// The work gives a `sqlx::Result`; its error, or dropping the future, rolls everything back. A macro
/// because the work borrows both the connection and the caller's arguments across awaits, which a
/// closure cannot promise to be `Send`.
macro_rules! transaction {
    ($store:expr, $doing:literal, |$tx:ident| $work:expr) => {{
        let attempt = async {
            let mut held = $store.begin().await?;
            let $tx: &mut sqlx::SqliteConnection = &mut held;
            let outcome: sqlx::Result<_> = $work;
            let outcome = outcome?;
            #[cfg(test)]
            $store.faults.before_commit()?;
            held.commit().await?;
            #[cfg(test)]
            $store.faults.after_commit().await?;
            Ok(outcome)
        };
        attempt.await.map_err($crate::store::sqlite::during($doing))
    }};
}
use transaction;
