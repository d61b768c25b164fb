//! The real nginx with our template before a tiny upstream: who gets through, and with what.
//!
//! Needs `nginx` (Debian: `apt install nginx-light`).

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod nginx {
    pub(crate) mod place;
    pub(crate) mod upstream;
}

use std::sync::Arc;

use nginx::place::{PROOF, Place, document, request};
use rustls::{ClientConfig, RootCertStore};
use tidepool_agent::{
    nginx::Served,
    openclaw::{HOST as INTERNAL_HOST, ORIGIN as INTERNAL_ORIGIN, OWNER as INTERNAL_USER},
};
use tidepool_certs::{
    authority::LEAF_LIFE,
    request::{AgentKey, CheckedRequest},
    tls,
};
use tidepool_shared::{document::Power, id::ServerId};
use tidepool_tests::doors::{Doors, now};
use uuid::Uuid;

const OWN: &str = "a1.localhost";
/// What the edge sends with a signed-in user's request.
const OWNER: &[(&str, &str)] = &[("X-Tidepool-Proof", PROOF), ("X-Tidepool-Visitor", "owner")];

#[tokio::test]
async fn an_unclaimed_server_answers_403_to_everybody_and_asks_the_gateway_nothing() {
    let place = Place::new().await;
    assert_eq!(place.nginx.serve(None).await.unwrap(), Served::Started);
    for host in [OWN, "127.0.0.1", INTERNAL_HOST, "_", "localhost"] {
        assert_eq!(place.get(host, &[]).await.status, 403, "{host}");
    }
    assert_eq!(place.raw("GET / HTTP/1.0\r\n\r\n").await.status, 403);
    let proved = place.get(OWN, &[("X-Tidepool-Proof", PROOF)]).await;
    assert_eq!(proved.status, 403);
    assert!(place.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_claimed_server_answers_to_its_exact_names_only() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let port = place.http().port();
    for host in [
        OWN.to_owned(),
        format!("{OWN}:{port}"),
        "A1.LOCALHOST".into(),
        format!("{OWN}."),
    ] {
        assert_eq!(place.get(&host, OWNER).await.status, 200, "{host}");
    }
    let asked = place.upstream.seen().len();
    for host in [
        "a2.localhost",
        "x.a1.localhost",
        "a1.localhost.evil.example",
        "xa1.localhost",
        "localhost",
        "127.0.0.1",
        INTERNAL_HOST,
        "_",
    ] {
        let answer = place.get(host, OWNER).await;
        assert_eq!(answer.status, 403, "{host}");
    }
    let bare = place.http().to_string();
    assert_eq!(place.get(&bare, OWNER).await.status, 403);
    assert_eq!(place.raw("GET / HTTP/1.0\r\n\r\n").await.status, 403);
    assert_eq!(place.get("", &[]).await.status, 400);
    let two = format!("GET / HTTP/1.1\r\nHost: {OWN}\r\nHost: a2.localhost\r\n\r\n");
    assert_eq!(place.raw(&two).await.status, 400);
    assert_eq!(place.upstream.seen().len(), asked);
}

#[tokio::test]
async fn without_the_right_proof_nothing_reaches_the_gateway_whatever_is_forged() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let upper = PROOF.to_uppercase();
    let longer = format!("{PROOF}0");
    let forged = [
        ("X-Tidepool-Visitor", "owner"),
        ("X-Forwarded-User", INTERNAL_USER),
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", INTERNAL_HOST),
        ("Authorization", "Bearer guess"),
    ];
    assert_eq!(place.get(OWN, &[]).await.status, 403);
    assert_eq!(place.get(OWN, &forged).await.status, 403);
    for wrong in ["", "0", &PROOF[1..], &upper, &longer] {
        let mut headers = forged.to_vec();
        headers.push(("X-Tidepool-Proof", wrong));
        assert_eq!(place.get(OWN, &headers).await.status, 403, "{wrong}");
    }
    let twice = [("X-Tidepool-Proof", "0"), ("X-Tidepool-Proof", PROOF)];
    assert_eq!(place.get(OWN, &twice).await.status, 403);
    assert!(place.upstream.seen().is_empty());
}

