//! The whole path with the real OpenClaw, seen through a real browser.

#[path = "real_openclaw/disk.rs"]
mod disk;
#[path = "real_openclaw/models.rs"]
mod models;
#[path = "real_openclaw/traefik.rs"]
mod traefik;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use fantoccini::{
    elements::{Element, ElementRef},
    key::Key,
};
use serde_json::{Value, json};
use tidepool_tests::{
    browser::Browser,
    customer::{Customer, call},
    deployment::{Deployment, Options},
    programs,
};

/// Two gateways on two busy cores.
const PATIENCE: Duration = Duration::from_mins(4);

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[tokio::test]
async fn a_customer_chats_in_a_browser_and_a_second_customer_stays_out() -> anyhow::Result<()> {
    let Some(manifest) = programs::real_image() else {
        eprintln!("SKIPPED: TIDEPOOL_OPENCLAW_MANIFEST is not set; run `./tidepool test`");
        return Ok(());
    };
    let options = Options {
        pool_size: 2,
        max_servers: 2,
        starting_at_once: 1,
        manifest: Some(manifest),
        ..Options::default()
    };
    let tidepool = Deployment::start("browser", options).await?;
    let api = tidepool.api()?;
    let warm = |pool: &Value| {
        let servers = pool
            .get("servers")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        servers
            .iter()
            .filter(|server| text(server, "state") == "warm")
            .count()
            == 2
    };
    api.until("/pool", PATIENCE, warm).await?;
    for server in tidepool.servers() {
        disk::holds_nothing_of_the_warm_up(&server.join("state/home/.openclaw")).await?;
    }
    let alice = api.create("alice", 60).await?;
    let bob = api.create("bob", 60).await?;
    ensure!(text(&alice, "status") == "running", "{alice}");
    eprintln!(
        "alice's milliseconds: {}",
        alice.get("timings_ms").unwrap_or(&Value::Null)
    );

    no_trace_of_the_warm_up(&api, &alice).await?;
    chat_in_a_browser(&api, &alice).await?;
    models::usage_is_what_the_provider_counted(&api, &alice).await?;
    a_second_customer_stays_out(&api, &alice, &bob).await
}

/// A fresh customer sees no session, and no usage, of the turn that warmed the gateway up.
async fn no_trace_of_the_warm_up(
    api: &tidepool_tests::api::Api,
    instance: &Value,
) -> anyhow::Result<()> {
    let owner = Customer::owner_of(api, instance).await?;
    let (mut socket, _) = owner.hello().await?;
    let sessions = call(&mut socket, "sessions.list", json!({})).await?;
    let list = sessions
        .get("sessions")
        .and_then(Value::as_array)
        .context("a list of sessions")?;
    ensure!(
        list.is_empty(),
        "sessions before the first word: {sessions}"
    );
    let usage = call(&mut socket, "usage.cost", json!({})).await?;
    let tokens = usage
        .pointer("/totals/totalTokens")
        .and_then(Value::as_f64)
        .with_context(|| format!("no total of tokens: {usage}"))?;
    ensure!(
        tokens.abs() < f64::EPSILON,
        "usage before the first word: {usage}"
    );
    Ok(())
}

async fn chat_in_a_browser(api: &tidepool_tests::api::Api, instance: &Value) -> anyhow::Result<()> {
    let browser = Browser::start().await?;
    browser
        .page
        .goto(&api.login_link(text(instance, "id")).await?)
        .await?;
    // The UI's custom element is there, connected, and offers to type: no pairing, no token.
    browser
        .until(&format!("{COMPOSER} !== null && !{COMPOSER}.disabled"))
        .await?;
    browser.screenshot("1-signed-in").await?;
    let read = browser.text().await.to_lowercase();
    for obstacle in [
        "pairing required",
        "expects its token",
        "not_paired",
        "unauthorized",
    ] {
        ensure!(
            !read.contains(obstacle),
            "the page says `{obstacle}`: {read}"
        );
    }
    say(&browser, "Hello from the browser test").await?;
    browser.screenshot("2-said").await?;
    browser.until_text("demo model").await?;
    browser.screenshot("3-answered").await?;
    browser.close().await
}

async fn a_second_customer_stays_out(
    api: &tidepool_tests::api::Api,
    alice: &Value,
    bob: &Value,
) -> anyhow::Result<()> {
    let browser = Browser::start().await?;
    browser
        .page
        .goto(&api.login_link(text(bob, "id")).await?)
        .await?;
    browser.until(&format!("{COMPOSER} !== null")).await?;
    browser.page.goto(text(alice, "url")).await?;
    browser.screenshot("4-second-customer").await?;
    let read = browser.text().await;
    ensure!(
        browser.evaluate(COMPOSER).await?.is_null(),
        "bob's browser opened alice's UI: {read}"
    );
    let socket = "await new Promise(done => { const s = new WebSocket('ws://' + location.host + '/'); \
         s.onopen = () => done('open'); s.onerror = () => done('refused'); })";
    let script = format!("const done = arguments[0]; (async () => done({socket}))();");
    let opened = browser.page.execute_async(&script, Vec::new()).await?;
    ensure!(
        opened == "refused",
        "bob's browser opened alice's WebSocket"
    );
    browser.close().await
}

/// The field to type in, wherever the UI's shadow roots hide it.
const COMPOSER: &str = "(function find(root) { \
    const here = root.querySelector('textarea'); if (here) return here; \
    for (const element of root.querySelectorAll('*')) { \
      if (element.shadowRoot) { const inside = find(element.shadowRoot); if (inside) return inside; } \
    } return null; })(document)";

/// Types into the composer and presses Enter, key by key as a person would.
async fn say(browser: &Browser, words: &str) -> anyhow::Result<()> {
    let found = browser.evaluate(COMPOSER).await?;
    let id = found
        .as_object()
        .and_then(|reference| reference.values().next()?.as_str());
    let id = ElementRef::from(id.context("the composer is an element")?.to_owned());
    let composer = Element::from_element_id(browser.page.clone(), id);
    composer.click().await?;
    composer
        .send_keys(&format!("{words}{}", char::from(Key::Enter)))
        .await?;
    Ok(())
}
