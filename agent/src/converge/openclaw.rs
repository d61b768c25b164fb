//! The real gateway, as the body loop wants it: OpenClaw, its runtime and its reload.

mod edition;
mod upgrade;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use async_trait::async_trait;
use tidepool_shared::{
    document::{DesiredDocument, GatewayLimits, OpenClawOrder},
    message::OpenClawState,
};
use tokio::task::spawn_blocking;

use self::edition::Edition;
pub use self::edition::{Maker, NoEdition};
use super::{
    body::{Configured, Gateway, Probe, Restarted, Standing},
    chain,
};
use crate::{
    desk::LogSource,
    gateway::{self, Startup},
    openclaw::{self, Checker, Place, Schema, Stage},
    release::{NoRelease, Shelf},
    reload::{Deadlines, Outcome, Reloader, restart_by_signal},
    runtime::{STOP_GRACE, StartFailed, State, Taken},
    upgrade::{self as upgrades, JournalFile, Saved, UnreadableJournal},
};

/// A reply with more lines is not asked for; the link bounds its bytes.
const MAX_LOG_LINES: u32 = 2_000;

/// OpenClaw on this server.
pub struct OpenClaw {
    place: Place,
    shelf: Shelf,
    maker: Maker,
    /// The version that runs, or is about to.
    edition: RwLock<Arc<Edition>>,
    journal: Mutex<JournalFile>,
    saved: Saved,
    gateway: gateway::Gateway,
    deadlines: Deadlines,
    checks: Checks,
}

/// Where configurations are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checks {
    Here,
    InChild,
}