/// Of the same authority as the servers, or of another one.
fn agents(doors: &Doors) -> ClientConfig {
    let key = AgentKey::generate().unwrap();
    let request = CheckedRequest::check(&key.request().unwrap()).unwrap();
    let server = ServerId::new(Uuid::from_u128(2));
    let issued = doors
        .authority
        .issue(&request, server, LEAF_LIFE, now().unwrap());
    let root = doors.authority.root();
    let mut config = tls::client_link(root, issued.unwrap(), &key).unwrap();
    config.alpn_protocols.clear();
    config
}

#[tokio::test]
async fn nobody_is_let_in_but_an_edge_of_the_servers_own_authority() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let asked = request(OWN, OWNER);
    assert_eq!(place.raw(&asked).await.status, 200);
    let seen = place.upstream.seen().len();
    let authority = place.doors.authority.root();
    let another = tempfile::tempdir().unwrap();
    let another = Doors::of(another.path()).unwrap();
    // It knows the server's authority, and shows what another one has made.
    let mut foreign = agents(&place.doors);
    foreign.client_auth_cert_resolver = another.edge().unwrap().client_auth_cert_resolver;
    let mut nobody = tls::client_enrol(authority).unwrap();
    nobody.alpn_protocols.clear();
    for (who, client, status) in [
        ("nobody", nobody, 400),
        ("another server's agent", agents(&place.doors), 403),
        ("an edge of another authority", foreign, 400),
    ] {
        let got = place.raw_as(&Arc::new(client), &asked).await.unwrap();
        assert_eq!(got.status, status, "{who}");
    }
    assert_eq!(place.raw_in_clear(&asked).await.status, 400);
    let old = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS12]);
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let old = old.with_root_certificates(roots);
    let edge = place.doors.edge().unwrap().client_auth_cert_resolver;
    let old = Arc::new(old.with_client_cert_resolver(edge));
    assert!(place.raw_as(&old, &asked).await.is_err(), "TLS 1.2");
    assert_eq!(place.upstream.seen().len(), seen);
}

#[tokio::test]
async fn a_new_certificate_is_shown_at_once_and_cuts_nobody() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let mut socket = place.upgraded(OWN).await;
    let (before, workers) = (place.shown().await.unwrap(), place.workers());
    place.renew_door();
    let after = place.shown().await.unwrap();
    assert_ne!(before, after);
    assert_eq!(place.shown().await.unwrap(), after);
    assert_eq!(socket.echo("still here").await, "still here");
    assert_eq!(place.workers(), workers);
    assert_eq!(place.get(OWN, OWNER).await.status, 200);
}

#[tokio::test]
async fn without_a_certificate_nginx_runs_and_shows_nobody_anything() {
    let place = Place::new().await;
    place.without_door();
    assert_eq!(place.nginx.serve(None).await.unwrap(), Served::Started);
    assert!(place.shown().await.is_err());
    place.renew_door();
    assert_eq!(place.get(OWN, OWNER).await.status, 403);
    assert_eq!(place.nginx.serve(None).await.unwrap(), Served::Already);
}

#[tokio::test]
async fn identity_reaches_the_gateway_only_if_the_edge_says_that_it_is_the_owner() {
    let place = Place::claimed(&document(1, &[OWN])).await;

    for visitor in ["", "hook", "owners", "Owner", "not owner", "owner, owner"] {
        let headers = [
            ("X-Tidepool-Proof", PROOF),
            ("X-Tidepool-Visitor", visitor),
            ("X-Forwarded-User", "me@evil"),
        ];
        assert_eq!(place.get(OWN, &headers).await.status, 200);
        let seen = place.upstream.last();
        assert_eq!(seen.header("x-forwarded-user"), None, "{visitor}");
    }

    let mut headers = OWNER.to_vec();
    headers.push(("X-Forwarded-User", "me@evil"));
    assert_eq!(place.get(OWN, &headers).await.status, 200);
    let seen = place.upstream.last();
    assert_eq!(seen.header("x-forwarded-user"), Some(INTERNAL_USER));
    assert_eq!(seen.count("x-forwarded-user"), 1);
    assert_eq!(seen.header("x-tidepool-proof"), None);
    assert_eq!(seen.header("x-tidepool-visitor"), None);
}

