//! Versions of OpenClaw over the API: orders, pins, and rollouts as an operator drives them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn an_order_is_an_operation_and_a_pin_refuses_it() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.warm_server(1).await?;
    let created = world.create("anna").await?;
    let body = json!({ "version": "2026.9.6" });
    let order = || world.call(Method::POST, "/v1/instances/anna/upgrade", &[], Some(&body));
    assert_eq!(order().await?.status, 409, "it does not run yet");
    world.run(created.text("/id")).await?;
    let pin = "/v1/instances/anna/pin";
    let old = json!({ "version": "2026.9.5" });
    let pinned = world.call(Method::PUT, pin, &[], Some(&old)).await?;
    assert_eq!(
        (pinned.status, pinned.text("/openclaw_pin")),
        (200, "2026.9.5")
    );
    let refused = order().await?;
    assert_eq!(
        (refused.status, refused.text("/code")),
        (409, "not_possible")
    );
    let free = world.call(Method::DELETE, pin, &[], None).await?;
    assert_eq!(free.at("/openclaw_pin"), &Value::Null);
    let nowhere = json!({ "version": "2026.9.7" });
    let refused = world.post("/v1/instances/anna/upgrade", &nowhere).await?;
    assert_eq!(
        (refused.status, refused.text("/errors/0/code")),
        (422, "unknown_version")
    );
    let ordered = order().await?;
    assert_eq!(
        (ordered.status, ordered.text("/operation/kind")),
        (202, "upgrade")
    );
    let again = order().await?;
    assert_eq!(again.text("/code"), "operation_in_progress");
    for wrong in ["latest", "../2026.9.6", ""] {
        let body = json!({ "version": wrong });
        let answer = world.call(Method::PUT, pin, &[], Some(&body)).await?;
        assert_eq!(
            (answer.status, answer.text("/code")),
            (422, "invalid"),
            "{wrong}"
        );
    }
    world.end().await
}

#[tokio::test]
async fn a_rollout_is_started_halted_and_resumed() -> anyhow::Result<()> {
    let world = World::start().await?;
    let rollouts = "/v1/rollouts";
    let pool = world.get("/v1/pool").await?;
    let tier = pool.text("/pools/0/tier").to_owned();
    for (wrong, pointer) in [
        (json!({ "tier": "nowhere", "version": "2026.9.7" }), "/tier"),
        (json!({ "tier": tier, "version": "latest" }), "/version"),
        // No image has it, and nothing brings it.
        (json!({ "tier": tier, "version": "2026.9.7" }), "/version"),
        (
            json!({ "tier": tier, "version": "2026.9.6", "wave_percent": 0 }),
            "/wave_percent",
        ),
    ] {
        let answer = world.post(rollouts, &wrong).await?;
        assert_eq!(
            (answer.status, answer.text("/errors/0/pointer")),
            (422, pointer)
        );
    }
    let halt = format!("{rollouts}/{tier}/halt");
    let unknown = world.call(Method::POST, &halt, &[], None).await?;
    assert_eq!(unknown.status, 404);
    let wish = json!({ "tier": tier, "version": "2026.9.6" });
    let key = [("idempotency-key", "one")];
    let start = || world.call(Method::POST, rollouts, &key, Some(&wish));
    let started = start().await?;
    assert_eq!((started.status, started.text("/state")), (201, "running"));
    assert_eq!(started.at("/canaries"), &json!(1));
    assert_eq!(
        (
            started.at("/left"),
            started.at("/ready"),
            started.at("/reached")
        ),
        (&json!(0), &json!(0), &json!(0))
    );
    let again = start().await?;
    assert_eq!(again.text("/id"), started.text("/id"), "asked once");
    let halted = world.call(Method::POST, &halt, &[], None).await?;
    assert_eq!((halted.status, halted.text("/state")), (200, "halted"));
    assert_eq!(
        world.call(Method::POST, &halt, &[], None).await?.status,
        409
    );
    let resume = format!("{rollouts}/{tier}/resume");
    let resumed = world.call(Method::POST, &resume, &[], None).await?;
    assert_eq!(resumed.text("/state"), "running");
    let all = world.get(rollouts).await?;
    assert_eq!(all.at("/data").as_array().map(Vec::len), Some(1));
    world.end().await
}
