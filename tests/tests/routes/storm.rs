//! Many routes that change all the time, and everybody tries every door.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::StatusCode;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::rig::{Rig, cookie, host, other_host, proof};

const ROUTES: u32 = 1000;
/// Numbers that come and go all the time.
const RESTLESS: u32 = 200;
const CHANGES: u32 = 3000;

/// Probes for as long as there are changes; how many there were.
async fn probe(rig: Arc<Rig>, seed: u64, over: CancellationToken) -> usize {
    let mut chance = StdRng::seed_from_u64(seed);
    let before = format!("Basic {}", BASE64_STANDARD.encode("ann:before"));
    let mut probes = 0;
    while !over.is_cancelled() {
        let number = chance.random_range(0..RESTLESS);
        // Nobody's, a neighbour's, a password of before, a word of the edge's own.
        let neighbour = cookie((number + 1) % RESTLESS);
        let shown = match chance.random_range(0..4) {
            0 => vec![],
            1 => vec![("cookie", neighbour.as_str())],
            2 => vec![("authorization", before.as_str())],
            _ => vec![("x-tidepool-visitor", "owner"), ("x-tidepool-proof", "p")],
        };
        let name = if chance.random_bool(0.7) {
            host(number)
        } else {
            other_host(number)
        };
        let got = rig.get_at(&name, &shown).await.unwrap();
        let is_refused = match got.status {
            // The last two: it is another name now, or has just changed.
            StatusCode::UNAUTHORIZED
            | StatusCode::NOT_FOUND
            | StatusCode::PERMANENT_REDIRECT
            | StatusCode::SERVICE_UNAVAILABLE => true,
            // Of what opens nothing only so much is looked at.
            StatusCode::TOO_MANY_REQUESTS => shown
                .iter()
                .any(|(name, _)| ["cookie", "authorization"].contains(name)),
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
    // Half of them have a password, and the one that they had first is nobody's any more.
    let [before, after, another] =
        ["before", "after", "another"].map(|word| bcrypt::hash(word, 4).unwrap());
    for hash in [&before, &after] {
        for number in (0..RESTLESS).step_by(2) {
            let next = Some(format!("ann:{hash}"));
            rig.change(number, |route| route.basic_auth = next).await;
        }
    }
    let (rig, over) = (Arc::new(rig), CancellationToken::new());
    let seed = rand::random();
    let mut probing = JoinSet::new();
    for prober in 0..4 {
        probing.spawn(probe(Arc::clone(&rig), seed + prober, over.clone()));
    }
    let mut chance = StdRng::seed_from_u64(seed);
    let passwords = [None, Some(&*after), Some(&*another)];
    let mut is_there = vec![true; RESTLESS as usize];
    for _ in 0..CHANGES {
        let number = chance.random_range(0..RESTLESS);
        let there = &mut is_there[number as usize];
        match (*there, chance.random_range(0..6)) {
            (true, 0 | 1) => rig.delete(number),
            (true, 2) => rig.rename(number),
            (true, 3 | 4) => rig.lock(number, passwords[chance.random_range(0..3)]),
            (true, _) => drop(rig.replace_server(number)),
            (false, _) => {
                rig.create(number);
                rig.lock(number, (number % 2 == 0).then_some(&*after));
            }
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
    // By Traefik's own routes, and not by the edge that serves what Traefik does not know yet.
    let refused = rig.traefik.refused_by_routes().unwrap();
    eprintln!("{probes} probes, {refused} told to sign in by routes from Redis");
    assert!(refused > 500, "{refused} by routes from Redis only");
    rig.settled().await;
    Arc::into_inner(rig).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_never_cross_while_their_servers_change() {
    const INSTANCES: u32 = 50;
    const RIGHT: usize = 1500;
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
    let (mut step, mut right) = (0, 0);
    while right < RIGHT {
        step += 1;
        assert!(step < 10 * RIGHT, "{right} right answers only, seed {seed}");
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
        right += 1;
    }
    rig.settled().await;
    for (number, address) in &server_of {
        let told = rig.as_owner(*number).await.unwrap().told();
        assert_eq!(told.get("server"), address.to_string(), "seed {seed}");
    }
    rig.end().await;
}