#[tokio::test]
async fn the_gateway_sees_constant_names_and_the_one_address_that_the_edge_told() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let forged = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Port", "1"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-Real-IP", "6.6.6.6"),
        ("X-Tidepool-Client", "203.0.113.7"),
        ("X-Tidepool-User", "me"),
        ("X-Tidepool-Proof", PROOF),
        ("X-Tidepool-Visitor", "owner"),
        ("Authorization", "Basic Zm9vOmJhcg=="),
    ];
    place.get(OWN, &forged).await;
    let seen = place.upstream.last();
    assert_eq!(seen.header("host"), Some(INTERNAL_HOST));
    assert_eq!(seen.header("x-forwarded-host"), Some(INTERNAL_HOST));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-for"), Some("203.0.113.7"));
    assert_eq!(seen.count("x-forwarded-for"), 1);
    for gone in [
        "forwarded",
        "x-real-ip",
        "x-forwarded-port",
        "x-tidepool-client",
        "x-tidepool-user",
        "authorization",
        "origin",
    ] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    assert_eq!(seen.peer.ip(), place.http().ip());

    let nonsense = [
        ("X-Tidepool-Proof", PROOF),
        ("X-Tidepool-Client", "1.2.3.4, 5.6.7.8"),
    ];
    place.get(OWN, &nonsense).await;
    let seen = place.upstream.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.1"));
}

#[tokio::test]
async fn a_hook_token_passes_through_the_edge_as_nobody_and_a_browsers_credentials_never() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let hook = |token| {
        [
            ("Authorization", token),
            ("X-Tidepool-Proof", PROOF),
            ("X-Tidepool-Visitor", "hook"),
        ]
    };
    place.get(OWN, &hook("Bearer hook")).await;
    let seen = place.upstream.last();
    assert_eq!(seen.header("authorization"), Some("Bearer hook"));
    assert_eq!(seen.header("x-forwarded-user"), None);
    place.get(OWN, &hook("Basic Zm9vOmJhcg==")).await;
    assert_eq!(place.upstream.last().header("authorization"), None);
    let mut headers = OWNER.to_vec();
    headers.push(("Authorization", "Bearer x"));
    place.get(OWN, &headers).await;
    assert_eq!(place.upstream.last().header("authorization"), None);
}

#[tokio::test]
async fn the_instances_own_origin_becomes_the_constant_one_and_any_other_is_refused() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("X-Tidepool-Proof", PROOF),
        ("X-Tidepool-Visitor", "owner"),
        ("X-Forwarded-User", "me@evil"),
    ];
    for foreign in [
        "https://evil.example",
        "http://a2.localhost:8443",
        "null",
        INTERNAL_ORIGIN,
        "http://a1.localhost",
    ] {
        let asked = place.upstream.seen().len();
        let mut plain = OWNER.to_vec();
        plain.push(("Origin", foreign));
        assert_eq!(place.get(OWN, &plain).await.status, 403, "{foreign}");
        let mut headers = upgrade.to_vec();
        headers.push(("Origin", foreign));
        assert_eq!(place.get(OWN, &headers).await.status, 403, "{foreign}");
        assert_eq!(place.upstream.seen().len(), asked);
    }
    let own = "http://a1.localhost:8443";
    let mut plain = OWNER.to_vec();
    plain.push(("Origin", own));
    assert_eq!(place.get(OWN, &plain).await.status, 200);
    assert_eq!(
        place.upstream.last().header("origin"),
        Some(INTERNAL_ORIGIN)
    );

    let mut headers = upgrade.to_vec();
    headers.push(("Origin", own));
    assert_eq!(place.get(OWN, &headers).await.status, 101);
    let seen = place.upstream.last();
    assert_eq!(seen.header("origin"), Some(INTERNAL_ORIGIN));
    assert_eq!(seen.header("x-forwarded-user"), Some(INTERNAL_USER));
    assert_eq!(seen.header("connection"), Some("upgrade"));

    let unproved: Vec<_> = headers
        .into_iter()
        .filter(|(name, _)| *name != "X-Tidepool-Proof")
        .collect();
    let asked = place.upstream.seen().len();
    assert_eq!(place.get(OWN, &unproved).await.status, 403);
    assert_eq!(place.upstream.seen().len(), asked);
}

