//! The gateway in a container: what the image's servers use.
//!
//! A container is made for one run of the gateway and removed with its end, so that there is one way to
//! start, and nothing is left of a server that is deleted. What must outlive it is not in it: the state
//! directory and the log. In between Docker starts it again when it crashes and when the machine boots,
//! agent or no agent.
//!
//! Ours is what bears our server's label, whatever it is called; a container without it is never
//! touched. One that runs from the manifest's image is adopted. One from another image is ended, because
//! the manifest's version decides which signals a gateway survives.

mod bridge;
mod engine;
mod first;
mod run;

use std::{
    fs, io,
    os::unix::fs::fchown,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rustix::process::Signal;
use tidepool_shared::{document::GatewayLimits, manifest::Release};
use tokio::{fs::File, time::timeout};

pub use self::{bridge::Bridge, engine::EngineFailed, run::Run};
use self::{
    engine::{Engine, Life, Seen},
    first::Record,
};
use super::{
    Log, NotLimited, Runtime, STOP_GRACE, SignalFailed, StartFailed, Started, State, Stopped, Taken,
};
use crate::{
    disk, openclaw,
    reload::{RestartSignal, signal_number},
};

/// How long Docker gets to tell of the end of a process that was killed.
const KILL_WAIT: Duration = Duration::from_secs(15);

/// A gateway in a container.
#[derive(Debug)]
pub struct DockerRuntime {
    run: Run,
    engine: Engine,
    log: Log,
    limits: Mutex<Limits>,
}

/// What the gateway's container is kept to.
#[derive(Debug, Default)]
struct Limits {
    wanted: GatewayLimits,
    /// Which container was given which.
    given: Option<(String, GatewayLimits)>,
}

/// What Docker has of the gateway.
enum Found {
    Running(Record),
    /// Nothing, or what has ended.
    Ended {
        exit_code: Option<i32>,
    },
}

impl DockerRuntime {
    /// A runtime for this container; nothing is made, and Docker not asked, yet.
    pub fn new(run: Run) -> Self {
        Self {
            engine: Engine::at(run.manifest.socket.clone()),
            log: Log::new(run.place.log_path()),
            limits: Mutex::default(),
            run,
        }
    }

    /// The process on record, when it still runs and is in its container: the common case, in which Docker
    /// need not be asked and may be away.
    fn recorded(&self) -> Option<Record> {
        let bytes = fs::read(self.run.place.process_record()).ok()?;
        let record: Record = serde_json::from_slice(&bytes).ok()?;
        (record.image == self.run.image() && record.is_of_the_container()).then_some(record)
    }

    /// This container, if it is the gateway that should run.
    fn as_gateway(&self, seen: &Seen) -> Option<Record> {
        let Life::Running(pid) = seen.life else {
            return None;
        };
        let is_ours = seen.image.as_deref() == Some(self.run.image());
        is_ours.then(|| Record::of(&seen.id, self.run.image(), pid))?
    }

    async fn seen(&self) -> Result<Vec<Seen>, EngineFailed> {
        self.engine.containers(&self.run.server).await
    }

    fn record(&self, record: &Record) -> io::Result<()> {
        disk::write_json(&self.run.place.process_record(), record)
    }

    /// The gateway that runs, also one that Docker has started again since it was recorded.
    async fn find(&self) -> Result<Found, EngineFailed> {
        if let Some(record) = self.recorded() {
            return Ok(Found::Running(record));
        }
        let seen = self.seen().await?;
        if let Some(record) = seen.iter().find_map(|seen| self.as_gateway(seen)) {
            if let Err(error) = self.record(&record) {
                // It is found the same way the next time.
                tracing::warn!(%error, "the gateway's process not recorded");
            }
            return Ok(Found::Running(record));
        }
        let exit_code = seen.iter().find_map(|seen| match seen.life {
            Life::Ended { exit_code } => exit_code,
            Life::Running(_) => None,
        });
        Ok(Found::Ended { exit_code })
    }

    fn prepare_folders(&self) -> io::Result<()> {
        let place = &self.run.place;
        openclaw::file::create_state_dir(place)?;
        tidepool_certs::secret_file::create_dir(&place.records)?;
        let log = self.log.open()?;
        let owner = Run::owner();
        fchown(log, Some(owner.user), Some(owner.group))
    }

    fn with_limits<T>(&self, act: impl FnOnce(&mut Limits) -> T) -> T {
        act(&mut self.limits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn launch(&self) -> Result<Record, StartFailed> {
        let limits = self.with_limits(|known| known.wanted);
        let id = self
            .engine
            .create(&self.run, self.run.ceilings(limits))
            .await
            .map_err(StartFailed::Container)?;
        self.with_limits(|known| known.given = Some((id.clone(), limits)));
        let launched = self.begin(&id).await;
        if launched.is_err()
            && let Err(error) = self.engine.remove(&id).await
        {
            // The next start finds it by its label and removes it.
            tracing::warn!(error = %error, "a container that did not start was not removed");
        }
        launched
    }

    async fn begin(&self, id: &str) -> Result<Record, StartFailed> {
        self.engine
            .start(id)
            .await
            .map_err(StartFailed::Container)?;
        let seen = self.seen().await.map_err(StartFailed::Container)?;
        let life = seen.iter().find(|seen| seen.id == id).map(|seen| seen.life);
        let record = match life {
            Some(Life::Running(pid)) => Record::of(id, self.run.image(), pid),
            Some(Life::Ended { .. }) | None => None,
        };
        let record = record.ok_or(StartFailed::EndedAtOnce {
            exit_code: match life {
                Some(Life::Ended { exit_code }) => exit_code,
                Some(Life::Running(_)) | None => None,
            },
        })?;
        self.record(&record).map_err(StartFailed::Record)?;
        Ok(record)
    }

    /// Ends a container and removes it.
    async fn end(&self, seen: &Seen, grace: Duration) -> Result<Stopped, SignalFailed> {
        let stopped = match seen.life {
            Life::Running(pid) => self.stop_running(seen, pid, grace).await?,
            Life::Ended { .. } => Stopped::Already,
        };
        self.engine
            .remove(&seen.id)
            .await
            .map_err(SignalFailed::Container)?;
        Ok(stopped)
    }

    async fn stop_running(
        &self,
        seen: &Seen,
        pid: i32,
        grace: Duration,
    ) -> Result<Stopped, SignalFailed> {
        let stop = self.engine.stop(&seen.id, grace + KILL_WAIT);
        tokio::pin!(stop);
        if let Ok(ended) = timeout(grace, &mut stop).await {
            ended.map_err(SignalFailed::Container)?;
            return Ok(Stopped::ByItself);
        }
        let image = seen.image.as_deref().unwrap_or_default();
        if let Some(first) = Record::of(&seen.id, image, pid) {
            // The first process takes all others of its namespace along.
            first
                .process
                .signal(Signal::KILL)
                .map_err(SignalFailed::Send)?;
        }
        timeout(KILL_WAIT, stop)
            .await
            .map_err(|_| SignalFailed::Survived)?
            .map_err(SignalFailed::Container)?;
        Ok(Stopped::Killed)
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    async fn prepare(&self) -> Result<(), StartFailed> {
        let request = self.run.bridge().request(self.run.labels());
        self.engine
            .ensure_network(&self.run.server, request)
            .await
            .map_err(StartFailed::Container)
    }

    async fn clear(&self) -> Result<(), SignalFailed> {
        self.engine
            .remove_networks(&self.run.server)
            .await
            .map_err(SignalFailed::Container)
    }

    async fn make_ready(&self) -> Result<(), StartFailed> {
        let failed = StartFailed::Container;
        let image = self.run.image();
        if self.engine.has_image(image).await.map_err(failed)? {
            return Ok(());
        }
        let absent = || StartFailed::NoImage(image.to_owned());
        let archive = self.run.archive.as_ref().ok_or_else(absent)?;
        let file = File::open(archive).await.map_err(StartFailed::Archive)?;
        self.engine.load(file).await.map_err(failed)?;
        // Loaded or not is what Docker says now: an archive may hold anything.
        if self.engine.has_image(image).await.map_err(failed)? {
            Ok(())
        } else {
            Err(absent())
        }
    }

    async fn discard(&self, release: &Release) -> Result<(), EngineFailed> {
        match &release.container {
            Some(image) => self.engine.remove_image(image.as_str()).await,
            None => Ok(()),
        }
    }

    async fn start(&self) -> Result<Started, StartFailed> {
        if let Found::Running(_) = self.find().await.map_err(StartFailed::Container)? {
            return Ok(Started::Adopted);
        }
        for left in self.seen().await.map_err(StartFailed::Container)? {
            self.end(&left, STOP_GRACE)
                .await
                .map_err(StartFailed::EndLeftOvers)?;
        }
        self.prepare().await?;
        self.prepare_folders().map_err(StartFailed::Prepare)?;
        self.launch().await?;
        Ok(Started::Fresh)
    }

    async fn state(&self) -> State {
        match self.find().await {
            Ok(Found::Running(_)) => State::Running,
            Ok(Found::Ended { exit_code }) => State::Stopped { exit_code },
            Err(error) => {
                // Who then starts it is told the same, and says so.
                tracing::debug!(%error, "Docker does not tell whether the gateway runs");
                State::Stopped { exit_code: None }
            }
        }
    }

    async fn restart_by(&self, signal: RestartSignal) -> Result<(), SignalFailed> {
        let Found::Running(record) = self.find().await.map_err(SignalFailed::Container)? else {
            return Err(SignalFailed::NotRunning);
        };
        match record.process.signal(signal_number(signal)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SignalFailed::NotRunning),
            Err(error) => Err(SignalFailed::Send(error)),
        }
    }

    async fn stop(&self, grace: Duration) -> Result<Stopped, SignalFailed> {
        let mut outcome = Stopped::Already;
        for seen in self.seen().await.map_err(SignalFailed::Container)? {
            let stopped = self.end(&seen, grace).await?;
            if outcome == Stopped::Already {
                outcome = stopped;
            }
        }
        Ok(outcome)
    }

    fn log(&self) -> &Log {
        &self.log
    }

    async fn limit(&self, limits: GatewayLimits) -> Result<(), NotLimited> {
        self.with_limits(|known| known.wanted = limits);
        // Without one the next start makes it so.
        let Some(record) = self.recorded() else {
            return Ok(());
        };
        let given = Some((record.container.clone(), limits));
        if self.with_limits(|known| known.given == given) {
            return Ok(());
        }
        let ceilings = self.run.ceilings(limits);
        let taken = self.engine.taken(&record.container).await;
        let taken = taken.map_err(NotLimited::Container)?;
        // The kernel would take back what it can, and kill for the rest.
        if let Some(taken) = taken
            && taken.memory_bytes >> 20 >= ceilings.memory_mib
        {
            return Err(NotLimited::TakesMore {
                taken_mib: taken.memory_bytes >> 20,
                limit_mib: ceilings.memory_mib,
            });
        }
        self.engine
            .update(&record.container, ceilings)
            .await
            .map_err(NotLimited::Container)?;
        self.with_limits(|known| known.given = given);
        Ok(())
    }

    async fn taken(&self) -> Option<Taken> {
        let record = self.recorded()?;
        match self.engine.taken(&record.container).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::debug!(%error, "Docker does not tell what the gateway takes");
                None
            }
        }
    }
}
