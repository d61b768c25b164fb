//! The LLM proxy's process: its own, so that the coordinator's death cuts no stream.
//!
//! One that an earlier coordinator left behind is ended first, in order: it holds the port, and it may
//! be of an older build. It is found by the lock file that it signed itself, since a coordinator can
//! die between starting a process and noting it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::sys::signal::Signal;
use tidepool_shared::database_url::{self, DatabaseUrl};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::process::ProcessMark;

/// The pause before a proxy that ended is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// How long it may take to drain.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// How to start the proxy.
#[derive(Debug)]
pub(super) struct ProxyProcess {
    pub(super) program: PathBuf,
    pub(super) port: u16,
    pub(super) database: DatabaseUrl,
    pub(super) log: File,
    /// The file that the running one holds locked and has signed.
    pub(super) lock: PathBuf,
    /// Where usage waits until the database has it.
    pub(super) journal: PathBuf,
    /// What opens providers' keys.
    pub(super) master_keys: PathBuf,
}

impl ProxyProcess {
    /// Keeps one running until cancelled.
    pub(super) async fn run(self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            // Each time: one that was still on its way to its lock when we first looked has it now.
            end_left_over(&self.lock).await;
            match self.start() {
                Ok(mut child) => {
                    tokio::select! {
                        () = cancel.cancelled() => return stop(&mut child).await,
                        status = child.wait() => tracing::warn!(?status, "the proxy ended, starting it again"),
                    }
                }
                Err(error) => tracing::error!(%error, "the proxy cannot be started"),
            }
            cancel.run_until_cancelled(sleep(RESTART_PAUSE)).await;
        }
    }

    fn start(&self) -> std::io::Result<Child> {
        Command::new(&self.program)
            .args(["--listen", &format!("{}:{}", super::LOOPBACK, self.port)])
            // Not an argument: those are shown to everybody on the machine, and it may hold a password.
            .env(database_url::VARIABLE, self.database.reveal())
            .arg("--lock")
            .arg(&self.lock)
            .arg("--journal")
            .arg(&self.journal)
            .arg("--master-keys")
            .arg(&self.master_keys)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log.try_clone()?)
            // Out of the terminal's process group: on Ctrl-C this process stops it, in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

async fn end_left_over(path: &Path) {
    let Some(mark) = ProcessMark::read(path) else {
        return;
    };
    let deadline = Instant::now() + STOP_DEADLINE;
    mark.signal(Signal::SIGTERM);
    while mark.is_alive() && Instant::now() < deadline {
        sleep(Duration::from_millis(20)).await;
    }
    mark.signal(Signal::SIGKILL);
}

async fn stop(child: &mut Child) {
    if let Some(mark) = child.id().and_then(ProcessMark::of) {
        mark.signal(Signal::SIGTERM);
    }
    if timeout(STOP_DEADLINE, child.wait()).await.is_err() {
        tracing::warn!("the proxy did not stop in time, killing it");
        if let Err(error) = child.kill().await {
            tracing::warn!(%error, "the proxy could not be killed");
        }
    }
}
