//! Where a gateway runs: a process on this machine (local servers) or a container (the image).
//!
//! The gateway outlives the agent, whatever kills it, and the next agent adopts it. So a runtime
//! keeps what it must know about its gateway on disk, and never holds a pipe to it.

mod descendants;
mod docker;
mod identity;
mod log;
mod process;

use std::{io, path::PathBuf, time::Duration};

use async_trait::async_trait;
use tidepool_shared::{document::GatewayLimits, manifest::Release};

pub use self::{
    docker::{Bridge, DockerRuntime, EngineFailed, Run},
    log::{Log, Since},
    process::{Command, ProcessRuntime},
};
use crate::reload::RestartSignal;

/// How long a gateway gets to stop by itself. OpenClaw allows itself 325 s, and with an unreachable
/// channel it has been seen never to come to an end.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// Pid and start time of this very process.
pub(crate) fn own_identity() -> Option<(i32, u64)> {
    identity_of(std::process::id().try_into().ok()?)
}

/// Pid and start time of a process that runs now.
pub(crate) fn identity_of(pid: i32) -> Option<(i32, u64)> {
    identity::Identity::of(pid).map(identity::Identity::parts)
}

/// Something that runs one gateway. Every call is idempotent and bounded in time.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Makes what nginx and the gateway stand on, such as the address at which a container finds its
    /// models.
    async fn prepare(&self) -> Result<(), StartFailed> {
        Ok(())
    }

    /// Takes away what [`Self::prepare`] made, once the gateway has stopped.
    async fn clear(&self) -> Result<(), SignalFailed> {
        Ok(())
    }

    /// Fetches what a start needs, while a gateway of another version runs.
    async fn make_ready(&self) -> Result<(), StartFailed>;

    /// Takes back what [`Self::make_ready`] did for a version that nobody needs any more.
    async fn discard(&self, release: &Release) -> Result<(), EngineFailed>;

    /// Starts the gateway, or adopts the one that is running already.
    async fn start(&self) -> Result<Started, StartFailed>;

    /// What is known of the gateway now.
    async fn state(&self) -> State;

    /// Sends the restart signal to the gateway's own process. The caller has made sure that the
    /// gateway has started: a signal during boot kills it.
    async fn restart_by(&self, signal: RestartSignal) -> Result<(), SignalFailed>;

    /// Asks the gateway to stop, and ends it and all that it started after `grace`.
    async fn stop(&self, grace: Duration) -> Result<Stopped, SignalFailed>;

    /// What the gateway printed.
    fn log(&self) -> &Log;

    /// Keeps the gateway, the one that runs and any that is started, to these limits.
    async fn limit(&self, limits: GatewayLimits) -> Result<(), NotLimited>;

    /// What the gateway takes now; `None` when it does not run, or nobody tells.
    async fn taken(&self) -> Option<Taken>;
}

/// What a gateway takes of the machine, with all that it has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// So far.
    pub cpu: Duration,
    /// Without what the kernel caches of files.
    pub memory_bytes: u64,
    /// The most that it may have.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u32,
    /// Its processes, as far as they are in the agent's own namespace.
    pub processes: Vec<i32>,
}

/// How a gateway came to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// It was started now.
    Fresh,
    /// It ran already, started by an earlier agent or call.
    Adopted,
}

/// Whether a gateway runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    /// Not running. A process's exit code is known only to the agent that started it.
    Stopped {
        exit_code: Option<i32>,
    },
}

/// How a gateway came to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It did not run.
    Already,
    /// By itself, within the grace.
    ByItself,
    /// It had to be killed.
    Killed,
}

/// Why a gateway was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartFailed {
    #[error("the manifest names no program for the gateway")]
    NoProgram,
    #[error("the gateway's program is not there: `{0}`")]
    Missing(PathBuf),
    #[error("the gateway's image is not with Docker, and its archive holds another one: `{0}`")]
    NoImage(String),
    #[error("read the archive of the gateway's image")]
    Archive(#[source] io::Error),
    #[error("prepare the gateway's folders")]
    Prepare(#[source] io::Error),
    #[error("open the gateway's log")]
    OpenLog(#[source] io::Error),
    #[error("start the gateway's program")]
    Spawn(#[source] io::Error),
    #[error("end what an earlier gateway has left running")]
    EndLeftOvers(#[source] SignalFailed),
    #[error("record the gateway's process")]
    Record(#[source] io::Error),
    #[error("start the gateway's container")]
    Container(#[source] EngineFailed),
    #[error("the gateway's container ended at once, exit code {exit_code:?}")]
    EndedAtOnce { exit_code: Option<i32> },
}

/// Why a gateway is not kept to its limits.
#[derive(Debug, thiserror::Error)]
pub enum NotLimited {
    #[error(
        "it takes {taken_mib} MiB of memory and may have {limit_mib}: it will from its next start on"
    )]
    TakesMore { taken_mib: u64, limit_mib: u64 },
    #[error("change the limits of the gateway's container")]
    Container(#[source] EngineFailed),
}

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SignalFailed {
    #[error("the gateway does not run")]
    NotRunning,
    #[error("signal the gateway's process")]
    Send(#[source] io::Error),
    #[error("the gateway's process is still there after SIGKILL")]
    Survived,
    #[error("end the gateway's container")]
    Container(#[source] EngineFailed),
}
