//! The loop that keeps the gateway running, warm while it belongs to nobody, and configured when it does.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tidepool_shared::{
    document::{DesiredDocument, GatewayLimits, Generation, OpenClawOrder, Power},
    message::{Health, OpenClawState, Phase, Rejected},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    backoff,
    board::{Board, Part},
    plan::{Action, Seen, plan},
};
use crate::{
    applied::{AppliedFile, RejectedConfig},
    desk::View,
    upgrade::UpgradeStage,
};

/// The gateway is looked at even if nobody says that it changed.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// For the first answer of a gateway. Measured: 8 to 39 s.
const SILENCE_DEADLINE: Duration = Duration::from_mins(2);
/// For a gateway that answers that it has not started: it may be finishing its runs, for which it
/// allows itself 325 s.
const START_DEADLINE: Duration = Duration::from_secs(340);
/// How often a starting gateway is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// An unclaimed server that failed so often in a row says so, and is replaced.
const GIVEN_UP_AFTER: u32 = 5;

/// What the loops need of a gateway; see `crate::gateway` for the real one.
#[async_trait]
pub trait Gateway: Send + Sync {
    /// The running process, named so that another one has another name.
    async fn process(&self) -> Option<String>;
    /// Starts it, or finds that it runs.
    async fn start(&self) -> anyhow::Result<()>;
    async fn probe(&self) -> Probe;
    /// Does the first turn and leaves no trace of it.
    async fn warm_up(&self) -> anyhow::Result<()>;
    /// Makes the document's configuration the running one, or leaves the old one running.
    async fn configure(&self, document: &DesiredDocument) -> anyhow::Result<Configured>;
    /// Restarts by the version's own signal; ends the process if that does not work.
    async fn restart(&self) -> anyhow::Result<Restarted>;
    /// Keeps it to what its tier allows, without a restart. Cheap when it is so.
    async fn limit(&self, limits: GatewayLimits) -> anyhow::Result<()>;
    /// Ends the process, by force if it does not go.
    async fn stop(&self);
    /// Which version it is, and what became of the last order for another one.
    fn standing(&self) -> Standing;
    /// Begins to prepare an order for another version, which takes no time; carries out one that is prepared.
    async fn order(&self, order: &OpenClawOrder) -> anyhow::Result<()>;
    /// Prepares nothing any more.
    fn withdraw(&self);
    /// Waits for the end of a preparation.
    async fn prepared(&self) {
        std::future::pending::<()>().await;
    }
    /// Does the stage that an order is at. Dropped half-way, it can be begun again.
    async fn proceed(&self, stage: UpgradeStage) -> anyhow::Result<()>;
    /// Ends the stage that an order is at, so that the old version comes back.
    async fn abandon(&self, stage: UpgradeStage, why: &str) -> anyhow::Result<()>;
    /// Removes what was kept long enough. To be called now and then.
    async fn tidy(&self) -> anyhow::Result<()>;
    /// Keeps what it prints within bounds. To be called now and then.
    fn tend(&self) {}
}

/// How a gateway stands to orders for another version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    pub state: OpenClawState,
    /// The order that is being prepared, or done.
    pub order: Option<u64>,
    /// What is being done for it.
    pub stage: Option<UpgradeStage>,
    /// Whether one that is not begun is prepared, or its preparation has failed.
    pub is_prepared: bool,
    /// Why no version may be run.
    pub unusable: Option<String>,
}

/// What a gateway says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// It has started.
    Started,
    /// It answers that it starts, or that it finishes its runs before a restart, still serving.
    NotYet,
    /// No answer in time.
    Silent,
}

/// What became of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Configured {
    Applied,
    /// The gateway would not take it and runs with the one before.
    Rejected(String),
}

/// How a restart went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restarted {
    /// It closed, and takes traffic again.
    InProcess,
    /// It did not come back and was ended: the loop finds no gateway and starts one.
    Ended,
}

