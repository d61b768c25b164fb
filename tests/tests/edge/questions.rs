//! Traefik's question, without Traefik: who is answered at all.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{Method, StatusCode};
use tidepool_coordinator::{
    ambient::Chance,
    doorbell::Doorbell,
    edge::{EdgeSettings, EdgeStore, Questions, Rotation, hop_secret},
    model::{InstanceStatus, Route},
};
use tidepool_shared::hops::Hops;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    fake::FakeStore,
    world::{Got, World, id, route, settings, soon, whole},
};

const QUESTION: &str = "/.tidepool/authorize";

/// A world with an instance, whose hop is this machine.
async fn world(asked_about: Option<&str>, hops: &[std::net::IpAddr]) -> Asked {
    let most = EdgeSettings::default().max_connections;
    world_with(asked_about, hops, most).await
}

/// One whose edge takes so many connections.
async fn world_with(
    asked_about: Option<&str>,
    hops: &[std::net::IpAddr],
    max_connections: usize,
) -> Asked {
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("secrets");
    let secret = hop_secret(&secrets, Rotation::New, &Chance::from_os()).unwrap();
    let store = std::sync::Arc::new(FakeStore::default());
    let views = EdgeStore {
        routes: store.clone(),
        access: store.clone(),
        certificates: store.clone(),
    };
    let settings = EdgeSettings {
        trusted_hops: Hops::of(hops),
        max_connections,
        questions: asked_about.map(|domain| Questions {
            domain: domain.to_owned(),
            secrets,
        }),
        ..settings()
    };
    let world = World::with(settings, views, store, Doorbell::default()).await;
    world
        .publish(route("a.localhost", 1, Some([127, 0, 0, 1].into())))
        .await;
    let cookie = world.sign_in("a.localhost", 1).await;
    Asked {
        world,
        cookie,
        secret,
        _folder: folder,
    }
}

/// An edge, somebody who is signed in there, and what the hop knows.
struct Asked {
    world: World,
    cookie: String,
    secret: String,
    _folder: tempfile::TempDir,
}

async fn ask(asked: &Asked, host: &str, cookie: &str) -> (StatusCode, bool) {
    ask_of(asked, host, cookie, "127.0.0.1").await
}

/// By a route that leads to this server.
async fn ask_of(asked: &Asked, host: &str, cookie: &str, server: &str) -> (StatusCode, bool) {
    let got = question(asked, host, cookie, server, &asked.secret).await;
    (got.status, got.headers.contains_key("x-tidepool-proof"))
}

async fn question(asked: &Asked, host: &str, cookie: &str, server: &str, secret: &str) -> Got {
    let shown = [
        ("x-tidepool-hop", secret),
        ("x-tidepool-server", server),
        ("x-forwarded-host", "a.localhost"),
        ("x-forwarded-method", "GET"),
        ("x-forwarded-uri", "/x"),
        ("x-forwarded-for", "192.0.2.7"),
        ("cookie", cookie),
    ];
    asked.world.ask(Method::GET, host, QUESTION, &shown).await
}

#[tokio::test]
async fn whoever_has_a_hops_address_and_not_its_secret_is_told_nothing() {
    let here = [127, 0, 0, 1].into();
    let asked = world(Some("localhost"), &[here]).await;
    let guesses = [
        "",
        "guess",
        &asked.secret[1..],
        &asked.secret.to_uppercase(),
    ];
    for guess in guesses {
        let got = question(&asked, "127.0.0.1", &asked.cookie, "127.0.0.1", guess).await;
        assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE, "{guess}");
        assert!(!got.headers.contains_key("x-tidepool-proof"));
        assert!(got.body.contains("edge:unknown-hop"), "{}", got.body);
    }
}

