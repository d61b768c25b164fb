//! Another OpenClaw for who has one already: one instance at a time, in waves, and with agents that die meanwhile.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tidepool_tests::{
    api::Api,
    customer::Customer,
    deployment::{Deployment, Options},
};
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_mins(3);
const OLD: &str = "2026.9.6";
const GOOD: &str = "2026.9.6-r20261101";
const BAD: &str = "2026.9.6-r20261102";
const BETTER: &str = "2026.9.6-r20261103";

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn at_rest(instance: &Value) -> bool {
    instance.get("operation") == Some(&Value::Null)
        && instance.get("generation") == instance.get("observed_generation")
}

/// A deployment with these instances at rest.
async fn running(name: &str, instances: &[&str]) -> anyhow::Result<(Deployment, Api)> {
    let servers = u32::try_from(instances.len())?;
    let options = Options {
        pool_size: servers,
        max_servers: servers,
        releases: vec![
            (GOOD.to_owned(), Vec::new()),
            (BAD.to_owned(), vec!["STUB_BROKEN=1".to_owned()]),
            (BETTER.to_owned(), Vec::new()),
        ],
        ..Options::default()
    };
    let tidepool = Deployment::start(name, options).await?;
    let api = tidepool.api()?;
    for instance in instances {
        api.create(instance, 60).await?;
        let path = format!("/instances/{instance}");
        api.until(&path, PATIENCE, at_rest).await?;
    }
    Ok((tidepool, api))
}

/// Orders a version; the operation when it is over.
async fn upgrade(api: &Api, instance: &str, version: &str) -> anyhow::Result<Value> {
    let path = format!("/instances/{instance}/upgrade");
    let asked = api.post(&path, &json!({ "version": version })).await?;
    over(api, &asked).await
}

async fn over(api: &Api, asked: &Value) -> anyhow::Result<Value> {
    let id = asked.pointer("/operation/id").and_then(Value::as_str);
    let path = format!("/operations/{}", id.context("an operation")?);
    let is_over = |operation: &Value| matches!(text(operation, "state"), "succeeded" | "failed");
    api.until(&path, PATIENCE, is_over).await
}

async fn version(api: &Api, instance: &str) -> anyhow::Result<String> {
    let shown = api.get(&format!("/instances/{instance}")).await?;
    Ok(text(&shown, "openclaw_version").to_owned())
}

/// The only server's directory of this name.
fn place(tidepool: &Deployment, name: &str) -> anyhow::Result<PathBuf> {
    let server = tidepool.servers().pop().context("the only server")?;
    Ok(server.join("state").join(name))
}

fn schema(tidepool: &Deployment) -> anyhow::Result<String> {
    Ok(fs::read_to_string(place(
        tidepool,
        "home/.openclaw/stub-schema",
    )?)?)
}

async fn count(api: &Api, kind: &str) -> anyhow::Result<usize> {
    let events = api.events().await?;
    Ok(events
        .iter()
        .filter(|event| text(event, "type") == kind)
        .count())
}

#[tokio::test]
async fn an_instance_gets_another_version_and_keeps_the_old_one_if_the_new_one_is_bad()
-> anyhow::Result<()> {
    let (tidepool, api) = running("upgrade", &["alice"]).await?;
    let alice = api.get("/instances/alice").await?;
    ensure!(text(&alice, "openclaw_version") == OLD, "{alice}");
    let done = upgrade(&api, "alice", GOOD).await?;
    ensure!(text(&done, "state") == "succeeded", "{done}");
    ensure!(version(&api, "alice").await? == GOOD);
    ensure!(schema(&tidepool)? == GOOD);
    ensure!(place(&tidepool, "releases")?.join(GOOD).is_dir(), "fetched");
    api.until("/instances/alice", PATIENCE, |it| {
        at_rest(it) && text(it, "health") == "ok"
    })
    .await?;
    let customer = Customer::owner_of(&api, &alice).await?;
    ensure!(customer.is_owner().await?);

    let failed = upgrade(&api, "alice", BAD).await?;
    ensure!(text(&failed, "state") == "failed", "{failed}");
    ensure!(text(&failed, "error").contains("ended"), "{failed}");
    ensure!(version(&api, "alice").await? == GOOD);
    ensure!(schema(&tidepool)? == GOOD, "of the version that runs");
    let rollout = [
        "upgrade", "start", "2026.9.9", "--tier", "basic", "--soak", "1",
    ];
    for nowhere in [&rollout[..], &["instance", "upgrade", "alice", "2026.9.9"]] {
        let refused = tidepool.tidepool(nowhere).await?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(
            !refused.status.success() && said.contains("artefact"),
            "{said}"
        );
    }

    // A failed order is not tried again by another document.
    let patched = tidepool.tidepool(&["instance", "restart", "alice"]).await?;
    ensure!(patched.status.success());
    api.until("/instances/alice", PATIENCE, |it| {
        at_rest(it) && text(it, "health") == "ok"
    })
    .await?;
    ensure!(version(&api, "alice").await? == GOOD);
    ensure!(count(&api, "upgrade.started").await? == 2);
    ensure!(count(&api, "upgrade.done").await? == 1);
    ensure!(count(&api, "upgrade.failed").await? == 1);
    Ok(())
}

