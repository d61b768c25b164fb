//! Instances that are switched off: everybody is told, nobody gets in, and whoever was in is cut off.

use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use tidepool_coordinator::model::{InstanceStatus, Route};

use super::world::{Got, PAGE, World, echo, route, soon};

/// Later than a page that looks again by itself.
fn asks_to_come_back_later(got: &Got) -> bool {
    let retry_after = got.headers.get("retry-after");
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    got.status == StatusCode::SERVICE_UNAVAILABLE && seconds >= Some(60)
}

fn suspended(notice: Option<&str>) -> Route {
    Route {
        status: InstanceStatus::Suspended,
        notice: notice.map(str::to_owned),
        ..route("a.localhost", 1, None)
    }
}

#[tokio::test]
async fn a_suspension_cuts_open_connections_and_nobody_gets_in() {
    let (world, upstream, cookie) = World::with_one().await;
    let shown = [("cookie", cookie.as_str()), PAGE];
    let mut socket = world.websocket("a.localhost", &shown).await.unwrap();
    echo(&mut socket, "before").await;
    world.link("unspent", 1);

    world.publish(suspended(None)).await;

    assert!(!matches!(soon(socket.next()).await, Some(Ok(message)) if !message.is_close()));
    let got = world.get("a.localhost", "/", &shown).await;
    assert!(asks_to_come_back_later(&got), "{}", got.status);
    assert!(got.body.contains("is suspended") && !got.body.contains("http-equiv"));
    let refused = world.websocket("a.localhost", &shown).await.map(drop);
    assert_eq!(refused, Err(StatusCode::SERVICE_UNAVAILABLE));
    let link = world.open_link("a.localhost", "unspent").await;
    assert!(asks_to_come_back_later(&link) && !link.headers.contains_key("set-cookie"));
    let stranger = world.get("a.localhost", "/", &[PAGE]).await;
    assert!(asks_to_come_back_later(&stranger));

    // And as it was.
    world
        .publish(route("a.localhost", 1, Some(upstream.address)))
        .await;
    let got = world.get("a.localhost", "/", &shown).await;
    assert_eq!(got.status, StatusCode::OK);
}

#[tokio::test]
async fn the_operators_words_are_shown_and_are_only_words() {
    let (world, _upstream, _) = World::with_one().await;
    let words = "Unpaid <script>alert('x')</script> & \"more\"";
    world.publish(suspended(Some(words))).await;
    let page = world.get("a.localhost", "/", &[PAGE]).await;
    assert!(
        page.body.contains(
            "Unpaid &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;more&quot;"
        )
    );
    assert!(!page.body.contains("<script"));
    let told = world.get("a.localhost", "/api", &[]).await;
    let told: serde_json::Value = serde_json::from_str(&told.body).unwrap();
    assert_eq!(told["detail"], words);
    assert_eq!(told["type"], "urn:tidepool:edge:suspended");
}

#[tokio::test]
async fn a_web_hook_is_asked_to_come_back() {
    let (world, upstream, _) = World::with_one().await;
    let hook = [("authorization", "Bearer token")];
    let stopped = Route {
        status: InstanceStatus::Stopped,
        ..route("a.localhost", 1, None)
    };
    for route in [suspended(None), stopped] {
        world.publish(route).await;
        let got = world.ask(Method::POST, "a.localhost", "/hooks/x", &hook);
        let got = got.await;
        assert!(asks_to_come_back_later(&got));
        assert_eq!(got.headers["content-type"], "application/problem+json");
    }
    // One that only starts is asked to come back at once.
    let starting = Route {
        status: InstanceStatus::Starting,
        ..route("a.localhost", 1, None)
    };
    world.publish(starting).await;
    let got = world.ask(Method::POST, "a.localhost", "/hooks/x", &hook);
    let got = got.await;
    assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(got.headers["retry-after"], "2");
    drop(upstream);
}
