//! Ending access ends it.

use std::time::Duration;

use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use tidepool_coordinator::{doorbell::Ring, model::Route};

use super::world::{World, echo, id, route, soon};

#[tokio::test]
async fn a_removed_route_cuts_open_websockets_and_streams() {
    let (world, upstream, cookie) = World::with_one().await;
    world
        .publish(route("b.localhost", 2, Some(upstream.address)))
        .await;
    let other_cookie = world.sign_in("b.localhost", 2).await;
    let shown = [("cookie", cookie.as_str())];
    let mut socket = world.websocket("a.localhost", &shown).await.unwrap();
    let others = [("cookie", other_cookie.as_str())];
    let mut other = world.websocket("b.localhost", &others).await.unwrap();
    echo(&mut socket, "before").await;
    upstream.events.send("data: 0\n\n").await.unwrap();
    let empty = http_body_util::Full::default().boxed_unsync();
    let stream = world
        .open(Method::GET, "a.localhost", "/events", &shown, empty)
        .await;
    let mut stream = stream.into_body();
    soon(stream.frame()).await.unwrap().unwrap();

    world.withdraw(id(1)).await;

    assert!(!matches!(soon(socket.next()).await, Some(Ok(message)) if !message.is_close()));
    assert!(!matches!(soon(stream.frame()).await, Some(Ok(_))));
    echo(&mut other, "untouched").await;
    let got = world.get("a.localhost", "/", &shown).await;
    assert_eq!(got.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_changed_password_cuts_open_websockets() {
    let (world, upstream, cookie) = World::with_one().await;
    let mut socket = world
        .websocket("a.localhost", &[("cookie", &cookie)])
        .await
        .unwrap();
    let locked = Route {
        basic_auth: Some("ann:hash".to_owned()),
        ..route("a.localhost", 1, Some(upstream.address))
    };
    world.publish(locked).await;
    assert!(!matches!(soon(socket.next()).await, Some(Ok(message)) if !message.is_close()));
}

#[tokio::test]
async fn a_session_that_is_gone_opens_nothing_after_the_ring() {
    let (world, upstream, cookie) = World::with_one().await;
    let shown = [("cookie", cookie.as_str())];
    assert_eq!(
        world.get("a.localhost", "/", &shown).await.status,
        StatusCode::OK
    );
    world.store.state().sessions.clear();
    world
        .publish(route("a.localhost", 1, Some(upstream.address)))
        .await;
    let got = world.get("a.localhost", "/", &shown).await;
    assert_eq!(got.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn whoever_signed_out_loses_open_websockets_and_streams_and_nobody_else_does() {
    let (world, upstream, cookie) = World::with_one().await;
    let stays = world.sign_in("a.localhost", 1).await;
    let stays = [("cookie", stays.as_str())];
    let mut other = world.websocket("a.localhost", &stays).await.unwrap();
    let shown = [("cookie", cookie.as_str())];
    let mut socket = world.websocket("a.localhost", &shown).await.unwrap();
    upstream.events.send("data: 0\n\n").await.unwrap();
    let empty = http_body_util::Full::default().boxed_unsync();
    let stream = world.open(Method::GET, "a.localhost", "/events", &shown, empty);
    let mut stream = stream.await.into_body();
    soon(stream.frame()).await.unwrap().unwrap();
    let out = world.ask(Method::POST, "a.localhost", "/.tidepool/logout", &shown);
    assert_eq!(out.await.status, StatusCode::OK);

    // Sessions are looked up again every quarter of a minute.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(16)).await;
    tokio::time::resume();
    assert!(!matches!(soon(stream.frame()).await, Some(Ok(_))));
    assert!(!matches!(soon(socket.next()).await, Some(Ok(message)) if !message.is_close()));
    echo(&mut other, "untouched").await;
}

#[tokio::test]
async fn a_lost_ring_is_made_up_for_by_any_missed_news() {
    let (world, _upstream, cookie) = World::with_one().await;
    world.store.state().routes.clear();
    // More rings than a listener keeps: it hears that it missed some and looks at everything.
    for _ in 0..5000 {
        world.bell.ring(Ring::Pool);
    }
    soon(world.edge.route_gone(id(1))).await;
    let got = world.get("a.localhost", "/", &[("cookie", &cookie)]).await;
    assert_eq!(got.status, StatusCode::NOT_FOUND);
    assert_eq!(world.edge.table_len(), 0);
}

#[tokio::test]
async fn stopping_does_not_wait_for_websockets() {
    let (mut world, _upstream, cookie) = World::with_one().await;
    let mut socket = world
        .websocket("a.localhost", &[("cookie", &cookie)])
        .await
        .unwrap();
    echo(&mut socket, "before").await;
    world.cancel.cancel();
    soon(world.serving.join_next()).await.unwrap().unwrap();
    assert!(!matches!(soon(socket.next()).await, Some(Ok(message)) if !message.is_close()));
}
