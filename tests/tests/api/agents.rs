//! Rollouts of agents over HTTP: only what was signed and added can be rolled out.

use std::fs;

use serde_json::json;
use tidepool_certs::release::ReleaseKey;
use tidepool_coordinator::{
    ambient::Clock as _,
    artefacts::{self, Artefacts},
    model::AgentEnding,
    store::AgentStore as _,
};
use tidepool_shared::artefact::{Kind, Statement};

use crate::world::World;

fn publish(world: &World, version: &str) -> anyhow::Result<()> {
    let file = world.path("agent");
    fs::write(&file, version)?;
    let (sha256, size) = artefacts::measure(&file)?;
    let signed = ReleaseKey::create(&world.path("release.key"))?.sign(&Statement {
        kind: Kind::Agent,
        version: version.parse()?,
        sha256,
        size,
        replaces_up_to: None,
    });
    fs::write(
        artefacts::signed_beside(&file),
        serde_json::to_vec(&signed)?,
    )?;
    Artefacts::new(world.path("artefacts")).add(&file)?;
    Ok(())
}

#[tokio::test]
async fn a_rollout_needs_its_artefact_and_is_halted_once() -> anyhow::Result<()> {
    let world = World::start().await?;
    let server = world.warm_server(1).await?;
    world.store.agent_is(server, "0.1.0").await?;
    let begin = "/v1/agents/rollouts";
    let body = json!({ "version": "0.2.0" });
    assert_eq!(world.post(begin, &body).await?.status, 404);
    assert_eq!(
        world.post(begin, &json!({ "version": "2" })).await?.status,
        400
    );
    let none = world.post("/v1/agents/rollouts/halt", &json!({})).await?;
    assert_eq!(none.status, 409);
    assert!(world.get("/v1/agents").await?.at("/rollout").is_null());

    publish(&world, "0.2.0")?;
    let begun = world.post(begin, &body).await?;
    assert_eq!((begun.status, begun.at("/canary")), (201, &json!(1)));
    let rollout = begun.at("/id").as_u64().unwrap_or_default();
    world
        .store
        .put_in_rollout(rollout, server, world.clock.now())
        .await?;
    let (ending, now) = (AgentEnding::Kept, world.clock.now());
    world
        .store
        .agent_ended(server, rollout, ending, None, now)
        .await?;
    let agents = world.get("/v1/agents").await?;
    assert_eq!(agents.text("/agents/0/ending"), "kept");
    assert_eq!(agents.text("/rollout/version"), "0.2.0");

    let halted = world.post("/v1/agents/rollouts/halt", &json!({})).await?;
    assert_eq!(halted.text("/halted"), "an operator said so");
    let again = world.post("/v1/agents/rollouts/halt", &json!({})).await?;
    assert_eq!(again.status, 409);
    world.end().await
}
