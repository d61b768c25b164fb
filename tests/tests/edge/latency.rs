//! What the edge adds to a request. Prints; asserts nothing about time.

use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::time::Instant;

use super::world::World;

const REQUESTS: usize = 3000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo nextest run --run-ignored only -E 'test(latency)' --no-capture"]
async fn latency_of_a_request_direct_and_through_the_edge() {
    let (mut world, upstream, cookie) = World::with_one().await;
    let edge = world.address;
    for (name, address) in [
        ("direct", (upstream.address, upstream.port).into()),
        ("edge", edge),
    ] {
        world.address = address;
        let mut took = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            let began = Instant::now();
            let empty = Full::default().boxed_unsync();
            let shown = [("cookie", cookie.as_str())];
            let path = "/control-ui-config.json";
            let response = world
                .open(Method::GET, "a.localhost", path, &shown, empty)
                .await;
            assert_eq!(response.status(), StatusCode::OK);
            response.into_body().collect().await.unwrap();
            took.push(began.elapsed());
        }
        took.sort();
        let at = |share: usize| took.get(REQUESTS * share / 100).unwrap_or(&Duration::ZERO);
        println!("{name}: p50 {:?}, p99 {:?}", at(50), at(99));
    }
}