#[tokio::test]
async fn a_version_is_rolled_out_in_waves_and_halted_by_a_failure() -> anyhow::Result<()> {
    let (tidepool, api) = running("rollout", &["alice", "bob", "carol"]).await?;
    let run = async |arguments: &[&str]| {
        let output = tidepool.tidepool(arguments).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{arguments:?}: {said} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(said)
    };
    let said = run(&["instance", "pin", "carol", OLD]).await?;
    ensure!(said.contains("carol stays at 2026.9.6"), "{said}");
    let path = "/instances/carol/upgrade";
    let body = json!({ "version": GOOD });
    let (status, problem) = api
        .send(reqwest::Method::POST, path, &[], Some(&body))
        .await?;
    ensure!(status == reqwest::StatusCode::CONFLICT, "{problem}");

    let start = [
        "upgrade", "start", GOOD, "--tier", "basic", "--soak", "1", "--wave", "100",
    ];
    run(&start).await?;
    let state = |wanted: &'static str| {
        move |all: &Value| all.pointer("/data/0/state").and_then(Value::as_str) == Some(wanted)
    };
    let finished = api.until("/rollouts", PATIENCE, state("finished")).await?;
    let reached = finished
        .pointer("/data/0/members")
        .and_then(Value::as_array);
    ensure!(reached.map(Vec::len) == Some(2), "{finished}");
    for (name, expected) in [("alice", GOOD), ("bob", GOOD), ("carol", OLD)] {
        ensure!(version(&api, name).await? == expected, "{name}");
    }

    let bad = ["upgrade", "start", BAD, "--tier", "basic", "--soak", "1"];
    run(&bad).await?;
    let halted = api.until("/rollouts", PATIENCE, state("halted")).await?;
    let reached = halted.pointer("/data/0/members").and_then(Value::as_array);
    ensure!(reached.map(Vec::len) == Some(1), "one canary: {halted}");
    let said = run(&["upgrade", "show"]).await?;
    ensure!(said.contains("halted") && said.contains("ended"), "{said}");
    run(&["upgrade", "resume", "--tier", "basic"]).await?;
    run(&start).await?;
    let said = run(&["instance", "pin", "carol", "--none"]).await?;
    ensure!(said.contains("carol is not pinned"), "{said}");
    for (kind, times) in [
        ("rollout.started", 3),
        ("rollout.resumed", 1),
        ("rollout.superseded", 1),
    ] {
        ensure!(count(&api, kind).await? == times, "{kind}");
    }
    Ok(())
}

/// Kills the only agent when its journal says that it is at this stage; false when the order was over before that was
/// seen.
async fn kill_at(tidepool: &Deployment, stage: &str) -> anyhow::Result<bool> {
    let journal = place(tidepool, "upgrade/journal.json")?;
    let said = format!("\"stage\": \"{stage}\"");
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut is_begun = false;
    while Instant::now() < deadline {
        let text = fs::read_to_string(&journal).unwrap_or_default();
        if text.contains(&said) {
            for agent in tidepool.programs("tidepool-agent") {
                kill(Pid::from_raw(agent), Signal::SIGKILL)?;
            }
            return Ok(true);
        }
        let is_at_a_stage = text.contains("\"stage\"");
        if is_begun && !is_at_a_stage {
            return Ok(false);
        }
        is_begun |= is_at_a_stage;
        tokio::task::yield_now().await;
    }
    Ok(false)
}

#[tokio::test]
async fn an_agent_that_is_killed_at_any_stage_ends_with_one_version_on_its_own_state()
-> anyhow::Result<()> {
    let (tidepool, api) = running("upgrade-killed", &["alice"]).await?;
    // So that a copy takes long enough to be seen.
    let large = place(&tidepool, "home/.openclaw/large")?;
    fs::write(large, vec![7; 64 << 20])?;
    let mut expected = OLD;
    for (stage, version_ordered, state) in [
        ("saving", GOOD, "succeeded"),
        ("restoring", BAD, "failed"),
        ("trying", BETTER, "succeeded"),
    ] {
        let path = "/instances/alice/upgrade";
        let asked = api
            .post(path, &json!({ "version": version_ordered }))
            .await?;
        let killed = kill_at(&tidepool, stage).await?;
        // A way back is a few renames, and may be over before it is seen.
        ensure!(killed || stage == "restoring", "never {stage}");
        let over = over(&api, &asked).await?;
        ensure!(text(&over, "state") == state, "killed at {stage}: {over}");
        if state == "succeeded" {
            expected = version_ordered;
        }
        let well = |it: &Value| at_rest(it) && text(it, "health") == "ok";
        api.until("/instances/alice", PATIENCE, well).await?;
        ensure!(
            version(&api, "alice").await? == expected,
            "killed at {stage}"
        );
        ensure!(schema(&tidepool)? == expected, "killed at {stage}");
    }
    let alice = api.get("/instances/alice").await?;
    let customer = Customer::owner_of(&api, &alice).await?;
    ensure!(customer.is_owner().await?);
    Ok(())
}