/// The gateway and what it must be.
pub struct Body<G> {
    pub gateway: Arc<G>,
    pub applied: AppliedFile,
    pub documents: watch::Receiver<Option<Arc<DesiredDocument>>>,
    pub board: Arc<Board>,
    /// Rung when the gateway was seen to be gone or silent.
    pub wake: Arc<Notify>,
    /// One place: the agent is not replaced while OpenClaw is, nor the other way round.
    pub changes: Arc<Semaphore>,
    /// That place, while an order is carried out.
    pub change: Option<OwnedSemaphorePermit>,
}

impl<G: Gateway> Body<G> {
    /// Runs until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut view = self.board.subscribe();
        let mut failures = 0u32;
        self.tell_applied();
        loop {
            let turned = tokio::select! {
                () = stop.cancelled() => return,
                turned = self.turn() => turned,
            };
            let pause = match turned {
                Ok(Some(_)) => {
                    failures = 0;
                    self.board.well(Part::Attempt);
                    continue;
                }
                Ok(None) => {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.tidy() => {}
                    }
                    LOOK_EVERY
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    self.failed(&error, failures).await;
                    backoff(failures)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                more = self.wait(&mut view, pause) => if !more { return },
            }
        }
    }

    /// Does the next thing, if there is one, and says which.
    pub async fn turn(&mut self) -> anyhow::Result<Option<Action>> {
        let document = self.documents.borrow_and_update().clone();
        if let Some(document) = &document {
            self.keep_to_limits(document.limits).await;
        }
        let seen = self.look().await;
        let Some(action) = plan(document.as_deref(), self.applied.state(), &seen) else {
            self.at_rest(document.as_deref());
            return Ok(None);
        };
        let begun = Instant::now();
        self.act(action, document.as_deref(), &seen).await?;
        if let Some(name) = step_name(action) {
            let took = begun.elapsed();
            self.board.step(name, took);
            let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(step = name, duration_ms, "converged a step");
        }
        Ok(Some(action))
    }

    /// A gateway that is not kept to them serves its customer all the same.
    async fn keep_to_limits(&self, limits: GatewayLimits) {
        match self.gateway.limit(limits).await {
            Ok(()) => self.board.well(Part::Limits),
            Err(error) => {
                let reason = format!("the gateway is not kept to its limits: {error:#}");
                self.board.trouble(Part::Limits, Health::Degraded, &reason);
            }
        }
    }

    async fn look(&mut self) -> Seen {
        let process = self.gateway.process().await;
        let started = process.is_some() && self.gateway.probe().await == Probe::Started;
        if started {
            self.board.gateway_answers();
        }
        let standing = self.gateway.standing();
        self.tell_standing(&standing);
        if standing.stage.is_none() && !standing.is_prepared {
            self.change = None;
        } else if self.change.is_none() {
            // When somebody else has it, the next look asks again.
            self.change = Arc::clone(&self.changes).try_acquire_owned().ok();
        }
        Seen {
            process,
            started,
            served: self.board.served(),
            settled: standing.state.settled,
            stage: standing.stage,
            order: standing.order,
            may_begin: standing.is_prepared && self.change.is_some(),
            is_usable: standing.unusable.is_none(),
        }
    }

    fn tell_standing(&self, standing: &Standing) {
        if let Some(why) = &standing.unusable {
            let reason = format!("no OpenClaw can be run: {why}");
            self.board.trouble(Part::Upgrade, Health::Down, &reason);
        } else if standing.stage.is_some() {
            let reason = "OpenClaw is being upgraded";
            self.board.trouble(Part::Upgrade, Health::Degraded, reason);
        } else {
            self.board.well(Part::Upgrade);
        }
        self.board
            .change(|view| view.openclaw = standing.state.clone());
    }

    async fn tidy(&self) {
        if let Err(error) = self.gateway.tidy().await {
            tracing::warn!(
                error = format!("{error:#}"),
                "what an upgrade kept was not removed"
            );
        }
    }

    async fn act(
        &mut self,
        action: Action,
        document: Option<&DesiredDocument>,
        seen: &Seen,
    ) -> anyhow::Result<()> {
        match action {
            Action::Order => match document.and_then(|document| document.openclaw.as_ref()) {
                Some(order) => self.gateway.order(order).await,
                None => Ok(()),
            },
            Action::Withdraw => {
                self.gateway.withdraw();
                Ok(())
            }
            Action::Proceed(stage) => self.proceed(stage).await,
            Action::Abandon(stage) => {
                let why = "it was switched off meanwhile";
                self.gateway.abandon(stage, why).await
            }
            Action::StartGateway => {
                self.board.phase(Phase::Starting);
                self.count_start()?;
                self.gateway.start().await
            }
            Action::StopGateway => {
                self.gateway.stop().await;
                if self.gateway.process().await.is_some() {
                    anyhow::bail!("the gateway runs on after it was stopped");
                }
                self.board.gateway_rests();
                Ok(())
            }
            Action::AwaitGateway => self.await_started().await,
            Action::WarmUp => {
                self.board.phase(Phase::WarmingUp);
                self.gateway.warm_up().await?;
                let process = seen.process.clone();
                Ok(self.applied.change(|applied| applied.warmed = process)?)
            }
            Action::AdoptRestarts(count) => Ok(self
                .applied
                .change(|applied| applied.restarts = Some(count))?),
            Action::Configure => match document {
                Some(document) => self.configure(document).await,
                None => Ok(()),
            },
            Action::Restart(count) => self.restart(count).await,
            Action::Conclude => {
                let generation = document.map_or(Generation(0), |document| document.generation);
                self.applied
                    .change(|applied| applied.observed = generation)?;
                self.tell_applied();
                Ok(())
            }
        }
    }

    /// Until it is done, or it is switched off. The way back always comes to its end.
    async fn proceed(&mut self, stage: UpgradeStage) -> anyhow::Result<()> {
        if stage == UpgradeStage::Trying
            && let Err(error) = self.count_start()
        {
            // The disk may be full, and this is what empties it.
            tracing::warn!(error = format!("{error:#}"), "a start is not counted");
        }
        let mut documents = self.documents.clone();
        let switched_off = async {
            let is_off = |document: &Option<Arc<DesiredDocument>>| {
                document.as_ref().is_some_and(|it| it.power == Power::Off)
            };
            documents.wait_for(is_off).await.is_ok()
        };
        tokio::select! {
            done = self.gateway.proceed(stage) => done,
            true = switched_off, if stage != UpgradeStage::Restoring => Ok(()),
        }
    }

    /// Counted first: a crash in between shows one start too many, never one too few.
    fn count_start(&mut self) -> anyhow::Result<()> {
        self.applied.change(|applied| applied.gateway_starts += 1)?;
        let starts = self.applied.state().gateway_starts;
        self.board.change(|view| view.gateway_starts = starts);
        Ok(())
    }

    async fn restart(&mut self, count: u64) -> anyhow::Result<()> {
        let begun = Instant::now();
        match self.gateway.restart().await? {
            Restarted::InProcess => {}
            // Whoever asked for the restart reads in its steps that it was one by force.
            Restarted::Ended => self.board.step("restart_by_force", begun.elapsed()),
        }
        Ok(self
            .applied
            .change(|applied| applied.restarts = Some(count))?)
    }

    /// Waits for a gateway that runs; ends one that will never answer, so that it is started again.
    async fn await_started(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut last_answer = begun;
        loop {
            match self.gateway.probe().await {
                Probe::Started => return Ok(()),
                Probe::NotYet => last_answer = Instant::now(),
                Probe::Silent => {}
            }
            if self.gateway.process().await.is_none() {
                anyhow::bail!("gateway ended while it started");
            }
            // It may be wanted no more.
            if self.documents.has_changed().unwrap_or(false) {
                return Ok(());
            }
            if last_answer.elapsed() > SILENCE_DEADLINE || begun.elapsed() > START_DEADLINE {
                self.gateway.stop().await;
                anyhow::bail!("gateway did not start in time");
            }
            sleep(ASK_EVERY).await;
        }
    }

    async fn configure(&mut self, document: &DesiredDocument) -> anyhow::Result<()> {
        let generation = document.generation;
        let outcome = self.gateway.configure(document).await?;
        let rejected = match outcome {
            Configured::Applied => None,
            Configured::Rejected(reason) => Some(RejectedConfig { generation, reason }),
        };
        self.applied.change(|applied| {
            applied.configured = generation;
            applied.rejected = rejected;
        })?;
        self.tell_applied();
        Ok(())
    }

    fn tell_applied(&self) {
        let applied = self.applied.state();
        let rejected = applied.rejected.as_ref();
        match rejected {
            None => self.board.well(Part::Config),
            Some(refused) => {
                let reason = format!("configuration was refused: {}", refused.reason);
                self.board.trouble(Part::Config, Health::Degraded, &reason);
            }
        }
        let rejected = rejected.map(reported);
        self.board.change(|view| {
            view.observed = applied.observed;
            view.rejected = rejected;
        });
    }

    fn at_rest(&self, document: Option<&DesiredDocument>) {
        self.board.well(Part::Attempt);
        if document.is_none() {
            self.board.phase(Phase::Warm);
        }
    }

    async fn failed(&self, error: &anyhow::Error, failures: u32) {
        let reason = format!("{error:#}");
        tracing::warn!(
            error = reason,
            failures,
            "a step failed and will be repeated"
        );
        let health = if self.gateway.process().await.is_some() {
            Health::Degraded
        } else {
            Health::Down
        };
        self.board.trouble(Part::Attempt, health, &reason);
        if failures >= GIVEN_UP_AFTER {
            self.board.phase(Phase::Failed);
        }
    }

    /// Waits for a reason to look again; `false` when nobody can give one any more.
    async fn wait(&mut self, view: &mut watch::Receiver<View>, pause: Duration) -> bool {
        let served = self.board.served();
        tokio::select! {
            changed = self.documents.changed() => changed.is_ok(),
            other = view.wait_for(|view| view.served != served) => other.is_ok(),
            () = self.wake.notified() => true,
            () = self.gateway.prepared() => true,
            () = sleep(pause) => true,
        }
    }
}

