//! The books of cloud, store, agents and events, held against each other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::world::World;
use crate::{api::Api, fake_hetzner::Kind};

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn rows(value: &Value, field: &str) -> Vec<Value> {
    let rows = value.get(field).and_then(Value::as_array);
    rows.cloned().unwrap_or_default()
}

/// All that does not agree, a line each; nothing when all is well.
pub(super) async fn compare(
    world: &World,
    api: &Api,
    promised: &BTreeSet<String>,
) -> anyhow::Result<Vec<String>> {
    let pool = api.get("/pool").await?;
    let servers = rows(&pool, "servers");
    let mut instances = rows(&api.get("/instances?limit=200").await?, "data");
    for status in ["deleted", "purged", "failed"] {
        let path = format!("/instances?limit=200&status={status}");
        instances.extend(rows(&api.get(&path).await?, "data"));
    }
    let mut broken = cloud_against_store(world, &servers);
    broken.extend(pools(&pool));
    broken.extend(instances_against_servers(&instances, &servers));
    broken.extend(promises(&instances, promised));
    broken.extend(agents(world, &servers));
    broken.extend(events(&api.events().await?));
    Ok(broken)
}

/// 0 leaked servers, 0 missing ones, 0 left-over firewalls.
fn cloud_against_store(world: &World, servers: &[Value]) -> Vec<String> {
    let books = world.fake.books();
    let there: BTreeSet<_> = books
        .existing(Kind::Server)
        .map(|entry| entry.name.clone())
        .collect();
    let known: BTreeSet<_> = servers
        .iter()
        .map(|server| text(server, "name").to_owned())
        .collect();
    let leaked = there
        .difference(&known)
        .map(|name| format!("leaked server {name}"));
    let missing = known
        .difference(&there)
        .map(|name| format!("missing server {name}"));
    let firewalls = books.existing(Kind::Firewall).count();
    let twice = (firewalls != 1).then(|| format!("{firewalls} firewalls"));
    let mut names = BTreeSet::new();
    let again = books
        .ever(Kind::Server)
        .filter(|entry| !names.insert(entry.name.clone()))
        .map(|entry| format!("server {} was made twice", entry.name))
        .collect::<Vec<_>>();
    leaked.chain(missing).chain(twice).chain(again).collect()
}

/// Every pool is at its target, and nobody waits.
fn pools(pool: &Value) -> Vec<String> {
    let number = |pool: &Value, field| pool.get(field).and_then(Value::as_u64).unwrap_or(0);
    rows(pool, "pools")
        .iter()
        .filter(|pool| {
            number(pool, "pending") > 0 || number(pool, "warm") != number(pool, "target")
        })
        .map(|pool| format!("pool is not settled: {pool}"))
        .collect()
}

/// Every server is warm or one living instance's; every running instance has one, and what was asked of it.
fn instances_against_servers(instances: &[Value], servers: &[Value]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for server in servers {
        match (text(server, "state"), text(server, "instance_id")) {
            ("warm", "") => {}
            ("claimed", instance) if !instance.is_empty() => {
                if let Some(other) = owners.insert(instance, text(server, "name")) {
                    broken.push(format!(
                        "instance {instance} has two servers, {other} is one"
                    ));
                }
            }
            _ => broken.push(format!("server is not settled: {server}")),
        }
    }
    for instance in instances {
        let (id, status) = (text(instance, "id"), text(instance, "status"));
        let has_server = owners.remove(id).is_some();
        let is_settled = match status {
            "running" => {
                has_server
                    && instance.get("generation") == instance.get("observed_generation")
                    && text(instance, "health") == "ok"
            }
            // Its server is kept for as long as it can be brought back; one that waited has none.
            "deleted" => true,
            "purged" => !has_server,
            _ => false,
        };
        if !is_settled || instance.get("operation") != Some(&Value::Null) {
            broken.push(format!("instance is stuck: {instance}"));
        }
    }
    broken.extend(
        owners
            .keys()
            .map(|id| format!("instance {id} has a server and is not listed")),
    );
    broken
}

/// What was promised is there.
fn promises(instances: &[Value], promised: &BTreeSet<String>) -> Vec<String> {
    let running: BTreeSet<_> = instances
        .iter()
        .filter(|instance| text(instance, "status") == "running")
        .map(|instance| text(instance, "name").to_owned())
        .collect();
    promised
        .difference(&running)
        .map(|name| format!("instance {name} was promised and does not run"))
        .collect()
}

/// One agent for each server, which holds the document of the instance that the store says.
fn agents(world: &World, servers: &[Value]) -> Vec<String> {
    let mut broken = Vec::new();
    let running = world.programs("tidepool-agent").len();
    if running != servers.len() {
        broken.push(format!(
            "{running} agents run for {} servers",
            servers.len()
        ));
    }
    for server in servers {
        let instance = text(server, "instance_id");
        let held = world.ledger(text(server, "name"));
        let agrees = match (&held, instance) {
            (None, "") => true,
            (Some(held), instance) => !instance.is_empty() && held.contains(instance),
            (None, _) => false,
        };
        if !agrees {
            let name = text(server, "name");
            broken.push(format!(
                "the agent of {name} does not hold the document of `{instance}`"
            ));
        }
    }
    broken
}

/// The log has no gaps, and no server was ever given to two.
fn events(events: &[Value]) -> Vec<String> {
    let mut broken = Vec::new();
    for (expected, event) in (1u64..).zip(events) {
        if event.get("sequence").and_then(Value::as_u64) != Some(expected) {
            broken.push(format!("event {expected} is missing: {event}"));
            break;
        }
    }
    let mut claims: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for event in events
        .iter()
        .filter(|event| text(event, "type") == "server.claimed")
    {
        let owners = claims.entry(text(event, "server_id")).or_default();
        owners.insert(text(event, "instance_id"));
    }
    let doubles = claims.iter().filter(|(_, owners)| owners.len() > 1);
    broken
        .extend(doubles.map(|(server, owners)| format!("server {server} was given to {owners:?}")));
    broken
}
