//! Signing in by a link, and out again.

use std::sync::Arc;

use http::{Method, StatusCode};
use tidepool_coordinator::{
    doorbell::Doorbell,
    edge::{EdgeSettings, EdgeStore},
};

use super::{
    fake::FakeStore,
    upstream::Upstream,
    world::{PAGE, World, id, route, settings},
};

const LOGIN: &str =
    "/.tidepool/login?token=s3cret----------------------------------------------------------";
const LOGOUT: &str = "/.tidepool/logout";

#[tokio::test]
async fn a_link_signs_in_once() {
    let (world, _upstream, _) = World::with_one().await;
    world.link("s3cret", 1);
    let path = LOGIN;
    let first = world.ask(Method::POST, "A.localhost:1234", path, &[PAGE]);
    let first = first.await;
    assert_eq!(first.status, StatusCode::SEE_OTHER);
    assert_eq!(first.headers["location"], "/");
    assert_eq!(first.headers["cache-control"], "no-store");
    assert_eq!(first.headers["referrer-policy"], "no-referrer");
    let cookie = first.headers["set-cookie"].to_str().unwrap().to_owned();
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="] {
        assert!(cookie.contains(attribute), "{attribute}");
    }
    let second = world.open_link("a.localhost", "s3cret").await;
    assert_eq!(second.status, StatusCode::UNAUTHORIZED);
    assert!(second.body.contains("works once") && !second.body.contains("s3cret"));
    let shown = cookie.split(';').next().unwrap();
    let inside = world.get("a.localhost", "/", &[("cookie", shown)]).await;
    assert_eq!(inside.status, StatusCode::OK);
}

#[tokio::test]
async fn whoever_only_looks_at_a_link_does_not_spend_it() {
    let (world, _upstream, _) = World::with_one().await;
    world.link("s3cret", 1);
    let head = world.ask(Method::HEAD, "a.localhost", LOGIN, &[]).await;
    assert_eq!(head.status, StatusCode::OK);
    let put = world.ask(Method::PUT, "a.localhost", LOGIN, &[]).await;
    assert_eq!(put.status, StatusCode::METHOD_NOT_ALLOWED);
    let ahead = [("sec-purpose", "prefetch;prerender")];
    let fetched = world.get("a.localhost", LOGIN, &ahead).await;
    assert_eq!(fetched.status, StatusCode::NO_CONTENT);
    let page = world.get("a.localhost", LOGIN, &[PAGE]).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(!page.headers.contains_key("set-cookie"));
    assert!(
        page.body.contains("<form method=\"post\"><button>"),
        "{}",
        page.body
    );
    assert!(!page.body.contains("s3cret"));
    // Otherwise the form's origin would be `null`, which is refused.
    assert_eq!(page.headers["referrer-policy"], "strict-origin");
    let used = world.open_link("a.localhost", "s3cret").await;
    assert_eq!(used.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_link_of_one_instance_does_not_open_another() {
    let (world, upstream, _) = World::with_one().await;
    world
        .publish(route("b.localhost", 2, Some(upstream.address)))
        .await;
    world.link("for-a", 1);
    let wrong = world.open_link("b.localhost", "for-a").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    let right = world.open_link("a.localhost", "for-a").await;
    assert_eq!(right.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn another_site_signs_nobody_in_or_out() {
    let (world, _upstream, cookie) = World::with_one().await;
    world.link("s3cret", 1);
    for foreign in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "same-site"),
    ] {
        let shown = [("cookie", cookie.as_str()), foreign];
        for path in [LOGIN, LOGOUT] {
            let got = world.ask(Method::POST, "a.localhost", path, &shown).await;
            assert_eq!(got.status, StatusCode::FORBIDDEN, "{path} {foreign:?}");
        }
    }
    let inside = world.get("a.localhost", "/", &[("cookie", &cookie)]).await;
    assert_eq!(inside.status, StatusCode::OK);
    let own = world.origin("a.localhost");
    let shown = [("origin", own.as_str()), ("sec-fetch-site", "same-origin")];
    let got = world.ask(Method::POST, "a.localhost", LOGIN, &shown).await;
    assert_eq!(got.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn who_signs_out_is_out_and_no_other() {
    let (world, _upstream, cookie) = World::with_one().await;
    let elsewhere = world.sign_in("a.localhost", 1).await;
    let get = world
        .get("a.localhost", LOGOUT, &[("cookie", &cookie)])
        .await;
    assert_eq!(get.status, StatusCode::METHOD_NOT_ALLOWED);
    let shown = [("cookie", cookie.as_str()), PAGE];
    // Before, so that the edge remembers the session.
    let inside = world.get("a.localhost", "/", &shown).await;
    assert_eq!(inside.status, StatusCode::OK);
    let out = world.ask(Method::POST, "a.localhost", LOGOUT, &shown).await;
    assert_eq!(out.status, StatusCode::OK);
    assert!(out.body.contains("signed out"));
    let cleared = out.headers["set-cookie"].to_str().unwrap();
    assert!(
        cleared.starts_with("tidepool_session=; Path=/; Max-Age=0;"),
        "{cleared}"
    );
    let inside = world.get("a.localhost", "/", &shown).await;
    assert_eq!(inside.status, StatusCode::UNAUTHORIZED);
    assert!(world.store.state().sessions.values().any(|of| *of == id(1)));
    let other = world
        .get("a.localhost", "/", &[("cookie", &elsewhere)])
        .await;
    assert_eq!(other.status, StatusCode::OK);
    let again = world.ask(Method::POST, "a.localhost", LOGOUT, &shown).await;
    assert_eq!(again.status, StatusCode::OK);
}

#[tokio::test]
async fn by_https_the_session_is_of_this_very_host() {
    let upstream = Upstream::start("a", [127, 0, 0, 1].into(), 0)
        .await
        .unwrap();
    let settings = EdgeSettings {
        https: true,
        http_port: upstream.port,
        ..settings()
    };
    let store = Arc::new(FakeStore::default());
    let views = EdgeStore {
        routes: store.clone(),
        access: store.clone(),
        certificates: store.clone(),
    };
    let world = World::with(settings, views, store, Doorbell::default()).await;
    world
        .publish(route("a.localhost", 1, Some(upstream.address)))
        .await;
    world.link("s3cret", 1);
    let got = world.open_link("a.localhost", "s3cret").await;
    let cookie = got.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-tidepool_session="), "{cookie}");
    assert!(cookie.ends_with("; Secure") && !cookie.contains("Domain"));
    let shown = cookie.split(';').next().unwrap();
    let inside = world.get("a.localhost", "/", &[("cookie", shown)]).await;
    assert_eq!(inside.status, StatusCode::OK);
    // A neighbour can plant the name without the prefix.
    let planted = shown.trim_start_matches("__Host-");
    let outside = world.get("a.localhost", "/", &[("cookie", planted)]).await;
    assert_eq!(outside.status, StatusCode::UNAUTHORIZED);
}