#[tokio::test]
async fn a_full_edge_answers_traefiks_questions_still_and_nothing_else() {
    let here = [127, 0, 0, 1].into();
    let asked = world_with(Some("localhost"), &[here], 1).await;
    // The one place is that of the connection by which the owner signed in.
    let say = async |path: &str, host: &str| {
        let head = [
            &format!("GET {path} HTTP/1.1"),
            &format!("host: {host}"),
            &format!("cookie: {}", asked.cookie),
            &format!("x-tidepool-hop: {}", asked.secret),
            "x-tidepool-server: 127.0.0.1",
            "x-forwarded-host: a.localhost",
            "x-forwarded-method: GET",
            "x-forwarded-uri: /x",
            "\r\n",
        ];
        let head = head.join("\r\n");
        let mut stream = TcpStream::connect(asked.world.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // The edge closes it: what it was kept for is over.
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    for _ in 0..3 {
        let told = say(QUESTION, "127.0.0.1").await;
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        assert!(told.contains("x-tidepool-proof"), "{told}");
        let full = say("/x", "a.localhost").await;
        assert!(full.starts_with("HTTP/1.1 503"), "{full}");
        assert!(full.contains("edge:full"), "{full}");
    }
}

#[tokio::test]
async fn a_password_that_changes_while_it_is_judged_is_not_vouched_for() {
    let here = [127, 0, 0, 1].into();
    let asked = world(Some("localhost"), &[here]).await;
    let world = &asked.world;
    let locked = |password: &str| Route {
        basic_auth: Some(format!("ann:{}", bcrypt::hash(password, 4).unwrap())),
        ..route("a.localhost", 1, Some(here))
    };
    world.publish(locked("old")).await;
    let password = format!("Basic {}", BASE64_STANDARD.encode("ann:old"));
    let ask = async |session: &str| {
        let cookie = format!("tidepool_session={}", whole(session));
        let shown = [
            ("x-tidepool-hop", asked.secret.as_str()),
            ("x-tidepool-server", "127.0.0.1"),
            ("x-forwarded-host", "a.localhost"),
            ("x-forwarded-method", "GET"),
            ("x-forwarded-uri", "/x"),
            ("cookie", cookie.as_str()),
            ("authorization", password.as_str()),
        ];
        world.ask(Method::GET, "127.0.0.1", QUESTION, &shown).await
    };
    assert_eq!(ask("nobodys").await.status, StatusCode::OK);
    let before = world.store.state().lookups;
    let held = world.store.held.lock().await;
    let changing = async {
        while world.store.state().lookups == before {
            tokio::task::yield_now().await;
        }
        world.publish(locked("new")).await;
        drop(held);
    };
    let (got, ()) = tokio::join!(ask("another"), changing);
    assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE, "{}", got.body);
    assert!(got.body.contains("edge:changed"), "{}", got.body);
    assert!(!got.headers.contains_key("x-tidepool-proof"));
    assert_eq!(ask("another").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn of_an_instance_that_is_switched_off_a_hop_is_told_what_its_visitors_are() {
    let asked = world(Some("localhost"), &[[127, 0, 0, 1].into()]).await;
    let suspended = Route {
        status: InstanceStatus::Suspended,
        ..route("a.localhost", 1, None)
    };
    asked.world.publish(suspended).await;
    let got = question(
        &asked,
        "127.0.0.1",
        &asked.cookie,
        "127.0.0.1",
        &asked.secret,
    )
    .await;
    assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(got.body.contains("edge:suspended") && got.headers.contains_key("retry-after"));
    assert!(!got.headers.contains_key("x-tidepool-proof"));
}

#[tokio::test]
async fn only_a_hop_is_answered_only_in_its_own_name_and_only_where_hops_ask() {
    let here = [127, 0, 0, 1].into();
    let asked = world(Some("localhost"), &[here]).await;
    let cookie = asked.cookie.clone();
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
    let nobody_asks = world(None, &[here]).await;
    assert_eq!(
        ask(&nobody_asks, "127.0.0.1", &nobody_asks.cookie).await,
        (StatusCode::NOT_FOUND, false)
    );
    let stranger = world(Some("localhost"), &[[192, 0, 2, 1].into()]).await;
    assert_eq!(
        ask(&stranger, "127.0.0.1", &stranger.cookie).await,
        (StatusCode::NOT_FOUND, false)
    );
}

#[tokio::test]
async fn by_a_new_name_nobody_passes_before_the_server_knows_it() {
    let here = [127, 0, 0, 1].into();
    let asked = world(Some("localhost"), &[here]).await;
    let renamed = |is_renaming| Route {
        is_renaming,
        ..route("b.localhost", 1, Some(here))
    };
    asked.world.withdraw(id(1)).await;
    for (is_renaming, status) in [
        (true, StatusCode::SERVICE_UNAVAILABLE),
        (false, StatusCode::OK),
    ] {
        asked.world.publish(renamed(is_renaming)).await;
        let shown = [
            ("x-tidepool-hop", asked.secret.as_str()),
            ("x-tidepool-server", "127.0.0.1"),
            ("x-forwarded-host", "b.localhost"),
            ("x-forwarded-method", "GET"),
            ("x-forwarded-uri", "/x"),
            ("cookie", asked.cookie.as_str()),
        ];
        let asking = asked.world.ask(Method::GET, "127.0.0.1", QUESTION, &shown);
        let got = asking.await;
        assert_eq!(got.status, status, "{}", got.body);
        assert_eq!(got.headers.contains_key("retry-after"), is_renaming);
    }
}

#[tokio::test]
async fn what_is_vouched_for_is_for_the_instances_own_server() {
    let asked = world(Some("localhost"), &[[127, 0, 0, 1].into()]).await;
    for server in ["127.0.0.2", "", "nobody", "127.0.0.1, 127.0.0.1"] {
        let told = ask_of(&asked, "127.0.0.1", &asked.cookie, server).await;
        assert_eq!(told, (StatusCode::SERVICE_UNAVAILABLE, false), "{server}");
        let stranger = ask_of(&asked, "127.0.0.1", "x=1", server).await;
        assert_eq!(stranger, (StatusCode::UNAUTHORIZED, false), "{server}");
    }
}
