//! The real OpenClaw behind the real Traefik, in a real browser that knows the test's authority: by a login link
//! and by a password.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tidepool_tests::{
    api::Api,
    browser::Browser,
    chaos::world::{Front, Gateway, World},
    deployment::free_port,
    doors::Doors,
    evidence,
    front::{self, Ports, Redis, Traefik},
    programs,
};
use tokio::time::{Instant, sleep};

use super::{COMPOSER, PATIENCE, say, text};

const DOMAIN: &str = "chaos.localhost";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_chats_by_https_through_traefik_with_and_without_a_password()
-> anyhow::Result<()> {
    let (Some(manifest), Some(program)) = (programs::real_image(), front::program()) else {
        eprintln!("SKIPPED: it needs the real OpenClaw and Traefik; run `./tidepool test`");
        return Ok(());
    };
    let (ports, redis_port) = (Ports::free()?, free_port()?);
    let password = "the-coordinators-own";
    evidence::note_secret(password);
    let front = Front {
        https_port: ports.https,
        redis: Some((
            format!("redis://tidepool:{password}@127.0.0.1:{redis_port}/1"),
            format!("http://127.0.0.1:{}", ports.status),
        )),
        domains: None,
    };
    let mut world = World::start_with(Gateway::Real(manifest), Some(front), None, 1).await?;
    // As if the coordinator had been started before.
    Doors::of(&world.state_dir())?;
    let mut traefik = Traefik::set_up(&program, &world.configuration(), DOMAIN, ports, &[]).await?;
    let redis = Redis::start(redis_port, Some(traefik.file("redis.acl"))).await?;
    traefik.start().await?;
    world.up_all().await?;
    let api = world.api(0).context("the coordinator is up")?;
    let warm = |pool: &Value| pool.pointer("/pools/0/warm") == Some(&json!(1));
    api.until("/pool", PATIENCE, warm).await?;
    let alice = api.create("alice", 60).await?;
    ensure!(text(&alice, "status") == "running", "{alice}");
    let service = own_route(api, &traefik).await?;

    let browser = Browser::trusting(&traefik.authority()).await?;
    let link = api.login_link(text(&alice, "id")).await?;
    ensure!(link.starts_with("https://"), "{link}");
    browser.page.goto(&link).await?;
    chats(&browser, "Hello through Traefik", "5-by-https").await?;
    ensure!(
        traefik.passed_to(&service).await? > 0.0,
        "the page did not come by Traefik's own route"
    );
    browser.close().await?;

    let path = format!("/instances/{}/basic_auth", text(&alice, "id"));
    let user = json!({ "username": "ann" });
    let (status, set) = api.send(Method::PUT, &path, &[], Some(&user)).await?;
    ensure!(status.is_success(), "{status}");
    let password = text(&set, "password");
    evidence::note_secret(password);
    // Another person's browser: no session.
    let browser = Browser::trusting(&traefik.authority()).await?;
    let url = text(&alice, "url");
    browser.page.goto(url).await?;
    ensure!(browser.evaluate(COMPOSER).await?.is_null());
    let with_password = url.replacen("https://", &format!("https://ann:{password}@"), 1);
    browser.page.goto(&with_password).await?;
    // What was said before comes by the WebSocket, which brings the password, too.
    reads(&browser, "you said: “hello through traefik”").await?;
    browser.screenshot("6-by-password").await?;

    let (status, _) = api.send(Method::DELETE, &path, &[], None).await?;
    ensure!(status.is_success(), "{status}");
    let shut = Instant::now() + PATIENCE;
    loop {
        browser.page.goto(url).await?;
        if browser
            .text()
            .await
            .to_lowercase()
            .contains("please sign in")
        {
            break;
        }
        ensure!(Instant::now() < shut, "{}", browser.text().await);
        sleep(Duration::from_millis(100)).await;
    }
    browser.screenshot("7-password-off").await?;
    browser.close().await?;
    drop((traefik, redis));
    world.end().await
}

/// The Control UI is there and connected; something is said, and answered by the demo model.
async fn chats(browser: &Browser, words: &str, picture: &str) -> anyhow::Result<()> {
    browser
        .until(&format!("{COMPOSER} !== null && !{COMPOSER}.disabled"))
        .await?;
    let deadline = Instant::now() + PATIENCE;
    // The page is still being built around it.
    while let Err(error) = say(browser, words).await {
        ensure!(Instant::now() < deadline, "{error:#}");
        sleep(Duration::from_millis(200)).await;
    }
    // The demo model repeats what was said.
    reads(browser, &format!("you said: “{}”", words.to_lowercase())).await?;
    browser.screenshot(picture).await.map(drop)
}

/// Waits for words, as long as a turn of a gateway may take on a busy machine.
async fn reads(browser: &Browser, words: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let read = browser.text().await;
        if read.to_lowercase().contains(words) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no `{words}`: {read}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// The name of Traefik's service for the only server, once alice's name leads there.
async fn own_route(api: &Api, traefik: &Traefik) -> anyhow::Result<String> {
    let pool = api.get("/pool").await?;
    let server = pool.pointer("/servers/0/id").and_then(Value::as_str);
    let name = server.context("the server has an id")?.replace("srv_", "s");
    let rule = json!(format!("Host(`alice.{DOMAIN}`)"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = traefik.shows("routers", &name).await?;
        if shown.as_ref().and_then(|router| router.get("rule")) == Some(&rule) {
            return Ok(name);
        }
        ensure!(Instant::now() < deadline, "{shown:?}: {}", traefik.log());
        sleep(Duration::from_millis(50)).await;
    }
}