#[tokio::test]
async fn a_switch_leaves_no_moment_in_which_the_old_names_answer() {
    let place = Place::new().await;
    place.nginx.serve(None).await.unwrap();
    for round in 1..=6u64 {
        let name = format!("n{round}.localhost");
        let before = format!("n{}.localhost", round - 1);
        let wanted = document(round, &[&name]);
        assert_eq!(
            place.nginx.serve(Some(&wanted)).await.unwrap(),
            Served::Reloaded
        );
        for _ in 0..20 {
            assert_eq!(place.get(&name, OWNER).await.status, 200, "{name}");
            assert_eq!(place.get(&before, OWNER).await.status, 403, "{before}");
        }
        assert_eq!(
            place.nginx.serve(Some(&wanted)).await.unwrap(),
            Served::Already
        );
    }
}

#[tokio::test]
async fn a_generation_that_changes_nothing_for_nginx_causes_no_reload() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let mut next = document(2, &[OWN]);
    next.config = serde_json::json!({"ui": {"name": "other"}});
    assert_eq!(
        place.nginx.serve(Some(&next)).await.unwrap(),
        Served::Already
    );
}

#[tokio::test]
async fn an_open_websocket_survives_a_switch() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let mut socket = place.upgraded(OWN).await;
    assert_eq!(socket.echo("before").await, "before");
    let wanted = document(2, &[OWN, "second.localhost"]);
    place.nginx.serve(Some(&wanted)).await.unwrap();
    assert_eq!(socket.echo("after").await, "after");
}

#[tokio::test]
async fn whoever_lost_access_is_cut_off_at_once() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let mut finishing = place.upgraded(OWN).await;
    // A switch that ends nobody's access leaves it with a worker that finishes.
    let second = document(2, &[OWN, "second.localhost"]);
    place.nginx.serve(Some(&second)).await.unwrap();
    let mut present = place.upgraded(OWN).await;
    assert_eq!(finishing.echo("before").await, "before");
    assert_eq!(present.echo("before").await, "before");

    let mut evicting = document(3, &[OWN, "second.localhost"]);
    evicting.evictions = 1;
    let served = place.nginx.serve(Some(&evicting)).await.unwrap();
    assert_eq!(served, Served::Reloaded);
    // Both are gone by then.
    assert!(finishing.has_ended().await && present.has_ended().await);
    assert_eq!(place.get(OWN, OWNER).await.status, 200);
    let mut fresh = place.upgraded(OWN).await;
    let again = place.nginx.serve(Some(&evicting)).await.unwrap();
    assert_eq!(again, Served::Already);
    assert_eq!(fresh.echo("after").await, "after");
}

#[tokio::test]
async fn what_is_switched_off_answers_nobody_and_carries_nothing() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let mut socket = place.upgraded(OWN).await;
    assert_eq!(socket.echo("before").await, "before");
    let mut off = document(2, &[OWN]);
    off.power = Power::Off;
    off.evictions = 1;
    place.nginx.serve(Some(&off)).await.unwrap();
    assert!(socket.has_ended().await);
    assert_eq!(place.get(OWN, OWNER).await.status, 403);
    let again = place.nginx.serve(Some(&off)).await.unwrap();
    assert_eq!(again, Served::Already);
    let mut on = document(3, &[OWN]);
    on.evictions = 1;
    place.nginx.serve(Some(&on)).await.unwrap();
    assert_eq!(place.get(OWN, OWNER).await.status, 200);
}

