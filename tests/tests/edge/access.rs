//! Who gets in, and what a server is told of them.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::Value;
use tidepool_coordinator::{
    ambient::Moment,
    model::{EdgeLimits, Health, Instance, InstanceStatus, Route},
};
use tidepool_shared::{
    document::{EdgeProof, Generation},
    networks::Networks,
};

use super::{
    upstream::Upstream,
    world::{PAGE, World, echo, id, route, whole},
};

/// Cost 4.
const BCRYPT_OF_PW: &str = "$2b$04$abcdefghijklmnopqrstuuyvPXIbu7xe6/CED2DzX8z6Si09MlzlW";

#[tokio::test]
async fn a_cookie_opens_its_own_instance_only() {
    let (world, upstream, cookie) = World::with_one().await;
    world
        .publish(route("b.localhost", 2, Some(upstream.address)))
        .await;
    let shown = [("cookie", cookie.as_str())];
    assert_eq!(
        world.get("a.localhost", "/", &shown).await.status,
        StatusCode::OK
    );
    let other = world.get("b.localhost", "/", &shown).await;
    assert_eq!(other.status, StatusCode::UNAUTHORIZED);
    assert!(!other.headers.contains_key("www-authenticate"));
}

#[tokio::test]
async fn what_is_made_up_asks_the_store_only_so_often() {
    let (world, _upstream, cookie) = World::with_one().await;
    let begun = world.store.state().lookups;
    let made_up: Vec<_> = (0..300).map(|number| whole(&number.to_string())).collect();
    let sessions = join_all(made_up.iter().map(async |secret| {
        let cookie = format!("tidepool_session={secret}");
        let shown = [("cookie", cookie.as_str())];
        world.get("a.localhost", "/", &shown).await.status
    }));
    let sessions = sessions.await;
    assert!(sessions.contains(&StatusCode::TOO_MANY_REQUESTS));
    let looked_for = sessions
        .iter()
        .filter(|told| **told == StatusCode::UNAUTHORIZED);
    let looked_for = looked_for.count();
    assert!(looked_for >= 100);
    assert_eq!(world.store.state().lookups - begun, looked_for);
    let links = join_all(made_up.iter().map(async |secret| {
        let got = world.open_link("a.localhost", secret);
        got.await.status
    }));
    assert!(links.await.contains(&StatusCode::TOO_MANY_REQUESTS));
    // Of what cannot be ours the store is not asked at all.
    let begun = world.store.state().lookups;
    let short = world.get("a.localhost", "/", &[("cookie", "tidepool_session=short")]);
    assert_eq!(short.await.status, StatusCode::UNAUTHORIZED);
    let path = "/.tidepool/login?token=short";
    let short = world.ask(Method::POST, "a.localhost", path, &[PAGE]).await;
    assert_eq!(short.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.store.state().lookups, begun);
    // The edge remembers the owner, or finds them: neither is in vain.
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    tokio::time::resume();
    for _ in 0..3 {
        let inside = world.get("a.localhost", "/", &[("cookie", &cookie)]).await;
        assert_eq!(inside.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_session_planted_beside_the_right_one_locks_nobody_out() {
    let (world, _upstream, cookie) = World::with_one().await;
    let both = format!("tidepool_session={}; {cookie}", whole("planted"));
    let got = world.get("a.localhost", "/", &[("cookie", &both)]).await;
    assert_eq!(got.status, StatusCode::OK);
    assert!(
        !got.headers.contains_key("set-cookie"),
        "a server set the session"
    );
}

#[tokio::test]
async fn an_unknown_host_is_told_so_in_the_visitors_form() {
    let (world, _upstream, cookie) = World::with_one().await;
    let shown = [("cookie", cookie.as_str()), PAGE];
    let page = world.get("c.localhost", "/", &shown).await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
    assert!(page.body.starts_with("<!doctype html>"));
    let problem = world.get("c.localhost", "/", &[]).await;
    assert_eq!(problem.headers["content-type"], "application/problem+json");
}

#[tokio::test]
async fn what_a_visitor_forges_does_not_reach_the_server() {
    let (world, _upstream, cookie) = World::with_one().await;
    let cookies = format!("theme=dark; {cookie}");
    let forged = [
        ("cookie", cookies.as_str()),
        ("x-tidepool-proof", "guess"),
        ("x-tidepool-client", "9.9.9.9"),
        ("x-forwarded-user", "owner"),
        ("x-forwarded-for", "9.9.9.9"),
        ("x-real-ip", "9.9.9.9"),
        ("forwarded", "for=9.9.9.9"),
        ("connection", "x-custom"),
        ("x-custom", "1"),
        ("authorization", "Bearer of-the-gateway"),
    ];
    let got = world.get("A.LOCALHOST.:99", "/x?y=%20z", &forged).await;
    let told: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!(told["target"], "/x?y=%20z");
    assert_eq!(
        told["headers"],
        serde_json::json!({
            "cookie": "theme=dark",
            "authorization": "Bearer of-the-gateway",
            "host": "a.localhost",
            "x-tidepool-proof": "proof-1",
            "x-tidepool-visitor": "owner",
            "x-tidepool-client": "127.0.0.1",
        })
    );
}

#[tokio::test]
async fn a_web_hook_passes_with_its_token_as_nobody_and_nothing_else_of_a_stranger_does() {
    let (world, _upstream, cookie) = World::with_one().await;
    let token = ("authorization", "Bearer of-the-hook");
    let forged = [
        token,
        ("x-tidepool-visitor", "owner"),
        ("x-forwarded-user", "owner"),
    ];
    let got = world
        .ask(Method::POST, "a.localhost", "/hooks/agent", &forged)
        .await;
    let told: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!(told["target"], "/hooks/agent");
    assert_eq!(told["headers"]["x-tidepool-visitor"], "hook");
    assert_eq!(told["headers"]["x-tidepool-proof"], "proof-1");
    assert_eq!(told["headers"]["authorization"], token.1);
    assert_eq!(told["headers"]["x-forwarded-user"], Value::Null);

    let elsewhere = world
        .ask(
            Method::POST,
            "a.localhost",
            "/v1/chat/completions",
            &[token],
        )
        .await;
    assert_eq!(elsewhere.status, StatusCode::UNAUTHORIZED);
    let bare = world
        .ask(Method::POST, "a.localhost", "/hooks/agent", &[])
        .await;
    assert_eq!(bare.status, StatusCode::UNAUTHORIZED);
    // The owner stays the owner, also there.
    let signed_in = [token, ("cookie", cookie.as_str())];
    let got = world
        .ask(Method::POST, "a.localhost", "/hooks/agent", &signed_in)
        .await;
    let told: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!(told["headers"]["x-tidepool-visitor"], "owner");
}

#[tokio::test]
async fn a_channels_web_hook_passes_without_a_token_and_nothing_else_on_its_path_does() {
    let (world, upstream, _) = World::with_one().await;
    let slack = Route {
        hooks: vec!["/slack/events".to_owned()],
        ..route("b.localhost", 2, Some(upstream.address))
    };
    world.publish(slack).await;
    let signed = [("x-slack-signature", "v0=abc"), ("authorization", "theirs")];
    let ask = async |method, host, path| world.ask(method, host, path, &signed).await;
    let got = ask(Method::POST, "b.localhost", "/slack/events").await;
    let told: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!(told["headers"]["x-tidepool-visitor"], "hook");
    assert_eq!(told["headers"]["x-slack-signature"], "v0=abc");
    for (method, host, path) in [
        (Method::GET, "b.localhost", "/slack/events"),
        (Method::POST, "b.localhost", "/slack/events/more"),
        (Method::POST, "b.localhost", "/hooks/agent"),
        (Method::POST, "a.localhost", "/slack/events"),
    ] {
        let refused = ask(method, host, path).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{host}{path}");
    }
    let shown = [("upgrade", "websocket"), ("connection", "upgrade")];
    let socket = world.websocket("b.localhost", &shown).await;
    assert_eq!(socket.unwrap_err(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_password_lets_in_and_stays_at_the_edge() {
    let (world, upstream, _) = World::with_one().await;
    let locked = Route {
        basic_auth: Some(format!("ann:{BCRYPT_OF_PW}")),
        ..route("b.localhost", 2, Some(upstream.address))
    };
    world.publish(locked).await;
    let bare = world.get("b.localhost", "/", &[PAGE]).await;
    assert_eq!(bare.status, StatusCode::UNAUTHORIZED);
    assert!(
        bare.headers["www-authenticate"]
            .to_str()
            .unwrap()
            .starts_with("Basic")
    );
    let right = format!("Basic {}", BASE64_STANDARD.encode("ann:pw"));
    let got = world
        .get("b.localhost", "/", &[("authorization", &right)])
        .await;
    assert_eq!(got.status, StatusCode::OK);
    assert!(!got.body.contains("authorization"));
    let wrong = format!("Basic {}", BASE64_STANDARD.encode("ann:no"));
    let got = world
        .get("b.localhost", "/", &[("authorization", &wrong)])
        .await;
    assert_eq!(got.status, StatusCode::UNAUTHORIZED);
    let elsewhere = world
        .get("a.localhost", "/", &[("authorization", &right)])
        .await;
    assert_eq!(elsewhere.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_websocket_needs_the_cookie_too() {
    let (world, _upstream, cookie) = World::with_one().await;
    let refused = world.websocket("a.localhost", &[]).await;
    assert_eq!(refused.unwrap_err(), StatusCode::UNAUTHORIZED);
    let mut socket = world
        .websocket("a.localhost", &[("cookie", &cookie)])
        .await
        .unwrap();
    echo(&mut socket, "hello").await;
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_on_both() {
    let (world, upstream, cookie) = World::with_one().await;
    world
        .publish(route("b.localhost", 2, Some(upstream.address)))
        .await;
    let neighbour = world.origin("b.localhost");
    for foreign in [
        neighbour.as_str(),
        "http://evil.example",
        "null",
        "http://a.localhost",
    ] {
        let shown = [("cookie", cookie.as_str()), ("origin", foreign)];
        let post = world.ask(Method::POST, "a.localhost", "/", &shown).await;
        assert_eq!(post.status, StatusCode::FORBIDDEN, "{foreign}");
        let socket = world.websocket("a.localhost", &shown).await;
        assert_eq!(socket.unwrap_err(), StatusCode::FORBIDDEN, "{foreign}");
    }
    let own = world.origin("a.localhost");
    let shown = [("cookie", cookie.as_str()), ("origin", own.as_str())];
    let post = world.ask(Method::POST, "a.localhost", "/", &shown).await;
    assert_eq!(post.status, StatusCode::OK);
    assert!(world.websocket("a.localhost", &shown).await.is_ok());
}

#[tokio::test]
async fn what_another_site_fetches_is_not_fetched_as_the_owner() {
    let (world, _upstream, cookie) = World::with_one().await;
    let ask = async |method, site, mode, dest| {
        let told = [
            ("cookie", cookie.as_str()),
            ("sec-fetch-site", site),
            ("sec-fetch-mode", mode),
            ("sec-fetch-dest", dest),
        ];
        world.ask(method, "a.localhost", "/", &told).await.status
    };
    for site in ["cross-site", "same-site"] {
        let followed = ask(Method::GET, site, "navigate", "document").await;
        assert_eq!(followed, StatusCode::OK);
        for (method, mode, dest) in [
            (Method::GET, "no-cors", "image"),
            (Method::GET, "navigate", "iframe"),
            (Method::POST, "navigate", "document"),
        ] {
            let status = ask(method, site, mode, dest).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{site} {mode} {dest}");
        }
    }
    let own = ask(Method::POST, "same-origin", "cors", "empty").await;
    assert_eq!(own, StatusCode::OK);
}

#[tokio::test]
async fn no_other_site_frames_an_instance() {
    let (world, _upstream, cookie) = World::with_one().await;
    let got = world.get("a.localhost", "/", &[("cookie", &cookie)]).await;
    let policy = &got.headers["content-security-policy"];
    assert_eq!(policy, "frame-ancestors 'self'");
}

#[tokio::test]
async fn an_upgrade_to_anything_but_a_websocket_is_not_passed_on() {
    let (world, _upstream, cookie) = World::with_one().await;
    let shown = [
        ("cookie", cookie.as_str()),
        ("connection", "upgrade, http2-settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABk"),
    ];
    let got = world.get("a.localhost", "/", &shown).await;
    assert_eq!(got.status, StatusCode::OK);
    assert!(!got.body.contains("upgrade") && !got.body.contains("http2"));
}

#[tokio::test]
async fn the_coordinators_probe_meets_the_owners_path_and_its_pass_works_for_nobody_else() {
    let (world, upstream, _) = World::with_one().await;
    let instance = instance("a.localhost", 1);
    world.edge.verify(&instance).await.unwrap();
    world.edge.verify(&instance).await.unwrap();
    let guess = [("x-tidepool-pass", "00")];
    let got = world
        .get("a.localhost", "/control-ui-config.json", &guess)
        .await;
    assert_eq!(got.status, StatusCode::UNAUTHORIZED);
    upstream.stop().await;
    assert!(world.edge.verify(&instance).await.is_err());
}

#[tokio::test]
async fn a_waiting_instance_has_a_page_that_looks_again() {
    let world = World::start(1).await;
    world
        .publish(Route {
            status: InstanceStatus::Pending,
            ..route("a.localhost", 1, None)
        })
        .await;
    let cookie = world.sign_in("a.localhost", 1).await;
    let page = world
        .get("a.localhost", "/", &[("cookie", &cookie), PAGE])
        .await;
    assert!(page.body.contains("http-equiv=\"refresh\""));
    let program = world.get("a.localhost", "/", &[("cookie", &cookie)]).await;
    assert_eq!(program.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(program.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_starting_instance_says_so_until_its_server_answers_for_it() {
    let upstream = Upstream::start("a", [127, 0, 0, 1].into(), 0)
        .await
        .unwrap();
    let world = World::start(upstream.port).await;
    let starting = Route {
        status: InstanceStatus::Starting,
        ..route("a.localhost", 1, Some(upstream.address))
    };
    world.publish(starting).await;
    let cookie = world.sign_in("a.localhost", 1).await;
    let shown = [("cookie", cookie.as_str()), PAGE];
    let forbidden = world.get("a.localhost", "/forbidden", &shown).await;
    assert!(forbidden.body.contains("is starting"));
    upstream.stop().await;
    let refused = world.get("a.localhost", "/", &shown).await;
    assert!(refused.body.contains("is starting"));
    world
        .publish(route("a.localhost", 1, Some([127, 0, 0, 1].into())))
        .await;
    let running = world.get("a.localhost", "/", &shown).await;
    assert_eq!(running.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn the_edges_own_paths_never_reach_a_server() {
    let (world, _upstream, cookie) = World::with_one().await;
    let got = world
        .get("a.localhost", "/.tidepool/other", &[("cookie", &cookie)])
        .await;
    assert_eq!(got.status, StatusCode::NOT_FOUND);
}

fn instance(host: &str, number: u128) -> Instance {
    Instance {
        id: id(number),
        name: host.to_owned(),
        external_id: None,
        pool: tidepool_coordinator::model::sample::pool(),
        status: InstanceStatus::Starting,
        health: Health::Ok,
        reasons: Vec::new(),
        url: String::new(),
        hosts: vec![host.to_owned()],
        domains: Vec::new(),
        server: None,
        generation: Generation::FIRST,
        observed: Generation::FIRST,
        restarts: 0,
        evictions: 0,
        config: Value::Null,
        edge_proof: EdgeProof(String::new()),
        suspension: None,
        openclaw: None,
        openclaw_orders: 0,
        openclaw_settled: 0,
        pin: None,
        basic_auth: None,
        edge_limits: EdgeLimits::default(),
        networks: Networks::default(),
        warm: true,
        timings: Vec::new(),
        queue_position: None,
        problem: None,
        created_at: Moment(0),
        claimed_at: None,
        ready_at: None,
        deleted_at: None,
        purge_at: None,
    }
}