/// Why it is not known which OpenClaw this server has.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    #[error(transparent)]
    Journal(#[from] UnreadableJournal),
    #[error("the manifest names no version")]
    NoVersion,
    #[error("find the version of OpenClaw that this server has")]
    Release(#[from] NoRelease),
    #[error(transparent)]
    Edition(#[from] NoEdition),
}

impl OpenClaw {
    /// The gateway at this place, of the version that the journal in `directory` names, or of the shelf's first.
    /// The directory is on the disk of the gateway's state.
    pub fn open(
        place: Place,
        shelf: Shelf,
        maker: Maker,
        directory: &Path,
    ) -> Result<Self, NotOpened> {
        let journal = JournalFile::open(directory)?;
        let release = match journal.read().in_charge() {
            Some(version) => shelf.find(version)?,
            None => shelf.first().cloned().ok_or(NotOpened::NoVersion)?,
        };
        let edition = Edition::of(&release, &maker)?;
        Ok(Self {
            gateway: gateway::Gateway::new(place.clone()),
            saved: Saved::of(place.state_dir(), directory.to_owned()),
            place,
            shelf,
            maker,
            edition: RwLock::new(Arc::new(edition)),
            journal: Mutex::new(journal),
            deadlines: Deadlines::default(),
            checks: Checks::Here,
        })
    }

    /// The same, with configurations checked by a child of this program, which must be the agent.
    #[must_use]
    pub fn checking_in_child(mut self) -> Self {
        self.checks = Checks::InChild;
        self
    }

    /// The same with other deadlines.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// Makes what nginx stands on.
    pub async fn prepare(&self) -> Result<(), StartFailed> {
        self.edition().runtime.prepare().await
    }

    /// Ends the gateway, as at power-off: nothing of it is left but its files.
    pub async fn leave(&self) {
        self.stop().await;
        if let Err(error) = self.edition().runtime.clear().await {
            tracing::error!(
                error = chain(&error),
                "not all of the gateway was cleared away"
            );
        }
    }

    /// A poisoned lock means that a task panicked; what it holds is replaced whole.
    fn edition(&self) -> Arc<Edition> {
        Arc::clone(&self.edition.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it takes now.
    pub async fn taken(&self) -> Option<Taken> {
        self.edition().runtime.taken().await
    }

    async fn reloader(&self) -> anyhow::Result<Reloader> {
        let edition = self.edition();
        let path = edition.schema.clone();
        let checker = match self.checks {
            Checks::InChild => Checker::Child(path),
            Checks::Here => Checker::Here(Arc::new(
                spawn_blocking(move || Schema::load(&path)).await??,
            )),
        };
        let reloader = Reloader::new(self.place.clone(), edition.table, checker);
        Ok(reloader.with_deadlines(self.deadlines))
    }

    async fn apply(&self, wanted: &serde_json::Value) -> anyhow::Result<Configured> {
        let reloader = self.reloader().await?;
        let outcome = reloader
            .apply(self.edition().runtime.as_ref(), &self.gateway, wanted)
            .await?;
        match outcome {
            Outcome::Applied { how, took } => {
                let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(?how, duration_ms, "configuration applied");
                Ok(Configured::Applied)
            }
            Outcome::RolledBack { reason } => Ok(Configured::Rejected(reason)),
        }
    }

    async fn be_neutral(&self, stage: Stage) -> anyhow::Result<()> {
        match self.apply(&openclaw::neutral(&self.place, stage)).await? {
            Configured::Applied => Ok(()),
            Configured::Rejected(reason) => {
                anyhow::bail!("the neutral configuration was refused: {reason}")
            }
        }
    }
}

#[async_trait]
impl Gateway for OpenClaw {
    async fn process(&self) -> Option<String> {
        match self.edition().runtime.state().await {
            // With pid and start time: another process has another record.
            State::Running => {
                Some(std::fs::read_to_string(self.place.process_record()).unwrap_or_default())
            }
            State::Stopped { .. } => None,
        }
    }

    async fn start(&self) -> anyhow::Result<()> {
        // Kept if there is one: a claimed gateway starts with what it last took.
        if !self.place.config_path().exists() {
            let first = openclaw::neutral(&self.place, Stage::WarmingUp);
            self.reloader().await?.lay_down(&first)?;
        }
        self.edition().runtime.start().await?;
        Ok(())
    }

    async fn probe(&self) -> Probe {
        match self.gateway.startup().await {
            Startup::Started => Probe::Started,
            Startup::NotYet => Probe::NotYet,
            Startup::Absent => Probe::Silent,
        }
    }

    async fn warm_up(&self) -> anyhow::Result<()> {
        // An earlier warm-up has left the configuration of a customer, under which a turn is recorded.
        self.be_neutral(Stage::WarmingUp).await?;
        self.gateway.warm_up().await?;
        // What made the turn leave no trace must not keep the customer's own traces away.
        self.be_neutral(Stage::Ready).await
    }

    async fn configure(&self, document: &DesiredDocument) -> anyhow::Result<Configured> {
        match openclaw::wanted(&self.place, &document.config) {
            Ok(wanted) => self.apply(&wanted).await,
            Err(refused) => Ok(Configured::Rejected(chain(&refused))),
        }
    }

    async fn restart(&self) -> anyhow::Result<Restarted> {
        let edition = self.edition();
        let (runtime, signal) = (edition.runtime.as_ref(), edition.table.restart_signal());
        // A signal during boot kills, and not in order.
        if self.gateway.startup().await == Startup::Started
            && restart_by_signal(runtime, &self.gateway, signal, self.deadlines).await
        {
            return Ok(Restarted::InProcess);
        }
        tracing::warn!("the gateway did not restart by signal: ending it");
        runtime.stop(STOP_GRACE).await?;
        Ok(Restarted::Ended)
    }

    async fn limit(&self, limits: GatewayLimits) -> anyhow::Result<()> {
        Ok(self.edition().runtime.limit(limits).await?)
    }

    async fn stop(&self) {
        if let Err(error) = self.edition().runtime.stop(STOP_GRACE).await {
            tracing::error!(error = chain(&error), "the gateway was not stopped");
        }
    }

    fn standing(&self) -> Standing {
        let journal = self.journal().read().clone();
        Standing {
            state: OpenClawState {
                version: self.edition().version.to_string(),
                settled: journal.settled,
                failed: journal.failed,
            },
            stage: journal.under_way.map(|under_way| under_way.stage),
        }
    }

    async fn order(&self, order: &OpenClawOrder) -> anyhow::Result<()> {
        self.take_order(order).await
    }

    async fn proceed(&self, stage: upgrades::Stage) -> anyhow::Result<()> {
        match stage {
            upgrades::Stage::Saving => self.save().await,
            upgrades::Stage::Trying => self.try_out().await,
            upgrades::Stage::Restoring => self.restore().await,
        }
    }

    async fn tidy(&self) -> anyhow::Result<()> {
        self.forget_old_state().await
    }

    fn tend(&self) {
        if let Err(error) = self.edition().runtime.log().cut_if_large() {
            tracing::warn!(%error, "the gateway's log not cut");
        }
    }
}

impl LogSource for OpenClaw {
    fn tail(&self, lines: u32) -> Vec<String> {
        let lines = usize::try_from(lines.min(MAX_LOG_LINES)).unwrap_or(0);
        self.edition()
            .runtime
            .log()
            .tail(lines)
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "the gateway's log not read");
                Vec::new()
            })
    }
}