#[tokio::test]
async fn an_agent_that_died_before_it_cut_anybody_off_does_so_when_it_is_back() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let mut socket = place.upgraded(OWN).await;
    assert_eq!(socket.echo("before").await, "before");
    // As if it had died after the reload: the new configuration is there, and the note that it is owed.
    let next = document(2, &[OWN, "second.localhost"]);
    place.nginx.serve(Some(&next)).await.unwrap();
    std::fs::write(place.prefix().join("evict"), "").unwrap();
    let served = place.nginx.serve(Some(&next)).await.unwrap();
    assert_eq!(served, Served::Reloaded);
    assert!(socket.has_ended().await);
    let again = place.nginx.serve(Some(&next)).await.unwrap();
    assert_eq!(again, Served::Already);
}

#[tokio::test]
async fn two_servers_on_one_machine_answer_each_to_its_own_name() {
    let (a, b) = (
        Place::claimed(&document(1, &["a.localhost"])).await,
        Place::claimed(&document(1, &["b.localhost"])).await,
    );
    assert_ne!(a.http(), b.http());
    assert_eq!(a.get("a.localhost", OWNER).await.status, 200);
    assert_eq!(a.get("b.localhost", OWNER).await.status, 403);
    assert_eq!(b.get("b.localhost", OWNER).await.status, 200);
    assert_eq!(b.get("a.localhost", OWNER).await.status, 403);
}

#[tokio::test]
async fn a_new_agent_adopts_the_running_nginx_without_a_reload() {
    let mut place = Place::claimed(&document(1, &[OWN])).await;
    let before = place.master();
    place.forget_nginx();
    assert_eq!(place.get(OWN, OWNER).await.status, 200);
    let wanted = document(1, &[OWN]);
    assert_eq!(
        place.nginx.serve(Some(&wanted)).await.unwrap(),
        Served::Already
    );
    assert_eq!(place.master(), before);
}

#[tokio::test]
async fn an_nginx_whose_master_was_killed_is_started_again() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let wanted = document(1, &[OWN]);
    for _ in 0..2 {
        place.kill_master().await;
        assert!(!place.nginx.is_running());
        let served = place.nginx.serve(Some(&wanted)).await.unwrap();
        assert_eq!(served, Served::Started);
        assert_eq!(place.get(OWN, OWNER).await.status, 200);
    }
    // What it left behind ends with the server, too.
    place.kill_master().await;
    assert!(!place.nginx.is_running());
    place.nginx.stop().await;
    assert!(std::net::TcpListener::bind(place.http()).is_ok());
}

#[tokio::test]
async fn a_left_over_pid_file_of_a_stranger_is_not_believed() {
    let place = Place::new().await;
    place.write_pid(std::process::id());
    assert!(!place.nginx.is_running());
    place.nginx.stop().await;
    assert_eq!(place.nginx.serve(None).await.unwrap(), Served::Started);
}

#[tokio::test]
async fn the_relay_passes_model_calls_from_the_servers_address_and_only_under_its_secret() {
    let place = Place::new().await;
    place.nginx.serve(None).await.unwrap();
    let secret = place.relay_path();
    let call = |path: &str| {
        format!("POST {path} HTTP/1.0\r\nX-Forwarded-For: 6.6.6.6\r\nContent-Length: 2\r\n\r\n{{}}")
    };
    for path in ["/v1/chat/completions", "/", "/0/v1/chat/completions"] {
        assert_eq!(place.raw_relay(&call(path)).await.status, 403, "{path}");
    }
    assert!(place.llm.seen().is_empty());
    let answer = place
        .raw_relay(&call(&format!("{secret}/v1/chat/completions?x=1")))
        .await;
    assert_eq!(answer.status, 200);
    let seen = place.llm.last();
    assert_eq!(seen.target, "/v1/chat/completions?x=1");
    assert_eq!(seen.peer.ip(), place.http().ip());
    assert_eq!(seen.header("x-forwarded-for"), None);
}

