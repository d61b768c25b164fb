//! Many routes that change all the time, and everybody tries every door.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use http::StatusCode;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::rig::{Rig, cookie, proof};

const ROUTES: u32 = 1000;
/// Numbers that come and go all the time.
const RESTLESS: u32 = 200;
const CHANGES: u32 = 3000;

/// Probes for as long as there are changes; how many there were.
async fn probe(rig: Arc<Rig>, seed: u64, over: CancellationToken) -> usize {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut probes = 0;
    while !over.is_cancelled() {
        let number = chance.random_range(0..RESTLESS);
        // Nobody's, a neighbour's, a word of the edge's own.
        let neighbour = cookie((number + 1) % RESTLESS);
        let shown = match chance.random_range(0..3) {
            0 => vec![],
            1 => vec![("cookie", neighbour.as_str())],
            _ => vec![("x-tidepool-visitor", "owner"), ("x-tidepool-proof", "p")],
        };
        let got = rig.get(number, &shown).await.unwrap();
        let is_refused = match got.status {
            StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => true,
            // Of cookies that open nothing only so many are looked up.
            StatusCode::TOO_MANY_REQUESTS => shown.iter().any(|(name, _)| *name == "cookie"),
            _ => false,
        };
        assert!(
            is_refused,
            "open: {number} {} {}, seed {seed}",
            got.status, got.body
        );
        probes += 1;
    }
    probes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_route_is_ever_open_while_a_thousand_change() {
    let Some(rig) = Rig::start().await else {
        return;
    };
    for number in 0..ROUTES {
        rig.create(number);
    }
    rig.edge_knows(ROUTES as usize).await;
    rig.settled().await;
    let (rig, over) = (Arc::new(rig), CancellationToken::new());
    let seed = rand::random();
    let mut probing = JoinSet::new();
    for prober in 0..4 {
        probing.spawn(probe(Arc::clone(&rig), seed + prober, over.clone()));
    }
    let mut chance = StdRng::seed_from_u64(seed);
    let mut is_there = vec![true; RESTLESS as usize];
    for _ in 0..CHANGES {
        let number = chance.random_range(0..RESTLESS);
        let there = &mut is_there[number as usize];
        match (*there, chance.random_bool(0.5)) {
            (true, true) => rig.delete(number),
            (true, false) => drop(rig.replace_server(number)),
            (false, _) => drop(rig.create(number)),
        }
        *there = !rig
            .store
            .state()
            .routes
            .iter()
            .all(|route| route.instance != super::rig::id(number));
        if chance.random_bool(0.1) {
            rig.add_server();
        }
        sleep(Duration::from_millis(5)).await;
    }
    over.cancel();
    let mut probes = 0;
    while let Some(ended) = probing.join_next().await {
        probes += ended.unwrap();
    }
    assert!(probes > 2000, "{probes} probes only");
    rig.settled().await;
    Arc::into_inner(rig).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_never_cross_while_their_servers_change() {
    const INSTANCES: u32 = 50;
    let Some(rig) = Rig::start().await else {
        return;
    };
    let seed = rand::random();
    let mut chance = StdRng::seed_from_u64(seed);
    let mut server_of: HashMap<u32, IpAddr> = HashMap::new();
    for number in 0..INSTANCES {
        server_of.insert(number, rig.create(number));
    }
    rig.edge_knows(INSTANCES as usize).await;
    rig.settled().await;
    for step in 0..1500 {
        let number = chance.random_range(0..INSTANCES);
        if chance.random_bool(0.1) {
            let before = rig.edge.table_version();
            let address = rig.replace_server(number);
            // The edge cuts what is under way when a server is another one.
            rig.edge.table_changed(before).await;
            server_of.insert(number, address);
        }
        let got = rig.as_owner(number).await.unwrap();
        // Traefik may be a moment behind, and still lead to the server of before: that one gets nothing.
        if got.status == StatusCode::SERVICE_UNAVAILABLE {
            continue;
        }
        let told = got.told();
        let address: IpAddr = told.get("server").parse().unwrap();
        assert_eq!(address, server_of[&number], "seed {seed}, step {step}");
        assert_eq!(told.get("proof"), proof(number), "seed {seed}, step {step}");
    }
    rig.settled().await;
    for (number, address) in &server_of {
        let told = rig.as_owner(*number).await.unwrap().told();
        assert_eq!(told.get("server"), address.to_string(), "seed {seed}");
    }
    rig.end().await;
}
