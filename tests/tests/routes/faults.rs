//! Redis and Traefik die, hang, forget and come back; whoever could be served is.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidepool_coordinator::doorbell::Ring;
use tokio::{task::JoinSet, time::sleep};

use super::rig::{PATIENCE, Rig, proof};

const INSTANCES: u32 = 20;

/// Owners who ask all the time.
struct Traffic {
    is_over: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Traffic {
    /// Each of the instances at its address; any other answer is a failed test.
    fn start(rig: &Arc<Rig>, addresses: &[IpAddr]) -> Self {
        let mut traffic = Self {
            is_over: Arc::default(),
            answers: Arc::default(),
            tasks: JoinSet::new(),
        };
        for visitor in 0..2 {
            let (rig, addresses) = (Arc::clone(rig), addresses.to_vec());
            let (is_over, answers) = (Arc::clone(&traffic.is_over), Arc::clone(&traffic.answers));
            traffic.tasks.spawn(async move {
                let mut turn = visitor;
                while !is_over.load(Ordering::Relaxed) {
                    let number = turn % INSTANCES;
                    let told = rig.as_owner(number).await.unwrap().told();
                    let address = addresses[number as usize].to_string();
                    assert_eq!(told.get("server"), address, "instance {number}");
                    assert_eq!(told.get("proof"), proof(number));
                    answers.fetch_add(1, Ordering::Relaxed);
                    turn += 1;
                    sleep(Duration::from_millis(2)).await;
                }
            });
        }
        traffic
    }

    /// Lets it go on for so many answers more.
    async fn go_on(&mut self, more: usize) {
        let until = self.answers.load(Ordering::Relaxed) + more;
        let goes_on = async {
            while self.answers.load(Ordering::Relaxed) < until {
                tokio::select! {
                    Some(ended) = self.tasks.join_next() => panic!("traffic ended: {ended:?}"),
                    () = sleep(Duration::from_millis(10)) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, goes_on).await.unwrap();
    }

    async fn end(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

/// The rig with some instances whose routes Traefik knows.
async fn rig_with_instances() -> Option<(Rig, Vec<IpAddr>)> {
    let rig = Rig::start().await?;
    let addresses = (0..INSTANCES).map(|number| rig.create(number)).collect();
    rig.edge_knows(INSTANCES as usize).await;
    rig.settled().await;
    Some((rig, addresses))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_flushed_hung_or_replaced_costs_no_answer_and_routes_come_back() {
    let Some((rig, addresses)) = rig_with_instances().await else {
        return;
    };
    let rig = Arc::new(rig);
    let mut traffic = Traffic::start(&rig, &addresses);
    traffic.go_on(100).await;
    rig.redis.flush().await.unwrap();
    // The next change is what Traefik would lose everything else by.
    rig.create(100);
    traffic.go_on(100).await;
    rig.settled().await;
    rig.redis.hang().unwrap();
    rig.create(101);
    rig.edge_knows(INSTANCES as usize + 2).await;
    rig.as_owner(101).await.unwrap().told();
    traffic.go_on(300).await;
    rig.redis.go_on().unwrap();
    traffic.go_on(100).await;
    rig.settled().await;
    traffic.end().await;
    Arc::into_inner(rig).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_that_an_empty_redis_takes_the_place_of_a_killed_one() {
    let Some((rig, addresses)) = rig_with_instances().await else {
        return;
    };
    let rig = Arc::new(rig);
    let mut traffic = Traffic::start(&rig, &addresses);
    traffic.go_on(100).await;
    rig.redis.kill().unwrap();
    traffic.go_on(100).await;
    rig.redis.start_again().await.unwrap();
    // The first change is what Traefik would lose everything else by.
    rig.create(100);
    traffic.go_on(300).await;
    rig.settled().await;
    traffic.go_on(100).await;
    traffic.end().await;
    Arc::into_inner(rig).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_is_not_missed_by_traffic_claims_or_a_traefik_that_starts_meanwhile() {
    let Some((mut rig, addresses)) = rig_with_instances().await else {
        return;
    };
    rig.redis.kill().unwrap();
    let number = INSTANCES;
    let address = rig.create(number);
    rig.delete(0);
    rig.edge_knows(INSTANCES as usize).await;
    let told = rig.as_owner(number).await.unwrap().told();
    assert_eq!(told.get("server"), address.to_string());
    // Traefik still has a route for what was deleted; the edge says that nothing lives there.
    assert_eq!(rig.as_owner(0).await.unwrap().status, 404);
    assert!(rig.live().await.len() == INSTANCES as usize);
    rig.traefik.kill().await.unwrap();
    rig.traefik.start().await.unwrap();
    assert!(rig.live().await.is_empty());
    for (number, address) in (0..INSTANCES).zip(&addresses).skip(1) {
        let told = rig.as_owner(number).await.unwrap().told();
        assert_eq!(told.get("server"), address.to_string());
    }
    rig.redis.start_again().await.unwrap();
    rig.settled().await;
    let told = rig.as_owner(number).await.unwrap().told();
    assert_eq!(told.get("server"), address.to_string());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_writes_into_the_tree_is_mended_though_it_freezes_traefik() {
    let Some((rig, _)) = rig_with_instances().await else {
        return;
    };
    let mut set = redis::cmd("MSET");
    // A field that Traefik does not know, and a way round the edge.
    set.arg("traefik/http/junk").arg("1");
    let name = rig.live().await.into_keys().next().unwrap();
    let name = name.strip_suffix("@redis").unwrap().to_owned();
    let middlewares = format!("traefik/http/routers/{name}/middlewares");
    set.arg(&middlewares).arg("nothing@file");
    let _: () = rig.redis.ask(&set).await.unwrap();
    rig.create(100);
    rig.settled().await;
    assert_eq!(rig.redis.get("traefik/http/junk").await.unwrap(), None);
    let mended = rig.redis.get(&middlewares).await.unwrap();
    assert_eq!(mended, Some(format!("{name},tidepool-sign-in@file")));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traefik_that_reads_a_route_and_does_not_use_it_is_told_of_and_so_is_its_return() {
    let Some((rig, _)) = rig_with_instances().await else {
        return;
    };
    // Every router but the one that shows the revision needs it.
    let dynamic = rig.traefik.file("dynamic.yml");
    let whole = std::fs::read_to_string(&dynamic).unwrap();
    let without = whole.replace("    tidepool-sign-in:", "    of-another-name:");
    assert_ne!(without, whole);
    std::fs::write(&dynamic, without).unwrap();
    // What was staged before that is whole, and said so; this one is never.
    while !rig.live().await.is_empty() {
        sleep(Duration::from_millis(50)).await;
    }
    rig.add_server();
    rig.bell.ring(Ring::Pool);
    let told = rig.events.until("routes.unconfirmed").await;
    let why = told["why"].as_str().unwrap();
    assert_eq!(why, "staged routers that it does not take in: 1", "{told}");
    std::fs::write(&dynamic, whole).unwrap();
    rig.events.until("routes.confirmed").await;
    rig.settled().await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traefik_that_takes_nothing_in_is_told_of_and_so_is_its_return() {
    let Some((rig, _)) = rig_with_instances().await else {
        return;
    };
    let pid = Pid::from_raw(i32::try_from(rig.traefik.pid().unwrap()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    rig.create(100);
    let told = rig.events.until("routes.unconfirmed").await;
    assert!(
        told["about"].as_str().unwrap().contains("Traefik"),
        "{told}"
    );
    kill(pid, Signal::SIGCONT).unwrap();
    rig.events.until("routes.confirmed").await;
    rig.settled().await;
    let kinds = rig.events.kinds();
    assert_eq!(kinds, ["routes.unconfirmed", "routes.confirmed"]);
    rig.end().await;
}
