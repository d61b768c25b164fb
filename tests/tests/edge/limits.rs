//! How much and how fast visitors may send.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tidepool_coordinator::{
    doorbell::Doorbell,
    edge::{EdgeSettings, EdgeStore},
    model::{EdgeLimits, Route},
};

use super::{
    fake::FakeStore,
    upstream::Upstream,
    world::{Body, World, route, settings, soon},
};

async fn limited(limits: EdgeLimits) -> (World, Upstream, String) {
    let (world, upstream, cookie) = World::with_one().await;
    let limited = Route {
        limits,
        ..route("a.localhost", 1, Some(upstream.address))
    };
    world.publish(limited).await;
    (world, upstream, cookie)
}

fn pieces(count: usize) -> Body {
    let piece = |_| Ok(Frame::data(Bytes::from(vec![b'x'; 1000])));
    StreamBody::new(stream::iter((0..count).map(piece))).boxed_unsync()
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_with_the_reason_whether_its_length_is_told_or_not() {
    let (world, _upstream, cookie) = limited(EdgeLimits {
        max_body_bytes: Some(2000),
        ..EdgeLimits::default()
    })
    .await;
    let shown = [("cookie", cookie.as_str())];
    let send = async |body: Body| {
        let answer = world.open(Method::POST, "a.localhost", "/upload", &shown, body);
        let (head, body) = answer.await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        (head.status, body)
    };
    let told = |bytes: usize| Full::from(vec![b'x'; bytes]).boxed_unsync();
    assert_eq!(send(told(2000)).await, (StatusCode::OK, 2000.into()));
    assert_eq!(send(pieces(2)).await.0, StatusCode::OK);
    for too_large in [told(2001), pieces(3), pieces(100)] {
        let (status, problem) = send(too_large).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(problem["type"], "urn:tidepool:edge:too-large");
    }
}

#[tokio::test]
async fn an_instance_has_so_many_requests_under_way_and_others_have_their_own() {
    let upstream = Upstream::start("a", [127, 0, 0, 1].into(), 0).await;
    let upstream = upstream.unwrap();
    let store = Arc::new(FakeStore::default());
    let views = EdgeStore {
        routes: store.clone(),
        access: store.clone(),
        certificates: store.clone(),
    };
    let settings = EdgeSettings {
        http_port: upstream.port,
        max_requests_of_one: 2,
        ..settings()
    };
    let world = World::with(settings, views, store, Doorbell::default()).await;
    let mut cookies = Vec::new();
    for (number, host) in [(1, "a.localhost"), (2, "b.localhost")] {
        let route = route(host, number, Some(upstream.address));
        world.publish(route).await;
        cookies.push(world.sign_in(host, number).await);
    }
    let (shown, others) = (
        [("cookie", cookies[0].as_str())],
        [("cookie", cookies[1].as_str())],
    );
    let mut streams = Vec::new();
    for _ in 0..2 {
        let empty = Full::default().boxed_unsync();
        let stream = world.open(Method::GET, "a.localhost", "/events", &shown, empty);
        streams.push(stream.await);
    }
    let refused = world.get("a.localhost", "/", &shown).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.body.contains("urn:tidepool:edge:too-many-at-once"));
    assert!(refused.headers.contains_key("retry-after"));
    let other = world.get("b.localhost", "/", &others).await;
    assert_eq!(other.status, StatusCode::OK);
    // Web hooks have places of their own, and take none of the owner's.
    let token = [("authorization", "Bearer token")];
    let hook = world.ask(Method::POST, "a.localhost", "/hooks/x", &token);
    assert_eq!(hook.await.status, StatusCode::OK);
    // The edge's own pages are none of them.
    let page = world.get("a.localhost", "/.tidepool/login", &shown).await;
    assert_ne!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    streams.clear();
    let free = async {
        while world.get("a.localhost", "/", &shown).await.status != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    soon(free).await;
    // A WebSocket is counted by itself.
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(world.websocket("a.localhost", &shown).await.unwrap());
    }
}

#[tokio::test]
async fn requests_beyond_the_burst_are_told_to_wait_and_strangers_use_none_of_it_up() {
    let (world, _upstream, cookie) = limited(EdgeLimits {
        requests_per_second: Some(1),
        request_burst: Some(3),
        ..EdgeLimits::default()
    })
    .await;
    for _ in 0..10 {
        let stranger = world.get("a.localhost", "/", &[]).await;
        assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);
    }
    let shown = [("cookie", cookie.as_str())];
    for _ in 0..3 {
        let got = world.get("a.localhost", "/", &shown).await;
        assert_eq!(got.status, StatusCode::OK);
    }
    let refused = world.get("a.localhost", "/", &shown).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers["retry-after"], "2");
    assert!(refused.body.contains("urn:tidepool:edge:too-many-requests"));
    let socket = world.websocket("a.localhost", &shown).await;
    assert_eq!(socket.unwrap_err(), StatusCode::TOO_MANY_REQUESTS);
    // A web hook has turns of its own.
    let token = ("authorization", "Bearer of-the-hook");
    let hook = world
        .ask(Method::POST, "a.localhost", "/hooks/wake", &[token])
        .await;
    assert_eq!(hook.status, StatusCode::OK);
}
