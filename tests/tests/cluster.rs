//! Two coordinators over one PostgreSQL: either takes calls and links, and one goes on without the other.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tidepool_coordinator::store::throwaway::Throwaway;
use tidepool_tests::{api::Api, chaos::world::World};

const PATIENCE: Duration = Duration::from_mins(2);

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn warm(pool: &Value) -> u64 {
    let warm = pool.pointer("/pools/0/warm").and_then(Value::as_u64);
    warm.unwrap_or_default()
}

async fn world() -> anyhow::Result<Option<World>> {
    let Some(database) = Throwaway::database().await? else {
        return Ok(None);
    };
    let mut world = World::start(Some(database), 1).await?;
    world.up_all().await?;
    Ok(Some(world))
}

fn both(world: &World) -> anyhow::Result<[&Api; 2]> {
    let api = |turn| world.api(turn).context("a coordinator is away");
    Ok([api(0)?, api(1)?])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_call_to_either_coordinator_reaches_every_agent() -> anyhow::Result<()> {
    let Some(world) = world().await? else {
        return Ok(());
    };
    let [one, other] = both(&world)?;
    one.until("/pool", PATIENCE, |pool| warm(pool) >= 2).await?;
    for (number, api) in [one, other].into_iter().enumerate() {
        api.create(&format!("shared-{number}"), 60).await?;
    }
    for api in [one, other] {
        for number in 0..2 {
            let path = format!("/instances/shared-{number}");
            // Whoever holds the link has the log; the other one asks it.
            let log = api.get(&format!("{path}/logs?lines=5")).await?;
            ensure!(log.get("lines").is_some_and(Value::is_array), "{log}");
            let settled = |instance: &Value| {
                instance.get("operation") == Some(&Value::Null)
                    && instance.get("generation") == instance.get("observed_generation")
            };
            let before = api.until(&path, PATIENCE, settled).await?;
            let body = json!({ "messages": { "round": format!("{}", before["generation"]) } });
            let (status, answer) = api
                .send(Method::PATCH, &format!("{path}/config"), &[], Some(&body))
                .await?;
            ensure!(status.is_success(), "{status} {answer}");
            let after = api.until(&path, PATIENCE, settled).await?;
            ensure!(after["generation"] != before["generation"], "{after}");
        }
    }
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_work_goes_on_when_either_coordinator_is_killed() -> anyhow::Result<()> {
    let Some(mut world) = world().await? else {
        return Ok(());
    };
    let week = Duration::from_hours(24 * 7);
    for victim in 0..2 {
        both(&world)?[0]
            .until("/pool", PATIENCE, |pool| warm(pool) >= 2)
            .await?;
        world.kill_coordinator(victim, week).await?;
        let survivor = world
            .api(1 - victim)
            .context("the other one is away, too")?;
        // More than are warm: somebody must have servers made, and give them away.
        let names: Vec<_> = (0..4)
            .map(|number| format!("left-{victim}-{number}"))
            .collect();
        for name in &names {
            survivor
                .post("/instances", &json!({ "name": name }))
                .await?;
        }
        for name in &names {
            let running = |instance: &Value| text(instance, "status") == "running";
            survivor
                .until(&format!("/instances/{name}"), PATIENCE, running)
                .await?;
        }
        world.up_all().await?;
    }
    world.end().await
}