#[tokio::test]
async fn no_log_holds_a_query_string_and_the_proof_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::claimed(&document(1, &[OWN])).await;
    let request = format!(
        "GET /path?token=hunter2 HTTP/1.0\r\nHost: {OWN}\r\nX-Tidepool-Proof: {PROOF}\r\n\r\n"
    );
    assert_eq!(place.raw(&request).await.status, 200);
    place.upstream.close();
    assert_eq!(place.raw(&request).await.status, 502);
    let mut logged = String::new();
    for file in std::fs::read_dir(place.prefix()).unwrap() {
        let file = file.unwrap();
        let path = file.path();
        if path.extension().is_some_and(|kind| kind == "log") {
            logged.push_str(&std::fs::read_to_string(&path).unwrap());
        }
        if path.extension().is_some_and(|kind| kind == "conf") {
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
    }
    assert!(logged.contains("/path"), "{logged}");
    assert!(!logged.contains("hunter2"), "{logged}");
}

#[tokio::test]
async fn a_log_over_its_bound_is_put_aside_and_nginx_goes_on_in_a_new_one() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let log = place.prefix().join("access.log");
    let written = || std::fs::metadata(&log).is_ok_and(|log| log.len() > 1);
    place.get(OWN, &[]).await;
    place.eventually(written).await;
    place.nginx.rotate_logs(1).unwrap();
    place.eventually(|| log.exists()).await;
    // The workers go over to the new log a moment after the master has made it.
    while !written() {
        place.get(OWN, &[]).await;
    }
    assert!(place.prefix().join("access.log.1").exists());
}

#[tokio::test]
async fn a_document_that_nginx_cannot_serve_is_refused_and_the_old_names_stay() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let bad = document(2, &["a;b"]);
    place.nginx.serve(Some(&bad)).await.unwrap_err();
    assert_eq!(place.get(OWN, OWNER).await.status, 200);
}

#[tokio::test]
async fn only_its_own_pages_frame_a_gateway_that_says_nothing_of_frames() {
    let place = Place::claimed(&document(1, &[OWN])).await;
    let silent = place.get(OWN, OWNER).await.head;
    assert!(
        silent.contains("Content-Security-Policy: frame-ancestors 'self'"),
        "{silent}"
    );
    let asked = format!("GET /framed HTTP/1.1\r\nHost: {OWN}\r\nX-Tidepool-Proof: {PROOF}\r\n\r\n");
    let told = place.raw(&asked).await.head;
    assert_eq!(told.matches("Content-Security-Policy").count(), 1, "{told}");
    assert!(told.contains("Frame-Ancestors https://a.example"), "{told}");
}

#[tokio::test]
async fn a_body_is_bounded_by_the_document_and_the_refusal_says_by_how_much() {
    let mut document = document(1, &[OWN]);
    document.max_body_bytes = Some(1000);
    let place = Place::claimed(&document).await;
    let post = async |proof: &str, bytes: usize| {
        let body = "x".repeat(bytes);
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {OWN}\r\nX-Tidepool-Proof: {proof}\r\n\
             Content-Length: {bytes}\r\nConnection: close\r\n\r\n{body}"
        );
        place.whole(&request).await
    };
    assert!(post(PROOF, 1000).await.starts_with("HTTP/1.1 200 "));
    let refused = post(PROOF, 1001).await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    assert!(refused.contains("application/problem+json") && refused.contains("1000 bytes"));
    assert!(post("guess", 1001).await.starts_with("HTTP/1.1 403 "));
    // Without a word about it the bound is what it always was.
    document.max_body_bytes = None;
    document.generation = document.generation.next();
    assert_eq!(
        place.nginx.serve(Some(&document)).await.unwrap(),
        Served::Reloaded
    );
    assert!(post(PROOF, 200_000).await.starts_with("HTTP/1.1 200 "));
}
