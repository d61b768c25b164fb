//! From a new snapshot to servers of it, by the command line: tried, promoted, rolled out, and back again. The cloud
//! is the fake, its servers are real agents, the coordinator is the real one.

use std::{collections::BTreeMap, process::Output, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tidepool_shared::database_url;
use tidepool_tests::{
    api::Api,
    chaos::world::World,
    fake_hetzner::{Kind, NewSnapshot},
    programs,
};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

const PATIENCE: Duration = Duration::from_mins(2);

/// Of the pool in the world's configuration.
const FLOOR: usize = 2;

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A snapshot that was made and not promoted; its id.
fn snapshot(world: &World) -> anyhow::Result<String> {
    let labels = [
        ("role", "tidepool-image"),
        ("managed-by", "tidepool"),
        ("env", "chaos"),
        ("openclaw", "2026.9.6"),
    ];
    let snapshot = NewSnapshot {
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..NewSnapshot::default()
    };
    Ok(world.fake.add_snapshot(snapshot)?.to_string())
}

async fn tidepool(world: &World, arguments: &[&str]) -> anyhow::Result<Output> {
    Command::new(programs::program("tidepool")?)
        .arg("image")
        .args(arguments)
        .arg("--json")
        .arg("--config")
        .arg(world.configuration())
        .env(database_url::VARIABLE, world.database_url())
        .output()
        .await
        .context("run `tidepool image`")
}

fn good(output: &Output) -> anyhow::Result<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The images that idle servers were made from, one entry a server.
fn idle(pool: &Value) -> Vec<String> {
    let servers = pool.get("servers").and_then(Value::as_array);
    let warm = servers
        .into_iter()
        .flatten()
        .filter(|server| text(server, "state") == "warm" && text(server, "tier") == "basic");
    warm.map(|server| text(server, "image").to_owned())
        .collect()
}

/// Waits until idle servers are of this image alone; never fewer than the floor meanwhile.
async fn rolled_to(api: &Api, image: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pool = api.get("/pool").await?;
        let idle = idle(&pool);
        ensure!(idle.len() >= FLOOR, "below the floor: {pool}");
        if idle.iter().all(|of| of == image) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not rolled out: {pool}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the cloud has no server of a trial any more; how many there ever were.
async fn trials_are_over(world: &World) -> anyhow::Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    let is_trial = |name: &str| name.starts_with("tidepool-trial-");
    loop {
        let books = world.fake.books();
        let left = books
            .existing(Kind::Server)
            .filter(|server| is_trial(&server.name))
            .count();
        if left == 0 {
            let ever = books.ever(Kind::Server);
            return Ok(ever.filter(|server| is_trial(&server.name)).count());
        }
        ensure!(Instant::now() < deadline, "servers of trials are left");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn started() -> anyhow::Result<(World, Api)> {
    let mut world = World::start(None, 11).await?;
    world.up_all().await?;
    let api = world.api(0).context("it is up")?.clone();
    let warm = |pool: &Value| idle(pool).len() >= FLOOR;
    api.until("/pool", PATIENCE, warm).await?;
    Ok((world, api))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verified_snapshot_is_promoted_and_rolled_out_and_claimed_servers_stay()
-> anyhow::Result<()> {
    let (world, api) = started().await?;
    let listed = good(&tidepool(&world, &["list"]).await?)?;
    let old = listed.pointer("/data/0/id").and_then(Value::as_str);
    let old = old.context("the first snapshot")?.to_owned();
    api.create("alice", 60).await?;
    let new = snapshot(&world)?;

    let refused = tidepool(&world, &["promote", &new]).await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(1), "{said}");
    ensure!(said.contains("verify it first"), "{said}");

    let verified = tidepool(&world, &["verify", &new]).await?;
    let trial = good(&verified)?;
    ensure!(text(&trial, "state") == "passed", "{trial}");
    ensure!(text(&trial, "openclaw_version") == "2026.9.6", "{trial}");
    ensure!(trial["compared_with"].is_null(), "{trial}");
    let figures = trial["figures"].as_array().context("figures")?;
    let figures: BTreeMap<_, _> = figures
        .iter()
        .map(|figure| (text(figure, "name"), figure["measured"].as_u64()))
        .collect();
    let [enrolled, warm] = ["boot_to_enrolled", "boot_to_warm"].map(|name| figures[name]);
    ensure!(enrolled <= warm && warm > figures["first_turn"], "{trial}");
    let progress = String::from_utf8_lossy(&verified.stderr);
    ensure!(progress.contains(" s  "), "{progress}");
    ensure!(trials_are_over(&world).await? == 1);

    let warm = |pool: &Value| idle(pool).len() >= FLOOR;
    api.until("/pool", PATIENCE, warm).await?;
    let promoted = good(&tidepool(&world, &["promote", &new]).await?)?;
    ensure!(promoted["promoted"] == json!(true), "{promoted}");
    rolled_to(&api, &new).await?;

    // The customer's server stays, alone of its image once those that went are gone.
    let stays = |images: &Value| {
        let images = images["data"].as_array();
        let of_old = images.and_then(|all| all.iter().find(|image| text(image, "id") == old));
        of_old.is_some_and(|image| image["servers"] == 1 && image["promoted"] == json!(false))
    };
    api.until("/images", PATIENCE, stays).await?;
    let alice = api.get("/instances/alice").await?;
    ensure!(text(&alice, "status") == "running", "{alice}");

    // Back, by the same way; the one before is compared with.
    ensure!(!tidepool(&world, &["promote", &old]).await?.status.success());
    let trial = good(&tidepool(&world, &["verify", &old]).await?)?;
    ensure!(text(&trial, "compared_with") == new, "{trial}");
    for _ in 0..2 {
        good(&tidepool(&world, &["promote", &old]).await?)?;
    }
    rolled_to(&api, &old).await?;
    let events = api.events().await?;
    let kinds = |kind: &str| {
        events
            .iter()
            .filter(|event| text(event, "type") == kind)
            .count()
    };
    ensure!(kinds("image.verified") == 2 && kinds("image.promoted") == 2);
    // What the commands came in with is of no use any more.
    let tokens = api.get("/tokens").await?;
    let lent = tokens["data"].as_array().context("tokens")?;
    let lent = lent
        .iter()
        .filter(|token| text(token, "name").contains("--config"));
    ensure!(lent.clone().count() >= 8, "{tokens}");
    ensure!(
        lent.clone().all(|token| token["revoked_at"].is_string()),
        "{tokens}"
    );
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_outlives_who_asked_and_who_led_and_its_server_goes() -> anyhow::Result<()> {
    let (mut world, api) = started().await?;
    let new = snapshot(&world)?;
    let trial = api
        .post(&format!("/images/{new}/verify"), &json!({}))
        .await?;
    let path = format!("/verifications/{}", text(&trial, "id"));
    // Nobody could stop it between the order and the cloud's answer better than this does.
    let asked = |trial: &Value| !matches!(text(trial, "stage"), "wanted" | "planned");
    api.until(&path, PATIENCE, asked).await?;
    world.kill_coordinator(0, Duration::ZERO).await?;
    world.bring_back().await?;
    let ended = |trial: &Value| trial["finished_at"].is_string();
    let trial = api.until(&path, PATIENCE, ended).await?;
    // Whether its agent was told its token before the crash is chance, and decides how it ended.
    let state = text(&trial, "state");
    ensure!(matches!(state, "passed" | "refused"), "{trial}");
    trials_are_over(&world).await?;
    let gone = |pool: &Value| {
        let servers = pool["servers"].as_array();
        servers.is_some_and(|all| all.iter().all(|one| text(one, "tier") == "basic"))
    };
    api.until("/pool", PATIENCE, gone).await?;
    world.end().await
}
