//! Snapshots: made, listed, changed, deleted, and too big or of the wrong kind for a server.

use std::time::Duration;

use serde_json::{Value, json};
use tidepool_tests::fake_hetzner::{Kind, NewSnapshot, Settings};

use crate::world::World;

#[tokio::test]
async fn a_snapshot_is_made_of_a_server_and_servers_of_it() -> anyhow::Result<()> {
    let mut settings = Settings::quick().with_room("cx23", "nbg1", 5);
    settings.pace.snapshot = Duration::from_secs(2);
    let world = World::with(settings).await?;
    let id = world.server("a", &json!({})).await?;
    let body = json!({ "type": "snapshot", "description": "golden", "labels": { "image": "1" } });
    let made = world
        .post(&format!("/servers/{id}/actions/create_image"), &body)
        .await?;
    assert_eq!(made.at("/image/status"), "creating");
    let image = made.id("/image/id");
    let early = world.order("b", &json!({ "image": image })).await?;
    assert_eq!(early.refusal(), (422, "invalid_input"));
    let path = format!("/images/{image}");
    assert_eq!(world.delete(&path).await?.refusal(), (423, "locked"));
    world.success(made.id("/action/id")).await?;
    let query = "/images?type=snapshot&label_selector=image%3D1&architecture=x86&status=available\
                 &sort=created:desc";
    let found = world.get(query).await?;
    assert_eq!(found.at("/images/0/id"), image);
    assert_eq!(found.at("/images/0/name"), &Value::Null);
    assert_eq!(found.at("/images/0/created_from/id"), id);
    // By number and by text.
    for (name, key) in [("b", json!(image)), ("c", json!(image.to_string()))] {
        assert_eq!(
            world.order(name, &json!({ "image": key })).await?.status,
            201
        );
    }
    let changed = world
        .put(&path, &json!({ "labels": {}, "description": "old" }))
        .await?;
    assert_eq!(changed.at("/image/labels"), &json!({}));
    let protect = format!("{path}/actions/change_protection");
    world.post(&protect, &json!({ "delete": true })).await?;
    assert_eq!(world.delete(&path).await?.refusal(), (423, "protected"));
    world.post(&protect, &json!({ "delete": false })).await?;
    assert_eq!(world.delete(&path).await?.status, 204);
    assert_eq!(world.fake.books().existing(Kind::Image).count(), 0);
    let servers = world.get("/servers?name=b").await?;
    assert_eq!(
        servers.at("/servers/0/image/id"),
        image,
        "its servers live on"
    );
    let gone = world.order("d", &json!({ "image": image })).await?;
    assert_eq!(gone.refusal(), (404, "not_found"));
    world.end().await
}

#[tokio::test]
async fn an_image_must_fit_the_server_type() -> anyhow::Result<()> {
    let world = World::start().await?;
    let big = NewSnapshot {
        disk_size_gb: 80,
        ..NewSnapshot::default()
    };
    let arm = NewSnapshot {
        architecture: "arm".to_owned(),
        ..NewSnapshot::default()
    };
    for (snapshot, message) in [
        (big, "image disk is bigger than server type disk"),
        (arm, "image has incompatible architecture"),
    ] {
        let image = world.fake.add_snapshot(snapshot)?;
        let refused = world.order("a", &json!({ "image": image })).await?;
        assert_eq!(refused.refusal(), (422, "invalid_input"));
        assert_eq!(refused.at("/error/message"), message);
    }
    let fits = world.snapshot()?;
    assert_eq!(
        world.order("a", &json!({ "image": fits })).await?.status,
        201
    );
    let system = world
        .get("/images?type=system&architecture=arm&name=debian-13")
        .await?;
    assert_eq!(system.rows("images").len(), 1);
    let path = format!("/images/{}", system.id("/images/0/id"));
    assert_eq!(world.delete(&path).await?.status, 422);
    world.end().await
}
