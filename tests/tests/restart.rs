//! A restart that was asked for through the API ends when the gateway is back, and not before.

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tidepool_tests::{
    api::Api,
    deployment::{Deployment, Options},
};

/// Our own deadlines for a wedged restart are 45 s and 10 s.
const PATIENCE: Duration = Duration::from_mins(3);

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A deployment with one running, configured instance on a stub with these switches.
async fn running(name: &str, stub: &[&str]) -> anyhow::Result<(Deployment, Api, Value)> {
    let options = Options {
        pool_size: 1,
        max_servers: 1,
        stub: stub.iter().map(|switch| (*switch).to_owned()).collect(),
        ..Options::default()
    };
    let tidepool = Deployment::start(name, options).await?;
    let api = tidepool.api()?;
    let alice = api.create("alice", 60).await?;
    let at_rest = |instance: &Value| {
        instance.get("observed_generation") == Some(&json!(1))
            && instance.get("operation") == Some(&Value::Null)
            && text(instance, "health") == "ok"
    };
    api.until("/instances/alice", PATIENCE, at_rest).await?;
    Ok((tidepool, api, alice))
}

/// How often the only gateway has said that it is ready.
fn starts(tidepool: &Deployment) -> anyhow::Result<usize> {
    let server = tidepool.servers().pop().context("the only server")?;
    let log = fs::read_to_string(server.join("state/gateway/gateway.log"))?;
    Ok(log
        .lines()
        .filter(|line| line.ends_with("[gateway] ready"))
        .count())
}

/// Asks for a restart; the path of its operation.
async fn restart(api: &Api, instance: &Value) -> anyhow::Result<String> {
    let path = format!("/instances/{}/restart", text(instance, "id"));
    let asked = api.post(&path, &json!({})).await?;
    let operation = asked.pointer("/operation/id").and_then(Value::as_str);
    Ok(format!(
        "/operations/{}",
        operation.context("an operation")?
    ))
}

fn is_over(operation: &Value) -> bool {
    matches!(text(operation, "state"), "succeeded" | "failed")
}

#[tokio::test]
async fn a_restart_ends_when_the_gateway_has_restarted() -> anyhow::Result<()> {
    // Long enough that an operation which ends at the signal is caught.
    let (tidepool, api, alice) = running("restart", &["STUB_BOOT_MS=2000"]).await?;
    let before = starts(&tidepool)?;
    let operation = restart(&api, &alice).await?;
    let over = api.until(&operation, PATIENCE, is_over).await?;
    ensure!(text(&over, "state") == "succeeded", "{over}");
    ensure!(
        starts(&tidepool)? == before + 1,
        "{} starts, {before} before",
        starts(&tidepool)?
    );
    let after = api.get("/instances/alice").await?;
    ensure!(
        after.get("generation") == after.get("observed_generation"),
        "{after}"
    );
    Ok(())
}

#[tokio::test]
async fn a_restart_that_wedges_is_seen_to_its_end_by_force_and_told() -> anyhow::Result<()> {
    let (tidepool, api, alice) = running("wedged-restart", &["STUB_WEDGE=1"]).await?;
    let operation = restart(&api, &alice).await?;
    // While nobody answers that is said, and the operation is not over.
    let unwell = |instance: &Value| text(instance, "health") != "ok";
    api.until("/instances/alice", PATIENCE, unwell).await?;
    let under_way = api.get(&operation).await?;
    ensure!(!is_over(&under_way), "{under_way}");

    let over = api.until(&operation, PATIENCE, is_over).await?;
    ensure!(text(&over, "state") == "succeeded", "{over}");
    let steps = over.get("steps").and_then(Value::as_array);
    let told = steps
        .into_iter()
        .flatten()
        .any(|step| text(step, "name") == "restart_by_force");
    ensure!(told, "not a word of force: {over}");
    ensure!(starts(&tidepool)? == 2, "{} starts", starts(&tidepool)?);
    let pool = api.get("/pool").await?;
    ensure!(
        pool.pointer("/servers/0/gateway_starts") == Some(&json!(2)),
        "{pool}"
    );
    Ok(())
}
