//! A Redis of a test's own, which it may kill, let hang or empty.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use redis::AsyncConnectionConfig;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// It keeps nothing on disk, so each start is of an empty one.
#[derive(Debug)]
pub struct Redis {
    folder: TempDir,
    port: u16,
    /// Lines that say who may do what.
    acl: Option<PathBuf>,
    process: Mutex<Option<Child>>,
}

impl Redis {
    /// Starts one on this port.
    pub async fn start(port: u16, acl: Option<PathBuf>) -> anyhow::Result<Self> {
        let redis = Self {
            folder: TempDir::with_prefix("tidepool-redis-")?,
            port,
            acl,
            process: Mutex::default(),
        };
        redis.start_again().await?;
        Ok(redis)
    }

    /// With the user that may do everything.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/1", self.port)
    }

    pub fn kill(&self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process().take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// As one that has lost everything.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        self.kill()?;
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .current_dir(self.folder.path())
            .stdout(Stdio::null());
        if let Some(acl) = &self.acl {
            command.arg("--aclfile").arg(acl);
        }
        let process = command.spawn().context("start redis-server")?;
        *self.process() = Some(process);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            ensure!(Instant::now() < deadline, "Redis does not come up");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub fn hang(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub fn go_on(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Everything in it is gone.
    pub async fn flush(&self) -> anyhow::Result<()> {
        let mut flush = redis::cmd("FLUSHALL");
        self.ask(flush.arg("SYNC")).await
    }

    /// Asks it something, as the user that may do everything.
    pub async fn ask<T: redis::FromRedisValue>(&self, what: &redis::Cmd) -> anyhow::Result<T> {
        let client = redis::Client::open(self.url())?;
        let patience = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let connecting = client.get_multiplexed_async_connection_with_config(&patience);
        let mut connection = connecting.await?;
        Ok(what.query_async(&mut connection).await?)
    }

    /// The value of a key.
    pub async fn get(&self, key: &str) -> anyhow::Result<Option<String>> {
        let mut get = redis::cmd("GET");
        self.ask(get.arg(key)).await
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.process().as_ref().map(Child::id);
        let pid = Pid::from_raw(i32::try_from(id.context("Redis runs")?)?);
        Ok(kill(pid, signal)?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // A stopped one is killed all the same.
        drop(self.kill());
    }
}
