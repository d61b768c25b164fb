//! kill -9 of anything, and many customers at once: nothing is lost, nothing is doubled, no gateway
//! is restarted for the coordinator's sake.

#[path = "survival/chaos.rs"]
mod chaos;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tidepool_tests::{
    api::Api,
    customer::Customer,
    deployment::{Deployment, Options},
};
use tokio::{task::JoinSet, time::sleep};

const PATIENCE: Duration = Duration::from_mins(2);

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn rows(value: &Value, field: &str) -> Vec<Value> {
    value
        .get(field)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

fn in_state(pool: &Value, state: &str) -> usize {
    rows(pool, "servers")
        .iter()
        .filter(|server| text(server, "state") == state)
        .count()
}

/// Which server each instance has, and that no server has two.
async fn bindings(api: &Api) -> anyhow::Result<BTreeMap<String, String>> {
    let pool = api.get("/pool").await?;
    let mut bound = BTreeMap::new();
    for server in rows(&pool, "servers")
        .iter()
        .filter(|server| text(server, "state") == "claimed")
    {
        let instance = text(server, "instance_id").to_owned();
        ensure!(!instance.is_empty(), "claimed by nobody: {server}");
        let twice = bound.insert(instance, text(server, "id").to_owned());
        ensure!(twice.is_none(), "an instance has two servers: {pool}");
    }
    Ok(bound)
}

#[tokio::test]
async fn of_64_creates_on_a_pool_of_8_eight_get_a_server_and_the_rest_wait_in_order()
-> anyhow::Result<()> {
    // The ceiling keeps the pool from growing while the 64 arrive.
    let options = Options {
        pool_size: 8,
        max_servers: 8,
        starting_at_once: 8,
        ..Options::default()
    };
    let tidepool = Deployment::start("sixty-four", options).await?;
    let api = tidepool.api()?;
    api.until("/pool", PATIENCE, |pool| in_state(pool, "warm") == 8)
        .await?;
    let mut creates = JoinSet::new();
    for number in 0..64 {
        let api = api.clone();
        creates.spawn(async move {
            let body = json!({ "name": format!("many-{number}") });
            api.send(Method::POST, "/instances", &[], Some(&body)).await
        });
    }
    let mut ids = BTreeSet::new();
    while let Some(created) = creates.join_next().await {
        let (status, instance) = created??;
        ensure!(status.is_success(), "{status} {instance}");
        ids.insert(text(&instance, "id").to_owned());
    }
    ensure!(ids.len() == 64, "{} distinct instances", ids.len());
    ensure!(bindings(&api).await?.len() == 8);
    let pending = api.get("/instances?status=pending&limit=200").await?;
    let mut waiting: Vec<_> = rows(&pending, "data")
        .iter()
        .map(|instance| {
            let position = instance
                .pointer("/pending/queue_position")
                .and_then(Value::as_u64);
            (position.unwrap_or(0), text(instance, "id").to_owned())
        })
        .collect();
    waiting.sort();
    ensure!(
        waiting.iter().map(|row| row.0).eq(1..=56),
        "positions: {waiting:?}"
    );
    // The order is the one in which they were accepted, which the gapless event log tells; the
    // clock was read before that, so it may say otherwise of two that arrived together.
    let accepted: Vec<_> = api
        .events()
        .await?
        .iter()
        .filter(|event| text(event, "type") == "instance.created")
        .map(|event| text(event, "instance_id").to_owned())
        .collect();
    ensure!(accepted.len() == 64, "{} were accepted", accepted.len());
    let places: Vec<_> = waiting.iter().map(|row| row.1.clone()).collect();
    ensure!(
        accepted.ends_with(&places),
        "waiting {places:?}, accepted {accepted:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_coordinator_killed_while_customers_arrive_loses_and_doubles_nothing()
-> anyhow::Result<()> {
    let options = Options {
        pool_size: 4,
        max_servers: 24,
        starting_at_once: 8,
        ..Options::default()
    };
    let mut tidepool = Deployment::start("killed-coordinator", options).await?;
    let mut rng = StdRng::seed_from_u64(7);
    let mut promised = BTreeSet::new();
    for round in 0..6u32 {
        let api = tidepool.api()?;
        let mut creates = JoinSet::new();
        for number in 0..3 {
            let api = api.clone();
            let name = format!("round-{round}-{number}");
            creates.spawn(async move {
                let body = json!({ "name": name, "external_id": name });
                let answer = api.send(Method::POST, "/instances", &[], Some(&body)).await;
                answer
                    .ok()
                    .filter(|(status, _)| status.is_success())
                    .map(|_| name)
            });
        }
        sleep(Duration::from_millis(rng.random_range(0..400))).await;
        tidepool.kill_coordinator().await?;
        while let Some(created) = creates.join_next().await {
            promised.extend(created?);
        }
        tidepool.up().await?;
    }
    // Every create is repeated, as a client would after a lost answer: what was made is found again.
    let api = tidepool.api()?;
    for round in 0..6u32 {
        for number in 0..3 {
            let name = format!("round-{round}-{number}");
            let body = json!({ "name": name, "external_id": name });
            let (status, answer) = api
                .send(Method::POST, "/instances", &[], Some(&body))
                .await?;
            ensure!(
                status.is_success() || status.as_u16() == 409,
                "{status} {answer}"
            );
            promised.insert(name);
        }
    }
    for name in &promised {
        let running = |instance: &Value| text(instance, "status") == "running";
        api.until(&format!("/instances/{name}"), PATIENCE, running)
            .await?;
    }
    ensure!(
        bindings(&api).await?.len() == promised.len(),
        "instances and servers do not match"
    );
    Ok(())
}

#[tokio::test]
async fn a_coordinator_restart_touches_no_gateway() -> anyhow::Result<()> {
    let options = Options {
        pool_size: 1,
        ..Options::default()
    };
    let mut tidepool = Deployment::start("untouched-gateway", options).await?;
    let alice = tidepool.api()?.create("alice", 60).await?;
    let owner = Customer::owner_of(&tidepool.api()?, &alice).await?;
    let before = gateways(&tidepool);
    ensure!(!before.is_empty(), "no gateway was found");
    for _ in 0..5 {
        tidepool.kill_coordinator().await?;
        tidepool.up().await?;
    }
    let api = tidepool.api()?;
    let healthy = |instance: &Value| text(instance, "health") == "ok";
    api.until("/instances/alice", PATIENCE, healthy).await?;
    ensure!(
        owner.is_owner().await?,
        "the session did not outlive the coordinator"
    );
    let after = gateways(&tidepool);
    ensure!(
        before.is_subset(&after),
        "gateways before {before:?}, after {after:?}"
    );
    let starts = |pool: &Value| {
        rows(pool, "servers").iter().all(|server| {
            text(server, "state") != "claimed" || server.get("gateway_starts") == Some(&json!(1))
        })
    };
    api.until("/pool", PATIENCE, starts).await?;
    // What five dead coordinators left behind goes with the sixth, the proxy included.
    let one = tokio::time::timeout(PATIENCE, async {
        while tidepool.programs("tidepool-proxy").len() != 1 {
            sleep(Duration::from_millis(20)).await;
        }
    });
    one.await.context("not one proxy")?;
    tidepool.stop().await?;
    let left = tidepool.processes();
    ensure!(left.is_empty(), "left running: {left:?}");
    Ok(())
}

#[tokio::test]
async fn a_killed_agent_comes_back_to_the_same_gateway() -> anyhow::Result<()> {
    let options = Options {
        pool_size: 1,
        ..Options::default()
    };
    let tidepool = Deployment::start("killed-agent", options).await?;
    let api = tidepool.api()?;
    let alice = api.create("alice", 60).await?;
    let owner = Customer::owner_of(&api, &alice).await?;
    api.until("/pool", PATIENCE, |pool| in_state(pool, "warm") == 1)
        .await?;
    let before = gateways(&tidepool);
    for _ in 0..5 {
        for agent in tidepool.programs("tidepool-agent") {
            kill(Pid::from_raw(agent), Signal::SIGKILL).context("kill the agent")?;
        }
        ensure!(
            owner.is_owner().await?,
            "the server did not go on without its agent"
        );
        sleep(Duration::from_millis(700)).await;
    }
    // A change reaches the server through the agent that came back.
    let path = "/instances/alice/config";
    let body = json!({ "agents": { "entries": { "main": { "identity": { "name": "Coral" } } } } });
    let (status, answer) = api.send(Method::PATCH, path, &[], Some(&body)).await?;
    ensure!(status.is_success(), "{status} {answer}");
    let applied = |instance: &Value| instance.get("observed_generation") == Some(&json!(2));
    api.until("/instances/alice", PATIENCE, applied).await?;
    ensure!(
        before.is_subset(&gateways(&tidepool)),
        "a gateway was restarted"
    );
    Ok(())
}

#[tokio::test]
async fn a_killed_gateway_is_started_again() -> anyhow::Result<()> {
    let options = Options {
        pool_size: 1,
        ..Options::default()
    };
    let tidepool = Deployment::start("killed-gateway", options).await?;
    let api = tidepool.api()?;
    let alice = api.create("alice", 60).await?;
    let owner = Customer::owner_of(&api, &alice).await?;
    for round in 1..=3 {
        for gateway in gateways(&tidepool) {
            kill(Pid::from_raw(gateway), Signal::SIGKILL).context("kill the gateway")?;
        }
        let back = |pool: &Value| {
            rows(pool, "servers").iter().any(|server| {
                text(server, "state") == "claimed"
                    && text(server, "health") == "ok"
                    && server.get("gateway_starts").and_then(Value::as_i64) > Some(round)
            })
        };
        api.until("/pool", PATIENCE, back).await?;
        ensure!(
            owner.is_owner().await?,
            "the owner was not let in after the restart"
        );
    }
    Ok(())
}

#[tokio::test]
async fn agents_and_gateways_killed_while_they_boot_claim_and_reconfigure_converge()
-> anyhow::Result<()> {
    let options = Options {
        pool_size: 2,
        max_servers: 12,
        starting_at_once: 4,
        ..Options::default()
    };
    let tidepool = Deployment::start("killed-at-work", options).await?;
    let api = tidepool.api()?;
    let mut rng = StdRng::seed_from_u64(11);
    for round in 0..5u32 {
        let name = format!("busy-{round}");
        let body = json!({ "name": name });
        let (status, answer) = api
            .send(Method::POST, "/instances", &[], Some(&body))
            .await?;
        ensure!(status.is_success(), "{status} {answer}");
        for _ in 0..3 {
            sleep(Duration::from_millis(rng.random_range(0..250))).await;
            let program = if rng.random_bool(0.5) {
                "tidepool-agent"
            } else {
                "stub-gateway"
            };
            let victims: Vec<_> = tidepool.programs(program).into_iter().collect();
            if let Some(victim) = victims.get(rng.random_range(0..victims.len().max(1))) {
                // It may have ended by itself meanwhile.
                kill(Pid::from_raw(*victim), Signal::SIGKILL).ok();
            }
            // Refused while the instance is being created, taken later: both are fine.
            let patch = json!({ "messages": { "round": round } });
            let path = format!("/instances/{name}/config");
            api.send(Method::PATCH, &path, &[], Some(&patch)).await?;
        }
    }
    for round in 0..5u32 {
        let path = format!("/instances/busy-{round}");
        let settled = |instance: &Value| {
            text(instance, "status") == "running"
                && text(instance, "health") == "ok"
                && instance.get("generation") == instance.get("observed_generation")
                && instance.get("operation") == Some(&Value::Null)
        };
        api.until(&path, PATIENCE, settled).await?;
    }
    ensure!(
        bindings(&api).await?.len() == 5,
        "instances and servers do not match"
    );
    Ok(())
}

fn gateways(tidepool: &Deployment) -> BTreeSet<i32> {
    tidepool.programs("stub-gateway")
}