fn reported(refused: &RejectedConfig) -> Rejected {
    Rejected {
        generation: refused.generation.0,
        reason: refused.reason.clone(),
    }
}

/// What is true of the gateway before anything was looked at, from the disk.
pub fn first_view(applied: &AppliedFile, held: Option<Generation>) -> View {
    let applied = applied.state();
    View {
        phase: held.map_or(Phase::Starting, |_| Phase::Claimed),
        observed: applied.observed,
        rejected: applied.rejected.as_ref().map(reported),
        gateway_starts: applied.gateway_starts,
        ..View::default()
    }
}

/// Under which name a report holds how long this took.
const fn step_name(action: Action) -> Option<&'static str> {
    match action {
        Action::Order => Some("upgrade_order"),
        Action::Proceed(UpgradeStage::Saving) => Some("upgrade_save"),
        Action::Proceed(UpgradeStage::Trying) => Some("upgrade_try"),
        Action::Proceed(UpgradeStage::Restoring) => Some("upgrade_restore"),
        Action::StartGateway => Some("gateway_start"),
        Action::StopGateway => Some("gateway_stop"),
        Action::AwaitGateway => Some("gateway_started"),
        Action::WarmUp => Some("warm_up"),
        Action::Withdraw | Action::Abandon(_) | Action::AdoptRestarts(_) | Action::Conclude => None,
        Action::Configure => Some("configure"),
        Action::Restart(_) => Some("restart"),
    }
}

#[cfg(test)]
mod tests;
