//! The real `tidepool-proxy`, on a database that the coordinator's own store has laid out.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tidepool_certs::sealed::MasterKeys;
use tidepool_coordinator::{ambient::Chance, store::sqlite::SqliteStore};
use tidepool_tests::{evidence, fake_provider::FakeProvider, programs};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{PATIENCE, client::Client, ledger::Row};

const INSTANCE: &str = "inst_00000000000000000000000002";
const SERVER: &str = "srv_00000000000000000000000001";

pub(crate) struct Proxy {
    /// Of its kept log.
    name: String,
    address: String,
    dir: TempDir,
    child: Child,
}

impl Proxy {
    /// It knows this machine for one server, and one provider.
    pub(crate) async fn start(client: &Client, fake: &FakeProvider) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidepool-").tempdir()?;
        let keys = MasterKeys::read_or_create(&dir.path().join("master.keys"))?;
        lay_out(&database(dir.path()), &keys, client, fake).await?;
        let log = std::fs::File::create(dir.path().join("proxy.log"))?;
        let child = Command::new(programs::program("tidepool-proxy")?)
            .args(["--listen", "127.0.0.1:0"])
            .arg("--database")
            .arg(format!("sqlite:{}", database(dir.path()).display()))
            .arg("--journal")
            .arg(dir.path().join("journal"))
            .arg("--master-keys")
            .arg(dir.path().join("master.keys"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start the proxy")?;
        let mut proxy = Self {
            name: format!("sdk-{}{}", client.script, client.provider),
            address: String::new(),
            dir,
            child,
        };
        proxy.address = proxy.listening().await?;
        Ok(proxy)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn listening(&mut self) -> anyhow::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read_to_string(self.dir.path().join("proxy.log"))?;
            let told = |line| {
                let line: Value = serde_json::from_str(line).ok()?;
                line.pointer("/fields/address")?.as_str().map(str::to_owned)
            };
            if let Some(address) = log.lines().find_map(told) {
                return Ok(address);
            }
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("the proxy did not come up: {log}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for so many rows; fails if there are more.
    pub(crate) async fn rows(&self, count: usize) -> anyhow::Result<Vec<Row>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut connection = open(&database(self.dir.path())).await?;
            let rows: Vec<Row> = sqlx::query_as("SELECT * FROM usage_records ORDER BY ordinal")
                .fetch_all(&mut connection)
                .await?;
            connection.close().await?;
            if rows.len() >= count {
                ensure!(rows.len() == count, "more than {count}: {rows:?}");
                return Ok(rows);
            }
            ensure!(Instant::now() < deadline, "fewer than {count}: {rows:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.start_kill());
        evidence::collect(self.dir.path(), &self.name);
    }
}

fn database(dir: &Path) -> PathBuf {
    dir.join("tidepool.db")
}

async fn open(database: &Path) -> sqlx::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(database)
        .busy_timeout(Duration::from_secs(5));
    SqliteConnection::connect_with(&options).await
}

async fn lay_out(
    database: &Path,
    keys: &MasterKeys,
    client: &Client,
    fake: &FakeProvider,
) -> anyhow::Result<()> {
    let chance = Arc::new(Chance::from_os());
    SqliteStore::open(database, chance).await?.close().await;
    let mut connection = open(database).await?;
    sqlx::raw_sql(
        "INSERT INTO instances (id, name, tier, status, health, reasons, url, hosts, generation, observed,
             restarts, config, edge_proof, warm, timings, created_at)
         VALUES ('inst_00000000000000000000000002', 'a', 'basic', 'running', 'healthy', '[]', '', '[]', 1, 1,
             0, '{}', '', 1, '{}', 0);
         INSERT INTO servers (id, name, tier, state, health, reasons, created_at, state_since)
         VALUES ('srv_00000000000000000000000001', 's', 'basic', 'claimed', 'healthy', '[]', 0, 0);",
    )
    .execute(&mut connection)
    .await?;
    sqlx::query("INSERT INTO trust VALUES ('127.0.0.1', ?, ?)")
        .bind(SERVER)
        .bind(INSTANCE)
        .execute(&mut connection)
        .await?;
    sqlx::query("INSERT INTO providers VALUES ('fake', ?, ?, ?, 0, 0)")
        .bind(client.kind)
        .bind(fake.url())
        .bind(keys.seal(fake.key(), "provider/fake"))
        .execute(&mut connection)
        .await?;
    let targets = json!([{"provider": "fake", "model": client.model, "weight": 1}]);
    sqlx::query("INSERT INTO model_aliases VALUES ('basic', ?, ?, 0)")
        .bind(client.model)
        .bind(targets.to_string())
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(())
}
