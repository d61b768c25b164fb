use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use tidepool_shared::{
    document::{EdgeProof, GatewayLimits, Power},
    id::InstanceId,
    networks::Networks,
};
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
    failing_restarts: AtomicU32,
    wedges: Mutex<bool>,
    limits: Mutex<Option<GatewayLimits>>,
    takes_more: Mutex<bool>,
    standing: Mutex<Standing>,
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

    async fn restart(&self) -> anyhow::Result<Restarted> {
        self.note("restart");
        if self.failing_restarts.load(Ordering::SeqCst) > 0 {
            self.failing_restarts.fetch_sub(1, Ordering::SeqCst);
            anyhow::bail!("it survives SIGKILL");
        }
        if *self.wedges.lock().unwrap() {
            self.dies();
            return Ok(Restarted::Ended);
        }
        Ok(Restarted::InProcess)
    }

    async fn limit(&self, limits: GatewayLimits) -> anyhow::Result<()> {
        anyhow::ensure!(!*self.takes_more.lock().unwrap(), "it takes more");
        *self.limits.lock().unwrap() = Some(limits);
        Ok(())
    }

    fn standing(&self) -> Standing {
        self.standing.lock().unwrap().clone()
    }

    async fn order(&self, order: &OpenClawOrder) -> anyhow::Result<()> {
        self.note(format!("order {}", order.number));
        let mut standing = self.standing.lock().unwrap();
        if standing.is_prepared {
            standing.stage = Some(UpgradeStage::Saving);
            standing.is_prepared = false;
        }
        standing.order = Some(order.number);
        Ok(())
    }

    fn withdraw(&self) {
        self.note("withdraw");
        *self.standing.lock().unwrap() = Standing::default();
    }

    async fn proceed(&self, stage: UpgradeStage) -> anyhow::Result<()> {
        self.note(format!("proceed {stage:?}"));
        std::future::pending().await
    }

    async fn abandon(&self, stage: UpgradeStage, why: &str) -> anyhow::Result<()> {
        self.note(format!("abandon {stage:?}: {why}"));
        *self.standing.lock().unwrap() = Standing::default();
        Ok(())
    }

    async fn tidy(&self) -> anyhow::Result<()> {
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
    changes: Arc<Semaphore>,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            gateway: Arc::new(Fake::default()),
            documents: watch::Sender::new(None),
            board: Arc::new(Board::new(View::default())),
            changes: Arc::new(Semaphore::new(1)),
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
            changes: Arc::clone(&self.changes),
            change: None,
        }
    }

    /// The same document with an order.
    fn order(&self, generation: u64, number: u64) {
        let held = self.documents.borrow().clone().unwrap();
        self.documents.send_replace(Some(Arc::new(DesiredDocument {
            generation: Generation(generation),
            openclaw: Some(OpenClawOrder {
                number,
                version: "2026.9.6".parse().unwrap(),
                signed: None,
            }),
            ..(*held).clone()
        })));
        self.board
            .change(|view| view.served = Generation(generation));
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
            limits: GatewayLimits::default(),
            power: Power::On,
            evictions: 0,
            max_body_bytes: None,
            openclaw: None,
            networks: Networks::default(),
        })));
        self.board.phase(Phase::Claimed);
        self.board
            .change(|view| view.served = Generation(generation));
    }

    /// The same document, switched off.
    fn switch_off(&self, generation: u64) {
        let held = self.documents.borrow().clone().unwrap();
        self.documents.send_replace(Some(Arc::new(DesiredDocument {
            generation: Generation(generation),
            power: Power::Off,
            ..(*held).clone()
        })));
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
async fn a_customers_gateway_is_kept_to_its_limits_and_serves_even_if_it_cannot_be() {
    let bench = Bench::new();
    let mut body = bench.body();
    to_rest(&mut body).await;
    assert_eq!(*bench.gateway.limits.lock().unwrap(), None);
    bench.claim(1, 0);
    to_rest(&mut body).await;
    let kept_to = *bench.gateway.limits.lock().unwrap();
    assert_eq!(kept_to, Some(GatewayLimits::default()));

    *bench.gateway.takes_more.lock().unwrap() = true;
    bench.gateway.done();
    bench.claim(2, 0);
    to_rest(&mut body).await;
    assert_eq!(bench.gateway.done(), ["configure 2"]);
    assert_eq!(bench.view().health, Health::Degraded);
    assert!(bench.view().reasons[0].contains("it takes more"));
    *bench.gateway.takes_more.lock().unwrap() = false;
    to_rest(&mut body).await;
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

#[tokio::test]
async fn a_failed_restart_is_not_observed_until_one_has_succeeded() {
    let bench = Bench::new();
    let mut body = bench.body();
    bench.claim(1, 3);
    to_rest(&mut body).await;
    bench.gateway.failing_restarts.store(1, Ordering::SeqCst);
    bench.claim(2, 4);
    while body.turn().await.is_ok_and(|action| action.is_some()) {}
    assert_eq!(bench.view().observed, Generation(1));
    to_rest(&mut body).await;
    assert_eq!(bench.view().observed, Generation(2));
    let done = bench.gateway.done();
    assert_eq!(done[done.len() - 2..], ["restart", "restart"]);
}

#[tokio::test]
async fn a_restart_by_force_is_told_and_observed_when_the_new_process_has_started() {
    let bench = Bench::new();
    let mut body = bench.body();
    bench.claim(1, 3);
    to_rest(&mut body).await;
    *bench.gateway.wedges.lock().unwrap() = true;
    bench.claim(2, 4);
    while body.turn().await.unwrap() != Some(Action::Restart(4)) {}
    let view = bench.view();
    assert_eq!(view.observed, Generation(1));
    assert!(
        view.steps
            .iter()
            .any(|step| step.name == "restart_by_force")
    );
    to_rest(&mut body).await;
    assert_eq!(bench.view().observed, Generation(2));
    assert_eq!(bench.view().gateway_starts, 2);
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

#[tokio::test]
async fn what_is_switched_off_is_stopped_once_and_started_when_it_is_on_again() {
    let bench = Bench::new();
    let mut body = bench.body();
    bench.claim(1, 0);
    to_rest(&mut body).await;
    bench.gateway.done();
    bench.switch_off(2);
    to_rest(&mut body).await;
    assert_eq!(bench.gateway.done(), ["stop"]);
    assert_eq!(bench.view().observed, Generation(2));
    assert_eq!(bench.view().health, Health::Unknown);
    // A new agent leaves it alone.
    to_rest(&mut bench.body()).await;
    assert_eq!(bench.gateway.done(), [] as [&str; 0]);
    bench.claim(3, 0);
    to_rest(&mut body).await;
    assert_eq!(bench.gateway.done(), ["start", "configure 3"]);
    assert_eq!(bench.view().health, Health::Ok);
}

#[tokio::test]
async fn a_gateway_that_starts_is_stopped_as_soon_as_it_is_switched_off() {
    let bench = Bench::new();
    let mut body = bench.body();
    bench.claim(1, 0);
    *bench.gateway.silent.lock().unwrap() = true;
    assert_eq!(body.turn().await.unwrap(), Some(Action::StartGateway));
    let switched = async {
        sleep(Duration::from_millis(1)).await;
        bench.switch_off(2);
    };
    let (waited, ()) = tokio::join!(body.turn(), switched);
    assert_eq!(waited.unwrap(), Some(Action::AwaitGateway));
    assert_eq!(body.turn().await.unwrap(), Some(Action::StopGateway));
}

#[tokio::test]
async fn an_order_waits_for_its_preparation_and_until_the_agent_is_not_replaced() {
    let bench = Bench::new();
    bench.claim(1, 0);
    let mut body = bench.body();
    to_rest(&mut body).await;
    bench.gateway.done();
    bench.order(2, 3);
    to_rest(&mut body).await;
    assert_eq!(bench.gateway.done(), ["order 3", "configure 2"]);
    let agent = Arc::clone(&bench.changes).try_acquire_owned().unwrap();
    bench.gateway.standing.lock().unwrap().is_prepared = true;
    assert_eq!(body.turn().await.unwrap(), None);
    drop(agent);
    assert_eq!(body.turn().await.unwrap(), Some(Action::Order));
    // And the agent waits for OpenClaw.
    body.look().await;
    assert_eq!(bench.changes.available_permits(), 0);
    *bench.gateway.standing.lock().unwrap() = Standing::default();
    body.look().await;
    assert_eq!(bench.changes.available_permits(), 1);
}

#[tokio::test]
async fn a_trial_is_cut_short_when_it_is_switched_off_and_the_way_back_is_not() {
    for (stage, expected) in [
        (
            UpgradeStage::Trying,
            Some("abandon Trying: it was switched off meanwhile"),
        ),
        (UpgradeStage::Restoring, None),
    ] {
        let bench = Bench::new();
        bench.claim(1, 0);
        bench.order(2, 3);
        *bench.gateway.standing.lock().unwrap() = Standing {
            order: Some(3),
            stage: Some(stage),
            ..Standing::default()
        };
        let mut body = bench.body();
        let turned = tokio::time::timeout(Duration::from_millis(50), async {
            let proceeds = body.turn();
            tokio::pin!(proceeds);
            assert!(futures_util::poll!(&mut proceeds).is_pending());
            bench.switch_off(3);
            proceeds.await
        })
        .await;
        assert_eq!(turned.is_ok(), expected.is_some(), "{stage:?}");
        bench.gateway.done();
        if let Some(expected) = expected {
            body.turn().await.unwrap();
            assert_eq!(bench.gateway.done(), [expected]);
        }
    }
}

#[tokio::test]
async fn a_version_that_may_not_be_run_is_told_and_nothing_is_started() {
    let bench = Bench::new();
    bench.claim(1, 0);
    bench.gateway.standing.lock().unwrap().unusable = Some("it is not here".to_owned());
    to_rest(&mut bench.body()).await;
    assert!(bench.gateway.done().is_empty());
    assert_eq!(bench.view().health, Health::Down);
    assert!(bench.view().reasons[0].contains("it is not here"));
}
