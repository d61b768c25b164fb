//! What the edge decides for Traefik, and what of a request reaches the server.

use std::net::Ipv4Addr;

use http::StatusCode;
use tidepool_coordinator::{
    doorbell::Ring,
    model::{InstanceStatus, Route},
};
use tidepool_tests::front::Told;

use super::rig::{DOMAIN, Rig, cookie, host, proof};

/// The rig with instances 1 and 2, by Traefik's own routes.
async fn rig_with_two() -> Option<Rig> {
    let rig = Rig::start().await?;
    rig.create(1);
    rig.create(2);
    rig.edge_knows(2).await;
    rig.settled().await;
    Some(rig)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_owner_passes_and_nothing_that_they_say_of_themselves_does() {
    let Some(rig) = rig_with_two().await else {
        return;
    };
    let mut shown = vec![
        ("forwarded", "for=1.2.3.4"),
        ("x-forwarded-user", "owner"),
        ("x_forwarded_user", "owner"),
        ("remote-user", "owner"),
        ("x-real-ip", "1.2.3.4"),
        ("cf-connecting-ip", "1.2.3.4"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-host", "a2.rig.localhost"),
        ("x-forwarded-uri", "/other"),
        ("x-tidepool-proof", "guess"),
        ("x-tidepool-visitor", "owner"),
        ("x-tidepool-client", "1.2.3.4"),
        ("authorization", "Bearer of-the-gateway"),
    ];
    let stranger = rig.get(1, &shown).await.unwrap();
    assert_eq!(
        stranger.status,
        StatusCode::UNAUTHORIZED,
        "{}",
        stranger.body
    );
    let cookies = format!("theirs=1; {}", cookie(1));
    shown.push(("cookie", &cookies));
    let told = rig.get(1, &shown).await.unwrap().told();
    let expected = [
        ("host", host(1)),
        ("proof", proof(1)),
        ("visitor", "owner".to_owned()),
        ("client", "127.0.0.1".to_owned()),
        ("cookie", "theirs=1".to_owned()),
        ("authorization", "Bearer of-the-gateway".to_owned()),
        ("claims", String::new()),
    ];
    for (what, value) in expected {
        assert_eq!(told.get(what), value, "{what}");
    }
    let neighbour = rig.get(2, &[("cookie", &cookie(1))]).await.unwrap();
    assert_eq!(neighbour.status, StatusCode::UNAUTHORIZED);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_sites_are_refused_and_web_hooks_pass_as_nobody() {
    let Some(rig) = rig_with_two().await else {
        return;
    };
    let cookie = cookie(1);
    let port = rig.traefik.ports.https;
    let own = format!("https://{}:{port}", host(1));
    let sibling = format!("https://{}:{port}", host(2));
    for (origin, status) in [
        (own.as_str(), StatusCode::OK),
        (sibling.as_str(), StatusCode::FORBIDDEN),
        ("https://evil.example", StatusCode::FORBIDDEN),
        ("null", StatusCode::FORBIDDEN),
    ] {
        let shown = [("cookie", cookie.as_str()), ("origin", origin)];
        let got = rig.get(1, &shown).await.unwrap();
        assert_eq!(got.status, status, "{origin}");
    }
    let hook = async |path: &str, name: &str| {
        let request = rig.client.post(format!("{own}{path}"));
        let answer = request.header(name, "Bearer token").send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    let (status, body) = hook("/hooks/wake?a=1", "authorization").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let told = Told::read(&body).unwrap();
    assert_eq!(
        (told.get("visitor"), told.get("authorization")),
        ("hook", "Bearer token")
    );
    let (status, _) = hook("/hooks/wake", "x-other").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = hook("/other", "authorization").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    // A channel's is signed, and bears no token.
    let (status, _) = hook("/slack/events", "x-slack-signature").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    rig.change(1, |route| route.hooks = vec!["/slack/events".to_owned()])
        .await;
    let (status, body) = hook("/slack/events", "x-slack-signature").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(Told::read(&body).unwrap().get("visitor"), "hook");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lasts_goes_by_the_edge_however_its_name_and_headers_are_spelt() {
    let Some(rig) = rig_with_two().await else {
        return;
    };
    let port = rig.traefik.ports.https;
    let rule = format!("Host(`{}`)", host(1));
    let live = rig.live().await;
    let (name, _) = live.iter().find(|(_, its)| **its == rule).unwrap();
    let name = name.strip_suffix("@redis").unwrap();
    let cookie = cookie(1);
    let ask = async |host: String, shown: &[(&str, &str)]| {
        let before = rig.traefik.passed_to(name).await.unwrap();
        let mut headers = vec![("cookie", cookie.as_str()), ("host", host.as_str())];
        headers.extend(shown);
        let told = rig.get(1, &headers).await.unwrap().told();
        assert_eq!(told.get("proof"), proof(1));
        rig.traefik.passed_to(name).await.unwrap() > before
    };
    for host in [
        host(1),
        format!("{}.", host(1)),
        format!("{}.:{port}", host(1)),
    ] {
        let by_itself = ask(host.clone(), &[]).await;
        assert!(by_itself, "{host}: Traefik has no route for it");
        let socket = [("upgrade", "WebSocket"), ("connection", "upgrade")];
        for lasting in [&socket[..], &[("accept", "Text/Event-Stream")]] {
            let by_itself = ask(host.clone(), lasting).await;
            assert!(!by_itself, "{host}, {lasting:?}: not by the edge");
        }
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_server_is_told_when_to_come_back_and_unknown_names_are_nobodys() {
    let Some(rig) = rig_with_two().await else {
        return;
    };
    for status in [InstanceStatus::Starting, InstanceStatus::Running] {
        rig.change(1, |route| route.status = status).await;
        let url = format!("https://{}:{}/", host(1), rig.traefik.ports.https);
        let answer = rig.client.get(url).header("cookie", cookie(1)).send().await;
        let answer = answer.unwrap();
        if status == InstanceStatus::Starting {
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(answer.headers()["retry-after"], "2");
        } else {
            assert_eq!(answer.status(), StatusCode::OK);
        }
    }
    let unknown = rig.as_owner(3).await.unwrap();
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    // A router that is only staged is reached by no name of the domain, and by its own neither.
    rig.add_server();
    rig.bell.ring(Ring::Pool);
    let staged = format!("https://x.{DOMAIN}:{}/", rig.traefik.ports.https);
    let request = rig.client.get(staged).header("host", "s0.staged.invalid");
    let status = request.send().await.unwrap().status();
    assert_eq!(status, StatusCode::NOT_FOUND);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_the_edges_and_stops_there() {
    let Some(rig) = rig_with_two().await else {
        return;
    };
    let stored = format!("ann:{}", bcrypt_of("right"));
    rig.change(1, |route| route.basic_auth = Some(stored)).await;
    let url = format!("https://{}:{}/", host(1), rig.traefik.ports.https);
    let ask = async |password: &str| {
        let request = rig.client.get(&url).basic_auth("ann", Some(password));
        request.send().await.unwrap()
    };
    let wrong = ask("wrong").await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert!(wrong.headers().contains_key("www-authenticate"));
    let right = ask("right").await;
    assert_eq!(right.status(), StatusCode::OK);
    let told = Told::read(&right.text().await.unwrap()).unwrap();
    assert_eq!(
        (told.get("visitor"), told.get("authorization")),
        ("owner", "")
    );
    rig.end().await;
}

/// As the API makes it, but quick.
fn bcrypt_of(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_cannot_ask_in_traefiks_place_and_be_told_the_proof() {
    let Some(rig) = rig_with_two().await else {
        return;
    };
    let port = rig.traefik.ports.https;
    let other = format!("{}:{port}", host(2));
    for asked in [host(1), format!("x.{DOMAIN}")] {
        let question = rig
            .client
            .get(format!("https://{asked}:{port}/.tidepool/authorize"))
            .header("cookie", cookie(2))
            .header("x-forwarded-host", &other)
            .header("x-forwarded-method", "POST")
            .header("x-forwarded-uri", "/hooks/wake")
            .header("authorization", "Bearer token");
        let answer = question.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{asked}");
        assert!(!answer.headers().contains_key("x-tidepool-proof"));
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_edges_one_that_is_away_is_not_missed() {
    let Some(mut rig) = Rig::with_edges(2).await else {
        return;
    };
    let address = rig.create(1);
    rig.settled().await;
    let elsewhere = Ipv4Addr::new(127, 0, 0, 2);
    let visitor = rig.traefik.browser(elsewhere.into()).build().unwrap();
    let port = rig.traefik.ports.https;
    let url = format!("https://{}:{port}/", host(1));
    let ask = async || {
        let asked = visitor.get(&url).header("cookie", cookie(1)).send().await;
        let answer = asked.unwrap();
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, StatusCode::OK, "{body}");
        let told = Told::read(&body).unwrap();
        assert_eq!(told.get("server"), address.to_string());
        // Whoever visits is known though Traefik asks by way of itself.
        assert_eq!(told.get("client"), elsewhere.to_string());
    };
    // By the edge alone: a WebSocket (this server knows none), a login, a name that no route is for.
    let socket = [("upgrade", "websocket"), ("connection", "upgrade")];
    let nobody = format!("https://nobody.{DOMAIN}:{port}/");
    let ask_edge = async |link: String| {
        let asked = socket
            .iter()
            .fold(visitor.get(&url), |request, (name, value)| {
                request.header(*name, *value)
            });
        let answer = asked.header("cookie", cookie(1)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "a WebSocket");
        let answer = visitor.post(link).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "a login");
        let answer = visitor.get(&nobody).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "no route");
    };
    for turn in 0..10 {
        ask().await;
        ask_edge(rig.link(1, &format!("before-{turn}"))).await;
    }
    rig.end_an_edge().await;
    for turn in 0..10 {
        ask().await;
        ask_edge(rig.link(1, &format!("after-{turn}"))).await;
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_traefik_has_of_before_carries_nobody_to_the_server_of_before() {
    let Some(rig) = rig_with_two().await else {
        return;
    };
    assert_eq!(
        rig.as_owner(1).await.unwrap().told().get("visitor"),
        "owner"
    );
    // Traefik hears no more of what changes.
    rig.redis.kill().unwrap();
    let before = rig.edge.table_version();
    rig.replace_server(1);
    rig.edge.table_changed(before).await;
    let owner = rig.as_owner(1).await.unwrap();
    assert_eq!(
        owner.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        owner.body
    );
    let told = [("x-tidepool-server", "127.70.0.3"), ("cookie", &cookie(1))];
    let claimed = rig.get(1, &told).await.unwrap();
    assert_eq!(
        claimed.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        claimed.body
    );
    assert_eq!(rig.as_owner(2).await.unwrap().told().get("proof"), proof(2));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traefiks_own_routes_keep_an_instances_pace_too() {
    let Some(rig) = rig_with_two().await else {
        return;
    };
    let pace = |route: &mut Route| {
        route.limits.requests_per_second = Some(1);
        route.limits.request_burst = Some(3);
    };
    rig.change(1, pace).await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(rig.as_owner(1).await.unwrap().status);
    }
    let (passed, refused) = statuses.split_at(3);
    assert_eq!(passed, [StatusCode::OK; 3]);
    assert!(
        refused.contains(&StatusCode::TOO_MANY_REQUESTS),
        "{refused:?}"
    );
    let neighbour = rig.as_owner(2).await.unwrap();
    assert_eq!(neighbour.status, StatusCode::OK);
    rig.end().await;
}
