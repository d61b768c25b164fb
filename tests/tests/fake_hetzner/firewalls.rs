//! Firewalls: by name, by selector, in use.

use serde_json::{Value, json};
use tidepool_tests::fake_hetzner::Fault;

use crate::world::World;

fn rule() -> Value {
    json!({ "direction": "in", "protocol": "tcp", "port": "443", "source_ips": ["192.0.2.1/32"] })
}

async fn firewall(world: &World, more: &Value) -> anyhow::Result<u64> {
    let mut body = json!({ "name": "edge", "rules": [rule()] });
    for (field, value) in more.as_object().into_iter().flatten() {
        body[field] = value.clone();
    }
    let made = world.post("/firewalls", &body).await?;
    anyhow::ensure!(made.status == 201, "{made:?}");
    for action in made.rows("actions") {
        world.success(action["id"].as_u64().unwrap_or(0)).await?;
    }
    Ok(made.id("/firewall/id"))
}

#[tokio::test]
async fn a_firewall_of_a_creation_is_pending_and_then_applied() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = firewall(&world, &json!({})).await?;
    let ordered = world
        .order("a", &json!({ "firewalls": [{ "firewall": id }] }))
        .await?;
    let at = "/server/public_net/firewalls/0/status";
    assert_eq!(ordered.at(at), "pending");
    world.success(ordered.id("/next_actions/0/id")).await?;
    let server = ordered.id("/server/id");
    let shown = world.get(&format!("/servers/{server}")).await?;
    assert_eq!(shown.at(at), "applied");
    let path = format!("/firewalls/{id}");
    let used = world.get(&path).await?;
    assert_eq!(used.at("/firewall/applied_to/0/server/id"), server);
    assert_eq!(
        world.delete(&path).await?.refusal(),
        (422, "resource_in_use")
    );

    let target = json!([{ "type": "server", "server": { "id": server } }]);
    let apply = format!("{path}/actions/apply_to_resources");
    let again = world.post(&apply, &json!({ "apply_to": target })).await?;
    assert_eq!(again.refusal(), (422, "firewall_already_applied"));
    let remove = format!("{path}/actions/remove_from_resources");
    let removed = world
        .post(&remove, &json!({ "remove_from": target }))
        .await?;
    assert_eq!(removed.at("/actions/0/command"), "remove_firewall");
    world.success(removed.id("/actions/0/id")).await?;
    let again = world
        .post(&remove, &json!({ "remove_from": target }))
        .await?;
    assert_eq!(again.refusal(), (404, "firewall_resource_not_found"));
    assert_eq!(world.delete(&path).await?.status, 204);
    world.end().await
}

#[tokio::test]
async fn a_firewall_of_a_selector_follows_labels_late_and_locks_meanwhile() -> anyhow::Result<()> {
    let world = World::start().await?;
    let selector =
        json!([{ "type": "label_selector", "label_selector": { "selector": "role=pool" } }]);
    let id = firewall(&world, &json!({ "apply_to": selector })).await?;
    let server = world.server("a", &json!({})).await?;
    let path = format!("/servers/{server}");
    world
        .fake
        .faults()
        .next(1, Fault::ActionStuck, "apply_firewall");
    let stuck = world.server("b", &json!({})).await?;
    let stuck = format!("/servers/{stuck}");
    let pool = json!({ "labels": { "role": "pool" } });
    let labelled = world.put(&stuck, &pool).await?;
    assert_eq!(labelled.at("/server/locked"), true);
    let status = labelled.at("/server/public_net/firewalls/0/status");
    assert_eq!(status, "pending");
    let power_off = format!("{stuck}/actions/poweroff");
    let refused = world.post(&power_off, &json!({})).await?;
    assert_eq!(refused.refusal(), (423, "locked"));
    world.put(&path, &pool).await?;
    let applied = "/server/public_net/firewalls/0/status";
    world
        .until(&path, |answer| answer.at(applied) == "applied")
        .await?;
    let shown = world.get(&format!("/firewalls/{id}")).await?;
    let on = shown.at("/firewall/applied_to/0/applied_to_resources");
    assert_eq!(on.as_array().map(Vec::len), Some(2));
    let by_hand = json!({ "remove_from": [{ "type": "server", "server": { "id": server } }] });
    let remove = format!("/firewalls/{id}/actions/remove_from_resources");
    let refused = world.post(&remove, &by_hand).await?;
    assert_eq!(
        refused.refusal(),
        (422, "firewall_managed_by_label_selector")
    );

    world.put(&path, &json!({ "labels": {} })).await?;
    world
        .until(&path, |answer| {
            answer.at("/server/public_net/firewalls") == &json!([])
        })
        .await?;
    // In use as long as it has a selector, on whatever that selects.
    let path = format!("/firewalls/{id}");
    assert_eq!(
        world.delete(&path).await?.refusal(),
        (422, "resource_in_use")
    );
    let removed = world
        .post(&remove, &json!({ "remove_from": selector }))
        .await?;
    world.success(removed.id("/actions/0/id")).await?;
    assert_eq!(world.delete(&path).await?.status, 204);
    world.end().await
}

#[tokio::test]
async fn rules_are_checked_and_replaced_whole() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = firewall(&world, &json!({})).await?;
    let set = format!("/firewalls/{id}/actions/set_rules");
    for (wrong, what) in [
        (
            json!([{ "direction": "in", "protocol": "tcp", "source_ips": ["::/0"] }]),
            "no port",
        ),
        (
            json!([{ "direction": "in", "protocol": "icmp", "source_ips": ["10.0.0.1/8"] }]),
            "host bits",
        ),
        (Value::Array(vec![rule(); 51]), "too many"),
        (
            json!([{ "direction": "up", "protocol": "icmp" }]),
            "no direction",
        ),
    ] {
        let refused = world.post(&set, &json!({ "rules": wrong })).await?;
        assert_eq!(refused.refusal(), (422, "invalid_input"), "{what}");
    }
    let path = format!("/firewalls/{id}");
    assert_eq!(
        world
            .get(&path)
            .await?
            .at("/firewall/rules")
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    let cleared = world.post(&set, &json!({ "rules": [] })).await?;
    assert_eq!(cleared.at("/actions/0/command"), "set_firewall_rules");
    assert_eq!(world.get(&path).await?.at("/firewall/rules"), &json!([]));
    let taken = world.post("/firewalls", &json!({ "name": "edge" })).await?;
    assert_eq!(taken.refusal(), (409, "uniqueness_error"));
    let renamed = world.put(&path, &json!({ "name": "other" })).await?;
    assert_eq!(renamed.at("/firewall/name"), "other");
    world.end().await
}
