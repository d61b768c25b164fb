//! A PostgreSQL of this test's own, which it may crash.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{Connection as _, PgConnection};
use tidepool_coordinator::{
    ambient::Chance,
    store::{postgres::PostgresStore, throwaway},
};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, books::Row};

const PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct Postgres {
    url: String,
    folder: PathBuf,
}

impl Postgres {
    /// With the coordinator's tables. `None` where there is no PostgreSQL.
    pub(crate) async fn start() -> anyhow::Result<Option<Self>> {
        let Some(url) = tokio::task::spawn_blocking(|| throwaway::server(&[])).await?? else {
            eprintln!("SKIPPED: PostgreSQL is not installed (Debian: postgresql)");
            return Ok(None);
        };
        let host = url
            .split_once('@')
            .and_then(|(_, rest)| rest.split_once('/'));
        let folder = host
            .context("a URL with a socket's folder")?
            .0
            .replace("%2F", "/");
        let store = PostgresStore::open(url.parse()?, Arc::new(Chance::from_os())).await?;
        store.close().await;
        Ok(Some(Self {
            url,
            folder: folder.into(),
        }))
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn connect(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.url).await
    }

    /// All connections are cut, and what was not committed is gone.
    pub(crate) async fn crash(&mut self) -> anyhow::Result<()> {
        let file = self.folder.join("data/postmaster.pid");
        let text = std::fs::read_to_string(&file)?;
        let pid = text.lines().next().context("a pid")?.parse()?;
        kill(Pid::from_raw(pid), Signal::SIGQUIT)?;
        let deadline = Instant::now() + PATIENCE;
        while kill(Pid::from_raw(pid), None).is_ok() {
            ensure!(Instant::now() < deadline, "PostgreSQL does not end");
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// As it was started before.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        let command = std::fs::read_to_string(self.folder.join("data/postmaster.opts"))?;
        let command = format!("exec {}", command.trim());
        let mut start = if nix::unistd::geteuid().is_root() {
            let mut start = Command::new("runuser");
            start.args(["-u", "postgres", "--", "sh", "-c", &command]);
            start
        } else {
            let mut start = Command::new("sh");
            start.args(["-c", &command]);
            start
        };
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.folder.join("again.log"))?;
        // It outlives this handle: whoever started the first one ends it by its pid file.
        drop(
            start
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()?,
        );
        let deadline = Instant::now() + PATIENCE;
        while self.connect().await.is_err() {
            ensure!(Instant::now() < deadline, "PostgreSQL does not come up");
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// One more name for what OpenAI's kind of provider serves.
    pub(crate) async fn name_model(&self, alias: &str) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        let named = sqlx::query(
            "INSERT INTO model_aliases SELECT tier, $1, targets, 0 FROM model_aliases
             WHERE alias = 'gpt-4o-mini'",
        );
        named.bind(alias).execute(&mut connection).await?;
        Ok(())
    }

    pub(crate) async fn rows(&self) -> anyhow::Result<Vec<Row>> {
        let mut connection = self.connect().await?;
        let rows = sqlx::query_as("SELECT * FROM usage_records ORDER BY ordinal");
        Ok(rows.fetch_all(&mut connection).await?)
    }

    /// In all days, in hundred-millionths of a dollar.
    pub(crate) async fn spent(&self) -> anyhow::Result<i64> {
        let mut connection = self.connect().await?;
        let sum = sqlx::query_scalar(
            "SELECT CAST(coalesce(sum(microcents), 0) AS BIGINT) FROM spending WHERE length(period) = 10",
        );
        Ok(sum.fetch_one(&mut connection).await?)
    }
}
