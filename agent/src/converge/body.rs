//! The loop that keeps the gateway running, warm while it belongs to nobody, and configured when it does.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tidepool_shared::{
    document::{DesiredDocument, Generation},
    message::{Health, Phase, Rejected},
};
use tokio::{
    sync::{Notify, watch},
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
    /// Restarts by the version's own signal, by force if that does not work.
    async fn restart(&self) -> anyhow::Result<()>;
    /// Ends the process, by force if it does not go.
    async fn stop(&self);
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

/// The gateway and what it must be.
pub struct Body<G> {
    pub gateway: Arc<G>,
    pub applied: AppliedFile,
    pub documents: watch::Receiver<Option<Arc<DesiredDocument>>>,
    pub board: Arc<Board>,
    /// Rung when the gateway was seen to be gone or silent.
    pub wake: Arc<Notify>,
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
                Ok(None) => LOOK_EVERY,
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

    async fn look(&self) -> Seen {
        let process = self.gateway.process().await;
        let started = process.is_some() && self.gateway.probe().await == Probe::Started;
        if started {
            self.board.gateway_answers();
        }
        Seen {
            process,
            started,
            served: self.board.served(),
        }
    }

    async fn act(
        &mut self,
        action: Action,
        document: Option<&DesiredDocument>,
        seen: &Seen,
    ) -> anyhow::Result<()> {
        match action {
            Action::StartGateway => {
                self.board.phase(Phase::Starting);
                // Counted first: a crash in between shows one start too many, never one too few.
                self.applied.change(|applied| applied.gateway_starts += 1)?;
                let starts = self.applied.state().gateway_starts;
                self.board.change(|view| view.gateway_starts = starts);
                self.gateway.start().await
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
            Action::Restart(count) => {
                self.gateway.restart().await?;
                Ok(self
                    .applied
                    .change(|applied| applied.restarts = Some(count))?)
            }
        }
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
            applied.observed = generation;
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
        Action::StartGateway => Some("gateway_start"),
        Action::AwaitGateway => Some("gateway_started"),
        Action::WarmUp => Some("warm_up"),
        Action::AdoptRestarts(_) => None,
        Action::Configure => Some("configure"),
        Action::Restart(_) => Some("restart"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    };

    use tidepool_shared::{document::EdgeProof, id::InstanceId};
    use uuid::Uuid;

    use super::*;

    /// A gateway of names and numbers.
    #[derive(Default)]
    struct Fake {
        process: Mutex<Option<String>>,
        starts: AtomicU32,
        did: Mutex<Vec<String>>,
        failing_starts: AtomicU32,
        refuses: Mutex<Option<String>>,
        silent: Mutex<bool>,
    }

    impl Fake {
        fn note(&self, what: impl Into<String>) {
            self.did.lock().unwrap().push(what.into());
        }

        fn done(&self) -> Vec<String> {
            std::mem::take(&mut *self.did.lock().unwrap())
        }

        fn dies(&self) {
            *self.process.lock().unwrap() = None;
        }
    }

    #[async_trait]
    impl Gateway for Fake {
        async fn process(&self) -> Option<String> {
            self.process.lock().unwrap().clone()
        }

        async fn start(&self) -> anyhow::Result<()> {
            self.note("start");
            if self.failing_starts.load(Ordering::SeqCst) > 0 {
                self.failing_starts.fetch_sub(1, Ordering::SeqCst);
                anyhow::bail!("no memory");
            }
            let number = self.starts.fetch_add(1, Ordering::SeqCst);
            *self.process.lock().unwrap() = Some(format!("p{number}"));
            Ok(())
        }

        async fn probe(&self) -> Probe {
            let running = self.process.lock().unwrap().is_some();
            if running && !*self.silent.lock().unwrap() {
                Probe::Started
            } else {
                Probe::Silent
            }
        }

        async fn warm_up(&self) -> anyhow::Result<()> {
            self.note("warm_up");
            Ok(())
        }

        async fn configure(&self, document: &DesiredDocument) -> anyhow::Result<Configured> {
            self.note(format!("configure {}", document.generation));
            Ok(match &*self.refuses.lock().unwrap() {
                Some(reason) => Configured::Rejected(reason.clone()),
                None => Configured::Applied,
            })
        }

        async fn restart(&self) -> anyhow::Result<()> {
            self.note("restart");
            Ok(())
        }

        async fn stop(&self) {
            self.note("stop");
            self.dies();
            *self.silent.lock().unwrap() = false;
        }
    }

    struct Bench {
        dir: tempfile::TempDir,
        gateway: Arc<Fake>,
        documents: watch::Sender<Option<Arc<DesiredDocument>>>,
        board: Arc<Board>,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
                gateway: Arc::new(Fake::default()),
                documents: watch::Sender::new(None),
                board: Arc::new(Board::new(View::default())),
            }
        }

        /// As after a start of the agent: everything but disk and gateway is new.
        fn body(&self) -> Body<Fake> {
            Body {
                gateway: Arc::clone(&self.gateway),
                applied: AppliedFile::open(self.dir.path()),
                documents: self.documents.subscribe(),
                board: Arc::clone(&self.board),
                wake: Arc::default(),
            }
        }

        /// A document arrives and nginx serves it.
        fn claim(&self, generation: u64, restarts: u64) {
            self.documents.send_replace(Some(Arc::new(DesiredDocument {
                instance: InstanceId::new(Uuid::from_u128(1)),
                generation: Generation(generation),
                hosts: Vec::new(),
                origins: Vec::new(),
                edge_proof: EdgeProof(String::new()),
                config: serde_json::Value::Null,
                restarts,
            })));
            self.board.phase(Phase::Claimed);
            self.board
                .change(|view| view.served = Generation(generation));
        }

        fn view(&self) -> View {
            self.board.subscribe().borrow().clone()
        }
    }

    async fn to_rest(body: &mut Body<Fake>) {
        while body.turn().await.unwrap().is_some() {}
    }

    #[tokio::test]
    async fn a_new_server_starts_its_gateway_warms_it_up_and_is_warm() {
        let bench = Bench::new();
        to_rest(&mut bench.body()).await;
        assert_eq!(bench.gateway.done(), ["start", "warm_up"]);
        assert_eq!(bench.view().phase, Phase::Warm);
        assert_eq!(bench.view().gateway_starts, 1);
    }

    #[tokio::test]
    async fn a_restart_of_the_agent_repeats_nothing_warm_or_claimed() {
        let bench = Bench::new();
        to_rest(&mut bench.body()).await;
        bench.gateway.done();
        to_rest(&mut bench.body()).await;
        assert_eq!(bench.gateway.done(), [] as [&str; 0]);
        bench.claim(1, 4);
        to_rest(&mut bench.body()).await;
        assert_eq!(bench.gateway.done(), ["configure 1"]);
        to_rest(&mut bench.body()).await;
        assert_eq!(bench.gateway.done(), [] as [&str; 0]);
    }

    #[tokio::test]
    async fn a_claimed_gateway_that_died_is_started_and_not_warmed_and_not_configured_again() {
        let bench = Bench::new();
        let mut body = bench.body();
        to_rest(&mut body).await;
        bench.claim(1, 0);
        to_rest(&mut body).await;
        bench.gateway.done();
        bench.gateway.dies();
        to_rest(&mut body).await;
        assert_eq!(bench.gateway.done(), ["start"]);
        assert_eq!(bench.view().gateway_starts, 2);
    }

    #[tokio::test]
    async fn an_unclaimed_gateway_that_died_is_warmed_again() {
        let bench = Bench::new();
        let mut body = bench.body();
        to_rest(&mut body).await;
        bench.gateway.done();
        bench.gateway.dies();
        to_rest(&mut body).await;
        assert_eq!(bench.gateway.done(), ["start", "warm_up"]);
    }

    #[tokio::test]
    async fn a_refused_configuration_is_reported_once_and_cleared_by_the_next_good_one() {
        let bench = Bench::new();
        let mut body = bench.body();
        to_rest(&mut body).await;
        *bench.gateway.refuses.lock().unwrap() = Some("bad key".into());
        bench.claim(1, 0);
        to_rest(&mut body).await;
        let view = bench.view();
        assert_eq!(view.observed, Generation(1));
        assert_eq!(view.rejected.unwrap().reason, "bad key");
        assert_eq!(view.health, Health::Degraded);

        *bench.gateway.refuses.lock().unwrap() = None;
        bench.claim(2, 0);
        to_rest(&mut body).await;
        assert_eq!(bench.view().rejected, None);
        assert_eq!(bench.view().health, Health::Ok);
    }

    #[tokio::test]
    async fn a_raised_count_means_one_restart() {
        let bench = Bench::new();
        let mut body = bench.body();
        bench.claim(1, 3);
        to_rest(&mut body).await;
        bench.claim(2, 4);
        to_rest(&mut body).await;
        to_rest(&mut body).await;
        assert_eq!(
            bench.gateway.done(),
            ["start", "configure 1", "configure 2", "restart"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_never_answers_is_ended_and_started_again() {
        let bench = Bench::new();
        let mut body = bench.body();
        *bench.gateway.silent.lock().unwrap() = true;
        body.turn().await.unwrap();
        body.turn().await.unwrap_err();
        assert_eq!(bench.gateway.done(), ["start", "stop"]);
        to_rest(&mut body).await;
        assert_eq!(bench.view().phase, Phase::Warm);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_cannot_start_gives_up_and_is_warm_when_it_can_after_all() {
        let bench = Bench::new();
        bench.gateway.failing_starts.store(7, Ordering::SeqCst);
        let stop = CancellationToken::new();
        let mut view = bench.board.subscribe();
        let looking = async {
            let failed = view.wait_for(|view| view.phase == Phase::Failed).await;
            assert!(
                failed
                    .unwrap()
                    .reasons
                    .iter()
                    .any(|r| r.contains("no memory"))
            );
            view.wait_for(|view| view.phase == Phase::Warm)
                .await
                .unwrap();
            view.wait_for(|view| view.health == Health::Ok)
                .await
                .unwrap();
            stop.cancel();
        };
        tokio::join!(bench.body().run(stop.clone()), looking);
    }
}
