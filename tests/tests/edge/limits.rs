//! How much and how fast visitors may send.

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tidepool_coordinator::model::{EdgeLimits, Route};

use super::world::{Body, World, route};

async fn limited(limits: EdgeLimits) -> (World, super::upstream::Upstream, String) {
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
