//! Bodies pass as they come, in both directions.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::world::{World, soon};

#[tokio::test]
async fn events_pass_one_by_one() {
    let (world, upstream, cookie) = World::with_one().await;
    let shown = [("cookie", cookie.as_str())];
    let empty = http_body_util::Full::default().boxed_unsync();
    upstream.events.send("data: 0\n\n").await.unwrap();
    let response = world
        .open(Method::GET, "a.localhost", "/events", &shown, empty)
        .await;
    let mut body = response.into_body();
    assert_eq!(next(&mut body).await, "data: 0\n\n");
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        // The next one is sent only after the one before was read: nothing may be held back.
        upstream.events.send(event).await.unwrap();
        assert_eq!(next(&mut body).await, event);
    }
}

async fn next(body: &mut hyper::body::Incoming) -> Bytes {
    soon(body.frame())
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap()
}

#[tokio::test]
async fn a_large_upload_passes_while_it_is_sent() {
    const PIECE: usize = 1024 * 1024;
    const PIECES: usize = 32;
    let (world, mut upstream, cookie) = World::with_one().await;
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    let body = StreamBody::new(frames.map(|bytes| Ok(Frame::data(bytes))));
    let shown = [("cookie", cookie.as_str())];
    let sending = async {
        for piece in 1..=PIECES {
            sender.send(Bytes::from(vec![b'x'; PIECE])).await.unwrap();
            // The server has this piece before the next one is even made.
            soon(
                upstream
                    .received
                    .wait_for(|received| *received == piece * PIECE),
            )
            .await
            .unwrap();
        }
        drop(sender);
    };
    let answering = world.open(
        Method::POST,
        "a.localhost",
        "/upload",
        &shown,
        body.boxed_unsync(),
    );
    let (response, ()) = tokio::join!(answering, sending);
    assert_eq!(response.status(), StatusCode::OK);
    let counted = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(counted, (PIECE * PIECES).to_string());
}

#[tokio::test]
async fn a_request_that_changes_nothing_is_asked_once_more_when_its_connection_is_lost() {
    let (world, upstream, cookie) = World::with_one().await;
    let shown = [("cookie", cookie.as_str())];
    let cut = |times| upstream.cuts.store(times, Ordering::Relaxed);
    let left = || upstream.cuts.load(Ordering::Relaxed);
    cut(1);
    let got = world.get("a.localhost", "/cut", &shown).await;
    assert_eq!((got.status, left()), (StatusCode::OK, 0));
    cut(3);
    let got = world.get("a.localhost", "/cut", &shown).await;
    assert_eq!((got.status, left()), (StatusCode::BAD_GATEWAY, 1));
    // What may have done something is not done twice.
    cut(2);
    let got = world.ask(Method::POST, "a.localhost", "/cut", &shown).await;
    assert_eq!((got.status, left()), (StatusCode::BAD_GATEWAY, 1));
}
