//! Reading the tables again: when a bell rings, when somebody waits, and anyway every two seconds.

use std::time::Duration;

use sqlx::{PgPool, SqlitePool, postgres::PgListener};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Directory, database::Database};
use crate::catalog::Keyring;

/// The coordinators' bell. What it says does not matter: it never carries what changed.
const CHANNEL: &str = "tidepool";
/// Without a bell. A table that nobody could confirm is one of the past.
const ANYWAY: Duration = Duration::from_secs(2);
/// A reading may take this share of the time: a twentieth.
const SHARE: u32 = 20;
/// Between two readings, however small the tables.
const LEAST: Duration = Duration::from_millis(50);
/// The same, however slow the database: whoever was claimed meanwhile waits as long.
const MOST: Duration = Duration::from_secs(1);
/// At the version of a file.
const LOOK: Duration = Duration::from_millis(100);
/// After a failed reading.
const PAUSE: Duration = Duration::from_millis(500);
/// For one reading.
const DEADLINE: Duration = Duration::from_secs(5);

/// What keeps a [`Directory`] true.
#[derive(Debug)]
pub struct Follower {
    directory: Directory,
    database: Database,
    keyring: Keyring,
}

impl Follower {
    pub(super) fn new(directory: Directory, database: Database, keyring: Keyring) -> Self {
        Self {
            directory,
            database,
            keyring,
        }
    }

    /// Follows until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let both = async { tokio::join!(self.read_again_and_again(), self.listen()) };
        cancel.run_until_cancelled(both).await;
    }

    async fn read_again_and_again(&self) {
        let mut failing = false;
        loop {
            let begun = Instant::now();
            let pause = match timeout(DEADLINE, self.database.read(&self.keyring)).await {
                Ok(Ok(copy)) => {
                    self.directory.replace(copy, begun);
                    if std::mem::take(&mut failing) {
                        tracing::info!("the directory is read again");
                    }
                    (begun.elapsed() * SHARE).clamp(LEAST, MOST)
                }
                Ok(Err(error)) => {
                    told(&mut failing, &format!("{:#}", anyhow::Error::new(error)));
                    PAUSE
                }
                Err(_) => {
                    told(&mut failing, "the database does not answer");
                    PAUSE
                }
            };
            sleep(pause).await;
            // Nothing is lost: a bell that rang meanwhile is remembered.
            drop(timeout(ANYWAY, self.directory.0.wanted.notified()).await);
        }
    }

    /// Refreshes whenever somebody else has changed the database.
    async fn listen(&self) {
        loop {
            // A lost bell is no loss: the tables are read anyway.
            drop(match &self.database {
                Database::Postgres(pool) => self.bell(pool).await,
                Database::Sqlite(pool) => self.version(pool).await,
            });
            sleep(PAUSE).await;
        }
    }

    async fn bell(&self, pool: &PgPool) -> sqlx::Result<()> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        loop {
            // Also at first: whatever rang before was not heard.
            self.directory.refresh();
            listener.recv().await?;
        }
    }

    /// A file has no bell, but tells cheaply whether another connection has changed it.
    async fn version(&self, pool: &SqlitePool) -> sqlx::Result<()> {
        let mut connection = pool.acquire().await?;
        let mut last = None;
        loop {
            let version: i64 = sqlx::query_scalar("PRAGMA data_version")
                .fetch_one(&mut *connection)
                .await?;
            if last.replace(version) != Some(version) {
                self.directory.refresh();
            }
            sleep(LOOK).await;
        }
    }
}

/// Once, not at every turn.
fn told(failing: &mut bool, error: &str) {
    if !std::mem::replace(failing, true) {
        tracing::warn!(error, "the directory cannot be read");
    }
}
