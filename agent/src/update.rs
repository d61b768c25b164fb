//! The agent replaces itself: what the coordinator wants, held against the image's release keys, fetched,
//! tried for a word, and handed to the next start ([`crate::slots`]).
//!
//! Everything that can be found out before the switch is found out before it: who signed it, what it is, that
//! it is no step back, that every byte is there, and that the program runs and is the version it says. A
//! refusal changes nothing. The rest is the trial's: the new agent is kept once a coordinator has told it that it
//! is wanted (so the next update can reach it as well, and nobody has halted this one) and the gateway is as well
//! as it was.

use std::{io, path::Path, process::Stdio, sync::Arc, time::Duration};

use tidepool_shared::{
    artefact::{Kind, ReleaseKeyId, Statement, Version},
    message::{AgentOutcome, Ending, Health, WantedAgent},
};
use tokio::{
    process::Command,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    artefact::{Depot, NotBelieved, NotFetched, believe},
    desk::View,
    link::error_chain,
    slots::{SlotError, Slots, Terms, Trial},
};

/// How long a new program may take to say its version.
const WORD_DEADLINE: Duration = Duration::from_secs(10);
/// Until it is looked again whether there is room for a wanted agent.
const ROOM_PAUSE: Duration = Duration::from_mins(10);
/// Of what it says.
const WORD_MAX: usize = 256;

/// Which agent this is.
#[derive(Debug, Clone)]
pub struct OwnRelease {
    /// What it calls itself.
    pub version: &'static str,
    /// What it has to prove, if it is on trial.
    pub trial: Option<Trial>,
}

/// Keeps the agent at the version that is wanted.
#[derive(Debug)]
pub struct Updater {
    pub slots: Slots,
    pub depot: Arc<Depot>,
    /// The image's.
    pub keys: Vec<ReleaseKeyId>,
    pub release: OwnRelease,
    pub wanted: watch::Receiver<Option<WantedAgent>>,
    pub view: watch::Receiver<View>,
    /// What became of it, for the link.
    pub outcome: watch::Sender<Option<AgentOutcome>>,
    /// Cancelled when another agent is to have this process.
    pub replaced: CancellationToken,
    /// One place: OpenClaw is not replaced while the agent is, nor the other way round.
    pub changes: Arc<Semaphore>,
    /// That place, while this agent is on trial.
    pub change: Option<OwnedSemaphorePermit>,
}

