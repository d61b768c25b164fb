//! The real `tidepool-proxy`, with limits, a budget and three providers, which it may be killed with.

use std::{fs::File, net::TcpListener, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tempfile::TempDir;
use tidepool_certs::sealed::MasterKeys;
use tidepool_tests::{evidence, fake_provider::FakeProvider, programs};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{PATIENCE, load::MODELS, postgres::Postgres, redis::Redis};

const PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct Proxy {
    folder: TempDir,
    port: u16,
    postgres: String,
    redis: String,
    child: Child,
}

impl Proxy {
    pub(crate) async fn start(
        postgres: &Postgres,
        redis: &Redis,
        fake: &FakeProvider,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("tidepool-").tempdir()?;
        let keys = MasterKeys::read_or_create(&folder.path().join("master.keys"))?;
        lay_out(postgres, &keys, fake).await?;
        // It comes back to the same port after it was killed.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (postgres, redis) = (postgres.url().to_owned(), redis.url());
        let child = run(folder.path(), port, &postgres, &redis)?;
        let proxy = Self {
            folder,
            port,
            postgres,
            redis,
            child,
        };
        proxy.is_up().await?;
        Ok(proxy)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        self.child = run(self.folder.path(), self.port, &self.postgres, &self.redis)?;
        self.is_up().await
    }

    pub(crate) fn read_again(&self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id().context("it runs")?)?;
        Ok(kill(Pid::from_raw(pid), Signal::SIGUSR1)?)
    }

    /// In order: it writes what waits.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let pid = self.child.id().context("it runs")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        let status = timeout(PATIENCE, self.child.wait()).await??;
        ensure!(status.success(), "the proxy ended with {status}");
        Ok(())
    }

    async fn is_up(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let path = format!("{}/v1/models", self.url());
        loop {
            let answer = client.get(&path).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the proxy does not come up");
            sleep(PAUSE).await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.start_kill());
        evidence::collect(self.folder.path(), &format!("storm-{}", self.port));
    }
}

fn run(folder: &Path, port: u16, postgres: &str, redis: &str) -> anyhow::Result<Child> {
    let log = File::options()
        .append(true)
        .create(true)
        .open(folder.join("proxy.log"))?;
    Command::new(programs::program("tidepool-proxy")?)
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .args(["--database", postgres, "--redis", redis])
        .arg("--journal")
        .arg(folder.join("journal"))
        .arg("--master-keys")
        .arg(folder.join("master.keys"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("start the proxy")
}

async fn lay_out(
    postgres: &Postgres,
    keys: &MasterKeys,
    fake: &FakeProvider,
) -> anyhow::Result<()> {
    let mut connection = postgres.connect().await?;
    sqlx::raw_sql(
        "INSERT INTO instances (id, name, tier, status, health, reasons, url, hosts, generation, observed,
             restarts, config, edge_proof, warm, timings, created_at)
         VALUES ('inst_00000000000000000000000002', 'a', 'basic', 'running', 'healthy', '[]', '', '[]', 1, 1,
             0, '{}', '', true, '{}', 0);
         INSERT INTO servers (id, name, tier, state, health, reasons, created_at, state_since)
         VALUES ('srv_00000000000000000000000001', 's', 'basic', 'claimed', 'healthy', '[]', 0, 0);
         INSERT INTO trust VALUES
             ('127.0.0.1', 'srv_00000000000000000000000001', 'inst_00000000000000000000000002');
         INSERT INTO model_limits VALUES
             ('tier/basic', 1000000, 1000000000, 100000000000, 1000000000000, 0);",
    )
    .execute(&mut connection)
    .await?;
    for (kind, model) in MODELS {
        sqlx::query("INSERT INTO providers VALUES ($1, $1, $2, $3, 0, 0)")
            .bind(kind)
            .bind(fake.url())
            .bind(keys.seal(fake.key(), &format!("provider/{kind}")))
            .execute(&mut connection)
            .await?;
        let targets = json!([{"provider": kind, "model": model, "weight": 1}]);
        sqlx::query("INSERT INTO model_aliases VALUES ('basic', $1, $2, 0)")
            .bind(model)
            .bind(targets.to_string())
            .execute(&mut connection)
            .await?;
    }
    Ok(())
}
