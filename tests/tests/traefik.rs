//! The real Traefik in front of the edge, as `tidepool init traefik` sets it up: TLS, sign-in, WebSocket.

#[path = "traefik/domains.rs"]
mod domains;
#[path = "traefik/own_routes.rs"]
mod own_routes;
#[path = "traefik/visitor.rs"]
mod visitor;

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use reqwest::{Client, StatusCode, redirect::Policy};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidepool_tests::{
    api::Api,
    chaos::world::{Front, World},
    doors::Doors,
    evidence,
    front::{self, Places, Ports, Traefik},
    programs,
};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use self::visitor::Visitor;

const PATIENCE: Duration = Duration::from_mins(2);
const DOMAIN: &str = "chaos.localhost";

fn here() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

async fn alice(world: &World) -> anyhow::Result<(&Api, String)> {
    let api = world.api(0).context("the coordinator is up")?;
    let warm = |pool: &Value| pool.pointer("/pools/0/warm").and_then(Value::as_u64) >= Some(1);
    api.until("/pool", PATIENCE, warm).await?;
    let alice = api.create("alice", 60).await?;
    ensure!(alice.get("status") == Some(&json!("running")), "{alice}");
    let id = alice.get("id").and_then(Value::as_str);
    Ok((api, id.context("an id")?.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_comes_by_https_through_traefik_and_is_counted_by_their_own_address()
-> anyhow::Result<()> {
    let Some(program) = front::program() else {
        return Ok(());
    };
    let ports = Ports::free()?;
    let front = Front {
        https_port: ports.https,
        redis: None,
        domains: None,
    };
    let mut world = World::start_behind(Some(front), None, 1).await?;
    world.up_all().await?;
    let mut traefik = Traefik::set_up(&program, &world.configuration(), DOMAIN, ports, &[]).await?;
    traefik.start().await?;
    let (api, id) = alice(&world).await?;
    let mut visitor = Visitor::of(&traefik, here())?;
    ensure!(visitor.get("alice", "/").send().await?.status() == StatusCode::UNAUTHORIZED);
    ensure!(visitor.get("nobody", "/").send().await?.status() == StatusCode::NOT_FOUND);
    visitor.sign_in(&api.login_link(&id).await?).await?;
    let settings = visitor
        .get("alice", "/control-ui-config.json")
        .send()
        .await?;
    ensure!(settings.status() == StatusCode::OK, "{}", settings.status());
    let challenge = visitor.challenge(&visitor.url("alice")).await?;
    let event = challenge.map_err(|status| anyhow::anyhow!("refused: {status}"))?;
    ensure!(
        event.get("event") == Some(&json!("connect.challenge")),
        "{event}"
    );
    let foreign = visitor.challenge("https://evil.example").await?;
    ensure!(foreign == Err(StatusCode::FORBIDDEN), "{foreign:?}");
    // Plain http is sent to https.
    let plain = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .build()?;
    let plain = plain.get(format!("http://127.0.0.1:{}/x", traefik.ports.http));
    let moved = plain
        .header("host", format!("alice.{DOMAIN}"))
        .send()
        .await?;
    ensure!(moved.status().is_redirection(), "{}", moved.status());
    let to = moved
        .headers()
        .get("location")
        .context("where to")?
        .to_str()?;
    ensure!(to.starts_with(&format!("https://alice.{DOMAIN}")), "{to}");
    guesses_are_counted_by_visitor(api, &id, &traefik).await?;
    drop(traefik);
    world.end().await
}

/// Whoever guesses a password too often is stopped, and nobody else behind the same Traefik; what visitors say
/// about where they come from changes nothing.
async fn guesses_are_counted_by_visitor(
    api: &Api,
    id: &str,
    traefik: &Traefik,
) -> anyhow::Result<()> {
    let path = format!("/instances/{id}/basic_auth");
    let body = json!({ "username": "alice" });
    let (status, answer) = api
        .send(reqwest::Method::PUT, &path, &[], Some(&body))
        .await?;
    ensure!(status.is_success(), "{status}");
    let password = answer.get("password").and_then(Value::as_str);
    let password = password.context("a password")?.to_owned();
    evidence::note_secret(&password);
    let (guesser, other) = (
        Visitor::of(traefik, Ipv4Addr::new(127, 0, 0, 2).into())?,
        Visitor::of(traefik, Ipv4Addr::new(127, 0, 0, 3).into())?,
    );
    let guess = async |visitor: &Visitor, password: &str, from: &str| {
        let request = visitor.get("alice", "/control-ui-config.json");
        let request = request.basic_auth("alice", Some(password));
        let answer = request.header("x-forwarded-for", from).send().await?;
        anyhow::Ok(answer.status())
    };
    let known = Instant::now() + PATIENCE;
    while guess(&other, &password, "127.0.0.9").await? != StatusCode::OK {
        ensure!(Instant::now() < known, "the password is not known");
        sleep(Duration::from_millis(50)).await;
    }
    let mut stopped = false;
    for number in 0..30 {
        let from = format!("198.51.100.{number}");
        let status = guess(&guesser, &format!("wrong-{number}"), &from).await?;
        stopped |= status == StatusCode::TOO_MANY_REQUESTS;
    }
    ensure!(stopped, "30 guesses in a row");
    let status = guess(&other, "wrong", "127.0.0.2").await?;
    ensure!(status == StatusCode::UNAUTHORIZED, "{status}");
    Ok(())
}

/// Whoever sets up another Traefik locks nobody out: not Redis the first one, and not the edge.
#[tokio::test]
async fn another_traefik_is_told_the_secrets_of_the_first_until_new_ones_are_wanted()
-> anyhow::Result<()> {
    let folder = TempDir::new()?;
    Doors::of(folder.path())?;
    let configuration = folder.path().join("tidepool.toml");
    let ports = Ports::free()?;
    let places = Places {
        state_dir: folder.path(),
        domain: DOMAIN,
        redis: "redis://tidepool:own@127.0.0.1:6379/1",
        edge_port: 8080,
        ports,
        server_port: 8080,
    };
    places.write(&configuration)?;
    let set_up = async |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let written = Command::new(programs::program("tidepool")?)
            .args(["init", "traefik", "--config"])
            .arg(&configuration)
            .arg("--out")
            .arg(&out)
            .args(["--email", "a@example.com", "--dns", "hetzner"])
            .args(["--https-port", &ports.https.to_string()])
            .args(more)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&written.stderr);
        ensure!(written.status.success(), "{said}");
        let line = |file: &str, word: &str| {
            let text = std::fs::read_to_string(out.join(file))?;
            let line = text.lines().find(|line| line.contains(word));
            anyhow::Ok(line.context("it is there")?.to_owned())
        };
        let password = line("traefik.yml", "    password: ")?;
        let secret = line("dynamic.yml", "    hop: ")?;
        anyhow::Ok((password, secret, line("redis.acl", "user traefik ")?))
    };
    let first = set_up("a", &[]).await?;
    ensure!(set_up("b", &[]).await? == first);
    ensure!(set_up("a", &[]).await? == first);
    let (password, secret, acl) = set_up("b", &["--rotate"]).await?;
    ensure!(password != first.0 && secret != first.1);
    // The first Traefik stays in until it is told.
    let before = first.2.split(' ').find(|word| word.starts_with('#'));
    ensure!(acl.contains(before.context("a hash")?), "{acl}");
    ensure!(acl.matches(" #").count() == 2, "{acl}");
    ensure!(std::fs::read_to_string(places.secrets())?.lines().count() == 2);
    ensure!(set_up("a", &[]).await? == (password, secret, acl));
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_and_writes_nothing() -> anyhow::Result<()> {
    let world = World::start(None, 1).await?;
    let folder = TempDir::new()?;
    let out = folder.path().join("traefik");
    let init = async |more: &[&str]| {
        Command::new(programs::program("tidepool")?)
            .args(["init", "traefik", "--config"])
            .arg(world.configuration())
            .arg("--out")
            .arg(&out)
            .args(more)
            .output()
            .await
            .context("run tidepool")
    };
    for (arguments, code, says) in [
        (
            &["--email", "a@example.com", "--dns", "hetzner"][..],
            1,
            "edge.scheme",
        ),
        (&["--email", "a@example.com"], 2, "--dns"),
        (&[], 2, "--email"),
    ] {
        let refused = init(arguments).await?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(code), "{arguments:?}: {said}");
        ensure!(said.contains(says), "{arguments:?}: {said}");
    }
    ensure!(!out.exists());
    world.end().await
}
