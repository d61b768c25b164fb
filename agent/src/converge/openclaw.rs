//! The real gateway, as the body loop wants it: OpenClaw, its runtime and its reload.

mod edition;
mod stock;
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
use tokio::{sync::Notify, task::spawn_blocking};

pub use self::edition::{Maker, NoEdition};
use self::{
    edition::Edition,
    stock::{Preparation, Stock},
};
use super::{
    body::{Configured, Gateway, Probe, Restarted, Standing},
    chain,
};
use crate::{
    desk::LogSource,
    gateway::{self, Startup},
    openclaw::{self, Checker, Place, Schema, Stage},
    release::Shelf,
    reload::{Deadlines, Outcome, Reloader, restart_by_signal},
    runtime::{STOP_GRACE, StartFailed, State, Taken},
    upgrade::{JournalFile, Saved, UpgradeStage},
};

/// A reply with more lines is not asked for; the link bounds its bytes.
const MAX_LOG_LINES: u32 = 2_000;

/// OpenClaw on this server.
pub struct OpenClaw {
    place: Place,
    stock: Arc<Stock>,
    /// The version that runs, or is about to.
    edition: RwLock<Arc<Edition>>,
    /// Why no version may be run; then the edition is only there to end what runs.
    unusable: RwLock<Option<String>>,
    journal: Mutex<JournalFile>,
    preparation: Mutex<Option<Preparation>>,
    /// Rung when a preparation is over.
    prepared: Arc<Notify>,
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

/// Why there can be no OpenClaw here.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    #[error("the manifest names no version")]
    NoVersion,
    #[error(transparent)]
    Edition(#[from] NoEdition),
}

impl OpenClaw {
    /// The gateway at this place, of the version that the journal in `directory` names, or of the shelf's first.
    /// The directory is on the disk of the gateway's state. Where it is not known which version the state belongs
    /// to, or that one is not here, no gateway is started, and what runs can be ended.
    pub fn open(
        place: Place,
        shelf: Shelf,
        maker: Maker,
        directory: &Path,
    ) -> Result<Self, NotOpened> {
        let first = shelf.first().cloned().ok_or(NotOpened::NoVersion)?;
        let stock = Stock {
            shelf,
            maker,
            saved: Saved::of(place.state_dir(), directory.to_owned()),
        };
        let (journal, found) = match JournalFile::open(directory) {
            Ok(journal) => {
                let found = journal.read().in_charge().map(|it| stock.edition_of(it));
                (
                    journal,
                    found.transpose().map_err(|gone| format!("{gone:#}")),
                )
            }
            Err(unreadable) => (JournalFile::unknown(directory), Err(chain(&unreadable))),
        };
        let (edition, unusable) = match found {
            Ok(Some(edition)) => (edition, None),
            Ok(None) => (Edition::of(&first, &stock.maker)?, None),
            Err(why) => (Edition::of(&first, &stock.maker)?, Some(why)),
        };
        Ok(Self {
            gateway: gateway::Gateway::new(place.clone()),
            place,
            stock: Arc::new(stock),
            edition: RwLock::new(Arc::new(edition)),
            unusable: RwLock::new(unusable),
            journal: Mutex::new(journal),
            preparation: Mutex::default(),
            prepared: Arc::default(),
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

    fn unusable(&self) -> Option<String> {
        let why = self.unusable.read();
        why.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on nothing is started.
    fn refuse(&self, why: String) {
        tracing::error!(why, "no OpenClaw can be run");
        *self
            .unusable
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(why);
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
        if let Some(why) = self.unusable() {
            anyhow::bail!("no OpenClaw can be run: {why}");
        }
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
        let unusable = self.unusable();
        let version = match (&unusable, journal.in_charge()) {
            (Some(_), Some(version)) => version.to_owned(),
            (Some(_) | None, _) => self.edition().version.to_string(),
        };
        let (preparing, is_prepared) = match self.preparation().as_mut() {
            Some(preparation) => (Some(preparation.order), preparation.outcome().is_some()),
            None => (None, false),
        };
        let under_way = journal.under_way;
        Standing {
            state: OpenClawState {
                version,
                settled: journal.settled,
                failed: journal.failed,
            },
            order: under_way.as_ref().map(|it| it.order).or(preparing),
            stage: under_way.map(|it| it.stage),
            is_prepared,
            unusable,
        }
    }

    async fn order(&self, order: &OpenClawOrder) -> anyhow::Result<()> {
        self.take_order(order)
    }

    fn withdraw(&self) {
        *self.preparation() = None;
    }

    async fn prepared(&self) {
        self.prepared.notified().await;
    }

    async fn proceed(&self, stage: UpgradeStage) -> anyhow::Result<()> {
        match stage {
            UpgradeStage::Saving => self.save().await,
            UpgradeStage::Trying => self.try_out().await,
            UpgradeStage::Restoring => self.restore().await,
        }
    }

    async fn abandon(&self, stage: UpgradeStage, why: &str) -> anyhow::Result<()> {
        self.stop_at(stage, why).await
    }

    async fn tidy(&self) -> anyhow::Result<()> {
        self.sweep().await
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