/// Why a wanted agent was not started.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    NotBelieved(#[from] NotBelieved),
    #[error("it is older than {0}, and does not say that it may replace that")]
    Older(Version),
    #[error("this agent's own version `{0}` is none, so nothing is known to be newer")]
    Nameless(&'static str),
    #[error(transparent)]
    NotFetched(#[from] NotFetched),
    #[error("it does not run")]
    DoesNotRun(#[source] io::Error),
    #[error("it does not say its version within {} s", WORD_DEADLINE.as_secs())]
    Mute,
    #[error("it says `{said}` and is signed as {signed}")]
    AnotherVersion { said: String, signed: Version },
    #[error(transparent)]
    Slots(#[from] SlotError),
}

/// What to do about a wanted agent.
enum Decision {
    /// It runs already.
    Kept,
    /// It was tried for this rollout.
    Failed(String),
    Fetch(Statement),
}

impl Updater {
    /// Until told to stop, or until another agent is to have the process.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => self.give_back(),
            () = self.work() => {}
        }
    }

    /// A power-off in the middle of a trial is not the new agent's fault.
    fn give_back(&self) {
        if self.release.trial.is_some()
            && let Err(error) = self.slots.postpone()
        {
            warn!(error = %error_chain(&error), "this agent's trial counts, although it was cut short");
        }
    }

    async fn work(&mut self) {
        match self.slots.failed() {
            Ok(None) => {}
            Ok(Some(failed)) => self.tell(failed.rollout, Ending::RolledBack, Some(failed.reason)),
            Err(error) => {
                error!(error = %error_chain(&error), "it is not known which agents failed");
            }
        }
        self.pass_trial().await;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let satisfied = match wanted {
                // An empty wish is one that was taken back.
                Some(wanted) if !wanted.signed.is_empty() => self.attend(&wanted).await,
                Some(_) | None => Attended::Done,
            };
            match satisfied {
                Attended::Staged => return self.replaced.cancel(),
                Attended::Changed => {}
                Attended::NoRoom => {
                    // Whatever comes first.
                    drop(timeout(ROOM_PAUSE, self.wanted.changed()).await);
                }
                Attended::Done => {
                    if self.wanted.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Waits until this agent has proved itself. If it does not, the process is ended from outside.
    async fn pass_trial(&mut self) {
        let Some(trial) = self.release.trial.clone() else {
            return;
        };
        info!(rollout = trial.rollout, "this agent is on trial");
        let is_wanted = |wanted: &Option<WantedAgent>| {
            wanted
                .as_ref()
                .is_some_and(|it| it.rollout == trial.rollout && !it.signed.is_empty())
        };
        if self.wanted.wait_for(is_wanted).await.is_err() {
            return;
        }
        let is_well = |view: &View| !trial.was_well || view.health == Health::Ok;
        if self.view.wait_for(is_well).await.is_err() {
            return;
        }
        match self.slots.keep() {
            Ok(()) => {
                self.release.trial = None;
                self.change = None;
                info!(version = self.release.version, "this agent is kept");
                self.tell(trial.rollout, Ending::Kept, None);
            }
            Err(error) => {
                error!(error = %error_chain(&error), "this agent cannot be kept");
                std::future::pending::<()>().await;
            }
        }
    }

    async fn attend(&mut self, wanted: &WantedAgent) -> Attended {
        let mut changes = self.wanted.clone();
        let attended = tokio::select! {
            attended = self.try_out(wanted) => attended,
            _ = changes.changed() => return Attended::Changed,
        };
        match attended {
            Ok(None) => Attended::Staged,
            Ok(Some((ending, reason))) => {
                self.tell(wanted.rollout, ending, reason);
                Attended::Done
            }
            Err(Refused::NotFetched(NotFetched::Stopping)) => Attended::Done,
            Err(refused) if is_full(&refused) => {
                // The customer's doing, and not the version's fault: nothing is told that would halt its rollout.
                let reason = error_chain(&refused);
                warn!(
                    rollout = wanted.rollout,
                    reason, "the wanted agent waits for room"
                );
                Attended::NoRoom
            }
            Err(refused) => {
                let reason = error_chain(&refused);
                error!(
                    rollout = wanted.rollout,
                    reason, "the wanted agent is refused"
                );
                self.tell(wanted.rollout, Ending::Refused, Some(reason));
                Attended::Done
            }
        }
    }

    /// `None` when it is to be started.
    async fn try_out(
        &self,
        wanted: &WantedAgent,
    ) -> Result<Option<(Ending, Option<String>)>, Refused> {
        let statement = match self.decide(wanted)? {
            Decision::Kept => return Ok(Some((Ending::Kept, None))),
            Decision::Failed(reason) => return Ok(Some((Ending::RolledBack, Some(reason)))),
            Decision::Fetch(statement) => statement,
        };
        info!(version = %statement.version, rollout = wanted.rollout, "another agent is wanted");
        let file = self.depot.fetch(&statement).await?;
        let program = self.slots.install(&file)?;
        says(&program, &statement.version).await?;
        // Its trial is about a gateway that is well.
        let Ok(change) = Arc::clone(&self.changes).acquire_owned().await else {
            return Err(NotFetched::Stopping.into());
        };
        let terms = Terms {
            rollout: wanted.rollout,
            trial_s: wanted.trial_s,
            was_well: self.view.borrow().health == Health::Ok,
        };
        self.slots.try_next(&statement, terms)?;
        // Nothing is begun any more until the other agent is here.
        change.forget();
        Ok(None)
    }

    fn decide(&self, wanted: &WantedAgent) -> Result<Decision, Refused> {
        let statement = believe(&wanted.signed, Kind::Agent, &self.keys)?;
        let own = self.release.version;
        let own: Version = own.parse().map_err(|_| Refused::Nameless(own))?;
        if statement.version == own {
            return Ok(Decision::Kept);
        }
        let failed = self
            .slots
            .failed()?
            .filter(|failed| failed.sha256 == statement.sha256 && failed.rollout >= wanted.rollout);
        if let Some(failed) = failed {
            return Ok(Decision::Failed(failed.reason));
        }
        if !statement.may_replace(&own) {
            return Err(Refused::Older(own));
        }
        Ok(Decision::Fetch(statement))
    }

    fn tell(&self, rollout: u64, ending: Ending, reason: Option<String>) {
        self.outcome.send_replace(Some(AgentOutcome {
            rollout,
            ending,
            reason,
        }));
    }
}

enum Attended {
    Done,
    /// It is tried again.
    NoRoom,
    /// Something else is wanted by now.
    Changed,
    Staged,
}

/// Whether there was no room for it.
fn is_full(refused: &Refused) -> bool {
    let causes = std::iter::successors(Some(refused as &dyn std::error::Error), |error| {
        error.source()
    });
    let full = |error: &(dyn std::error::Error + 'static)| {
        let io = error.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
            || matches!(error.downcast_ref(), Some(NotFetched::NoRoom { .. }))
    };
    // What is shown transparently is no cause of its own.
    matches!(refused, Refused::NotFetched(NotFetched::NoRoom { .. })) || causes.skip(1).any(full)
}

/// Whether a program runs here and is what it was signed as.
async fn says(program: &Path, signed: &Version) -> Result<(), Refused> {
    let asked = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(WORD_DEADLINE, asked)
        .await
        .map_err(|_| Refused::Mute)?
        .map_err(Refused::DoesNotRun)?;
    let said = String::from_utf8_lossy(output.stdout.get(..WORD_MAX).unwrap_or(&output.stdout));
    let said = said.trim();
    if said.split_whitespace().last() == Some(signed.to_string().as_str()) {
        return Ok(());
    }
    Err(Refused::AnotherVersion {
        said: said.to_owned(),
        signed: signed.clone(),
    })
}
