//! Making a new configuration true on a running gateway by the least that works.
//!
//! Write the file and let the gateway take it over while serving (*hot*); if the key needs it, or the
//! gateway does not react, restart it by signal; if it does not come back, kill it and start it
//! again. Each step has a deadline of ours, because OpenClaw's own (325 s) do not always end.
//!
//! Proof is the gateway's own word: its log line, or the copy `openclaw.json.last-good` that it makes
//! of each file it has accepted. A configuration that it refuses is taken back from the file, since
//! an invalid file does no harm to a running gateway and is fatal to one that restarts.
//!
//! Every step can be cut off by a crash. The last good bytes and the intent are on disk before the
//! file is touched, so that a repeated [`Reloader::apply`] ends where the first would have.

mod proof;
mod records;
mod restart;
mod table;

use std::{io, path::PathBuf, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

pub(crate) use self::table::signal_number;
use self::{
    proof::{Proof, Watch},
    records::Records,
    restart::{comes_up, has_gone_through_restart},
};
pub use self::{
    records::Intent,
    restart::restart_by_signal,
    table::{RestartSignal, Table, UnknownVersion, Way},
};
use crate::{
    gateway::{Gateway, Startup},
    openclaw::{self, Checker, Place, Unchecked, Violations, three_way},
    runtime::{Runtime, STOP_GRACE, SignalFailed, StartFailed, State},
};

/// Between two looks at the gateway.
const POLL: Duration = Duration::from_millis(50);

/// Our deadlines; tests against the stub shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For the gateway's word on a new file. Its own settle time is 0.6 s, the slowest was 3.3 s.
    pub word: Duration,
    /// For the listener to close after a restart signal; runs in progress are waited for.
    pub close: Duration,
    /// From the closed listener, or a start, to the gateway taking traffic.
    pub start: Duration,
    /// From SIGTERM to SIGKILL.
    pub stop: Duration,
    /// For the start of another version, which changes the state that it finds.
    pub trial: Duration,
    /// For which another version must stay up.
    pub steady: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            word: Duration::from_secs(5),
            close: Duration::from_mins(1),
            start: Duration::from_secs(45),
            stop: STOP_GRACE,
            trial: Duration::from_mins(5),
            steady: Duration::from_secs(5),
        }
    }
}

/// Applies configurations to one gateway. One call at a time: the converge loop owns it.
#[derive(Debug)]
pub struct Reloader {
    place: Place,
    table: Table,
    checker: Checker,
    records: Records,
    deadlines: Deadlines,
}

/// How a configuration came to be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It was true already.
    Unchanged,
    Hot,
    /// The gateway restarted, by itself or by our signal.
    Restarted,
    /// The process had to be ended and started again.
    StartedAgain,
}

/// What became of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Applied {
        how: How,
        took: Duration,
    },
    /// The one before is in force again.
    RolledBack {
        reason: String,
    },
}

