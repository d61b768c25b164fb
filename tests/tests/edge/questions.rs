//! Traefik's question, without Traefik: who is answered at all.

use http::{Method, StatusCode};
use tidepool_coordinator::{doorbell::Doorbell, edge::EdgeSettings, edge::EdgeStore};
use tidepool_shared::hops::Hops;

use super::{
    fake::FakeStore,
    world::{World, route, settings},
};

const QUESTION: &str = "/.tidepool/authorize";

/// A world with an instance, whose hop is this machine.
async fn world(asked_about: Option<&str>, hops: &[std::net::IpAddr]) -> (World, String) {
    let store = std::sync::Arc::new(FakeStore::default());
    let views = EdgeStore {
        routes: store.clone(),
        access: store.clone(),
    };
    let settings = EdgeSettings {
        trusted_hops: Hops::of(hops),
        asked_about: asked_about.map(str::to_owned),
        ..settings()
    };
    let world = World::with(settings, views, store, Doorbell::default()).await;
    world
        .publish(route("a.localhost", 1, Some([127, 0, 0, 1].into())))
        .await;
    let cookie = world.sign_in("a.localhost", 1).await;
    (world, cookie)
}

async fn ask(world: &World, host: &str, cookie: &str) -> (StatusCode, bool) {
    ask_of(world, host, cookie, "127.0.0.1").await
}

/// By a route that leads to this server.
async fn ask_of(world: &World, host: &str, cookie: &str, server: &str) -> (StatusCode, bool) {
    let shown = [
        ("x-tidepool-server", server),
        ("x-forwarded-host", "a.localhost"),
        ("x-forwarded-method", "GET"),
        ("x-forwarded-uri", "/x"),
        ("x-forwarded-for", "192.0.2.7"),
        ("cookie", cookie),
    ];
    let got = world.ask(Method::GET, host, QUESTION, &shown).await;
    (got.status, got.headers.contains_key("x-tidepool-proof"))
}

#[tokio::test]
async fn only_a_hop_is_answered_only_in_its_own_name_and_only_where_hops_ask() {
    let here = [127, 0, 0, 1].into();
    let (asked, cookie) = world(Some("localhost"), &[here]).await;
    assert_eq!(
        ask(&asked, "127.0.0.1", &cookie).await,
        (StatusCode::OK, true)
    );
    assert_eq!(
        ask(&asked, "127.0.0.1", "x=1").await,
        (StatusCode::UNAUTHORIZED, false)
    );
    for host in ["a.localhost", "b.localhost", "localhost", "B.LOCALHOST.:80"] {
        let (status, is_told) = ask(&asked, host, &cookie).await;
        assert_eq!((status, is_told), (StatusCode::NOT_FOUND, false), "{host}");
    }
    let (nobody_asks, cookie) = world(None, &[here]).await;
    assert_eq!(
        ask(&nobody_asks, "127.0.0.1", &cookie).await,
        (StatusCode::NOT_FOUND, false)
    );
    let (stranger, cookie) = world(Some("localhost"), &[[192, 0, 2, 1].into()]).await;
    assert_eq!(
        ask(&stranger, "127.0.0.1", &cookie).await,
        (StatusCode::NOT_FOUND, false)
    );
}

#[tokio::test]
async fn what_is_vouched_for_is_for_the_instances_own_server() {
    let (world, cookie) = world(Some("localhost"), &[[127, 0, 0, 1].into()]).await;
    for server in ["127.0.0.2", "", "nobody", "127.0.0.1, 127.0.0.1"] {
        let told = ask_of(&world, "127.0.0.1", &cookie, server).await;
        assert_eq!(told, (StatusCode::SERVICE_UNAVAILABLE, false), "{server}");
        let stranger = ask_of(&world, "127.0.0.1", "x=1", server).await;
        assert_eq!(stranger, (StatusCode::UNAUTHORIZED, false), "{server}");
    }
}