/// Why a configuration could not even be tried. The gateway is as it was, or is worked on again by
/// the next call.
#[derive(Debug, thiserror::Error)]
pub enum ApplyFailed {
    #[error("read the gateway's configuration")]
    Read(#[source] io::Error),
    #[error("check the configuration")]
    Check(#[source] Unchecked),
    #[error("write `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("start the gateway")]
    Start(#[source] StartFailed),
    #[error("stop the gateway")]
    Stop(#[source] SignalFailed),
    #[error("the gateway does not come up, not even with the configuration before")]
    Down,
}

impl Reloader {
    /// A reloader for the gateway at `place`.
    pub fn new(place: Place, table: Table, checker: impl Into<Checker>) -> Self {
        Self {
            records: Records::new(&place),
            place,
            table,
            checker: checker.into(),
            deadlines: Deadlines::default(),
        }
    }

    /// The same with other deadlines.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// Writes the configuration that a stopped gateway will start with, unless it has one already.
    /// Call before [`Runtime::start`]; an existing file is the business of [`Self::apply`].
    pub fn lay_down(&self, wanted: &Value) -> Result<(), ApplyFailed> {
        let path = self.place.config_path();
        if openclaw::read(&path).map_err(ApplyFailed::Read)?.is_some() {
            return Ok(());
        }
        let bytes = encode(wanted);
        openclaw::file::create_state_dir(&self.place)
            .and_then(|()| self.records.prepare())
            .and_then(|()| openclaw::file::write(&self.place, &path, &bytes))
            .and_then(|()| self.records.commit(wanted, &bytes))
            .map_err(|source| ApplyFailed::Write { path, source })
    }

    /// Puts the last good file in the place of one whose try was cut off, for a gateway that does not run.
    pub fn take_back(&self) -> Result<(), ApplyFailed> {
        if self.records.intent().is_none() {
            return Ok(());
        }
        if let Some(good) = self.records.last_good() {
            self.write(&good)?;
        }
        self.records
            .forget_intent()
            .map_err(|source| self.failed_write(source))
    }

    /// Makes `wanted` true. The gateway should have started; if it has not, it is started.
    pub async fn apply(
        &self,
        runtime: &dyn Runtime,
        gateway: &Gateway,
        wanted: &Value,
    ) -> Result<Outcome, ApplyFailed> {
        let begin = Instant::now();
        let on_disk = openclaw::read(&self.place.config_path()).map_err(ApplyFailed::Read)?;
        let applied = self.records.applied().unwrap_or(Value::Null);
        let merged = match &on_disk {
            Some(disk) if !applied.is_null() => three_way(&applied, disk, wanted),
            Some(_) | None => wanted.clone(),
        };
        let checked = self.checker.check(&merged).await;
        if let Err(violations) = checked.map_err(ApplyFailed::Check)? {
            return self.refuse(runtime, gateway, &violations).await;
        }
        // After a cut-off try the file alone proves nothing: the gateway may have refused it.
        let settled = self.records.intent().is_none()
            || proof::was_accepted_last(&self.place, &encode(&merged));
        if on_disk.as_ref() == Some(&merged) && settled {
            self.ensure_up(runtime, gateway).await?;
            self.commit(wanted, &encode(&merged))?;
            return Ok(Outcome::Applied {
                how: How::Unchanged,
                took: begin.elapsed(),
            });
        }
        let before = on_disk.unwrap_or_else(|| applied.clone());
        let tried = self.try_out(runtime, gateway, &before, &merged).await?;
        match tried {
            Tried::Taken(how) => {
                self.commit(wanted, &encode(&merged))?;
                Ok(Outcome::Applied {
                    how,
                    took: begin.elapsed(),
                })
            }
            Tried::Refused(reason) => {
                self.roll_back(runtime, gateway).await?;
                Ok(Outcome::RolledBack { reason })
            }
        }
    }

    /// Nothing is written, unless an earlier try was cut off and its file still lies there.
    async fn refuse(
        &self,
        runtime: &dyn Runtime,
        gateway: &Gateway,
        violations: &Violations,
    ) -> Result<Outcome, ApplyFailed> {
        if self.records.intent().is_some() {
            self.roll_back(runtime, gateway).await?;
        }
        Ok(Outcome::RolledBack {
            reason: violations.to_string(),
        })
    }

    /// Writes the file and takes the gateway through the ways until one works.
    async fn try_out(
        &self,
        runtime: &dyn Runtime,
        gateway: &Gateway,
        before: &Value,
        after: &Value,
    ) -> Result<Tried, ApplyFailed> {
        let bytes = encode(after);
        self.intend(&bytes)?;
        let was_started =
            runtime.state().await == State::Running && gateway.startup().await == Startup::Started;
        let mut watch = Watch::begin(&self.place, runtime.log(), &bytes);
        self.write(&bytes)?;
        let way = self.table.way(before, after);
        if !was_started || way == Way::StartAgain {
            return self.start_again(runtime, gateway).await;
        }
        match watch.word(self.deadlines.word).await {
            Proof::Applied => Ok(Tried::Taken(How::Hot)),
            Proof::Refused(reason) => Ok(Tried::Refused(reason)),
            Proof::Restarting => self.await_restart(runtime, gateway, watch).await,
            Proof::None => self.signal(runtime, gateway, watch).await,
        }
    }

    /// The gateway said nothing: one signal, the right one, and only because it has started. It happens
    /// for good: two writes within its settle time, such as one of its own and ours, can leave it
    /// (2026.9.6) without a watcher on the file.
    async fn signal(
        &self,
        runtime: &dyn Runtime,
        gateway: &Gateway,
        watch: Watch<'_>,
    ) -> Result<Tried, ApplyFailed> {
        if gateway.startup().await != Startup::Started {
            return self.start_again(runtime, gateway).await;
        }
        tracing::warn!("the gateway did not react to its new configuration and is restarted");
        match runtime.restart_by(self.table.restart_signal()).await {
            Ok(()) => self.await_restart(runtime, gateway, watch).await,
            Err(_gone) => self.start_again(runtime, gateway).await,
        }
    }

    /// Waits for a restart in progress.
    async fn await_restart(
        &self,
        runtime: &dyn Runtime,
        gateway: &Gateway,
        mut watch: Watch<'_>,
    ) -> Result<Tried, ApplyFailed> {
        let said_ready = || watch.has_restarted();
        if has_gone_through_restart(runtime, gateway, said_ready, self.deadlines).await {
            Ok(Tried::Taken(How::Restarted))
        } else {
            self.start_again(runtime, gateway).await
        }
    }

    /// Ends the process, whatever it does, and starts it with the file as it is.
    async fn start_again(
        &self,
        runtime: &dyn Runtime,
        gateway: &Gateway,
    ) -> Result<Tried, ApplyFailed> {
        runtime
            .stop(self.deadlines.stop)
            .await
            .map_err(ApplyFailed::Stop)?;
        runtime.start().await.map_err(ApplyFailed::Start)?;
        if comes_up(runtime, gateway, self.deadlines.start).await {
            return Ok(Tried::Taken(How::StartedAgain));
        }
        // Its last words are in its log, and stay there: they may hold a secret of this very configuration.
        let reason = "the gateway does not start with it; its log says why";
        Ok(Tried::Refused(reason.to_owned()))
    }

    async fn ensure_up(&self, runtime: &dyn Runtime, gateway: &Gateway) -> Result<(), ApplyFailed> {
        runtime.start().await.map_err(ApplyFailed::Start)?;
        if comes_up(runtime, gateway, self.deadlines.start).await {
            return Ok(());
        }
        match self.start_again(runtime, gateway).await? {
            Tried::Taken(_) => Ok(()),
            Tried::Refused(_) => Err(ApplyFailed::Down),
        }
    }

    /// Puts the last good file back, and the gateway with it if it went down.
    async fn roll_back(&self, runtime: &dyn Runtime, gateway: &Gateway) -> Result<(), ApplyFailed> {
        let Some(good) = self.records.last_good() else {
            return Err(ApplyFailed::Down);
        };
        self.write(&good)?;
        if gateway.startup().await != Startup::Started {
            match self.start_again(runtime, gateway).await? {
                Tried::Taken(_) => {}
                Tried::Refused(_) => return Err(ApplyFailed::Down),
            }
        }
        self.records
            .forget_intent()
            .map_err(|source| self.failed_write(source))
    }

    fn write(&self, bytes: &[u8]) -> Result<(), ApplyFailed> {
        openclaw::file::write(&self.place, &self.place.config_path(), bytes)
            .map_err(|source| self.failed_write(source))
    }

    fn intend(&self, bytes: &[u8]) -> Result<(), ApplyFailed> {
        self.records
            .intend(&self.place.config_path(), bytes)
            .map_err(|source| self.failed_write(source))
    }

    fn commit(&self, wanted: &Value, bytes: &[u8]) -> Result<(), ApplyFailed> {
        self.records
            .commit(wanted, bytes)
            .map_err(|source| self.failed_write(source))
    }

    fn failed_write(&self, source: io::Error) -> ApplyFailed {
        ApplyFailed::Write {
            path: self.place.config_path(),
            source,
        }
    }
}

/// What became of a try.
enum Tried {
    Taken(How),
    Refused(String),
}

/// A configuration as it is written: as OpenClaw would write it.
fn encode(config: &Value) -> Vec<u8> {
    let mut text = format!("{config:#}");
    text.push('\n');
    text.into_bytes()
}
