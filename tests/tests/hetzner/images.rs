//! Snapshots: which there are, which one servers are made from, and how that is moved from one to another.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::Value;
use tidepool_coordinator::cloud::{Cloud as _, Fault, ObjectKind, Order};
use tidepool_tests::fake_hetzner::NewSnapshot;

use crate::world::{World, client, fault, order, settings};

/// A snapshot of this deployment's with one more label; its id.
fn snapshot(world: &World, more: (&str, &str), architecture: &str) -> anyhow::Result<String> {
    let labels = [
        ("role", "tidepool-image"),
        ("managed-by", "tidepool"),
        ("env", "test"),
        more,
    ];
    let snapshot = NewSnapshot {
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        architecture: architecture.to_owned(),
        ..NewSnapshot::default()
    };
    Ok(world.fake.add_snapshot(snapshot)?.to_string())
}

/// The label that says what is promoted, by snapshot.
async fn promoted(world: &World) -> anyhow::Result<BTreeMap<String, String>> {
    let answer = world
        .call(Method::GET, "/images?type=snapshot", &Value::Null)
        .await?;
    let images = answer["images"].as_array().cloned().unwrap_or_default();
    let label = |image: &Value| {
        let label = image["labels"]["promoted"].as_str()?;
        Some((image["id"].to_string(), label.to_owned()))
    };
    Ok(images.iter().filter_map(label).collect())
}

/// Without the snapshot that every world has, which is promoted and not ours.
async fn world() -> anyhow::Result<World> {
    let world = World::start().await?;
    let [only]: [_; 1] = promoted(&world)
        .await?
        .into_keys()
        .collect::<Vec<_>>()
        .try_into()
        .expect("every world has one");
    world
        .call(Method::DELETE, &format!("/images/{only}"), &Value::Null)
        .await?;
    Ok(world)
}

fn labels(pairs: &[(&String, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(id, label)| ((*id).clone(), (*label).to_owned()))
        .collect()
}

#[tokio::test]
async fn a_promotion_moves_the_label_and_back_and_touches_no_other_architecture()
-> anyhow::Result<()> {
    let world = world().await?;
    let old = snapshot(&world, ("promoted", "true"), "x86")?;
    let arm = snapshot(&world, ("promoted", "true"), "arm")?;
    let new = snapshot(&world, ("openclaw", "2026.9.7"), "x86")?;
    assert_eq!(world.cloud.image("cx23").await?, Some(old.clone()));
    let seen = world.cloud.images().await?;
    let seen: Vec<_> = seen
        .iter()
        .map(|image| (image.id.as_str(), image.is_promoted, image.size_bytes))
        .collect();
    let size = Some(2_300_000_000);
    let expected = [
        (old.as_str(), true, size),
        (arm.as_str(), true, size),
        (new.as_str(), false, size),
    ];
    assert_eq!(seen, expected);

    for _ in 0..2 {
        world.cloud.promote(&new).await?;
        let moved = labels(&[(&old, "former"), (&arm, "true"), (&new, "true")]);
        assert_eq!(promoted(&world).await?, moved);
    }
    assert_eq!(world.cloud.image("cx23").await?, Some(new.clone()));
    let kept = world.cloud.images().await?;
    let version = kept.last().and_then(|image| image.openclaw_version.clone());
    assert_eq!(version.as_deref(), Some("2026.9.7"), "other labels stay");

    world.cloud.promote(&old).await?;
    let back = labels(&[(&old, "true"), (&arm, "true"), (&new, "former")]);
    assert_eq!(promoted(&world).await?, back);
    assert_eq!(world.cloud.image("cx23").await?, Some(old));
    world.end().await
}

#[tokio::test]
async fn what_was_promoted_before_is_needed_as_far_back_as_three() -> anyhow::Result<()> {
    let world = world().await?;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(snapshot(&world, ("openclaw", "2026.9.6"), "x86")?);
    }
    let unused = snapshot(&world, ("openclaw", "2026.9.6"), "x86")?;
    for image in &made {
        world.cloud.promote(image).await?;
    }
    let needed = world.cloud.needed().await?;
    let is_needed = |id: &String| needed.contains(&(ObjectKind::Snapshot, id.clone()));
    assert!(made.iter().skip(1).all(is_needed));
    assert!(!is_needed(&made[0]) && !is_needed(&unused));
    world.end().await
}

#[tokio::test]
async fn what_is_not_ours_or_would_not_be_taken_is_not_promoted() -> anyhow::Result<()> {
    let world = World::start().await?;
    let foreign = promoted(&world).await?;
    let foreign = foreign.keys().next().expect("every world has one").clone();
    assert_eq!(fault(world.cloud.promote(&foreign).await), Fault::Invalid);
    assert_eq!(fault(world.cloud.promote("4711").await), Fault::Invalid);
    assert_eq!(fault(world.cloud.promote("nonsense").await), Fault::Invalid);
    // Ours is newer than the other's, and so is taken in its place.
    let ours = snapshot(&world, ("openclaw", "2026.9.6"), "x86")?;
    world.cloud.promote(&ours).await?;
    let theirs = NewSnapshot {
        labels: [("role", "tidepool-image"), ("promoted", "true")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..NewSnapshot::default()
    };
    let theirs = world.fake.add_snapshot(theirs)?.to_string();
    assert_eq!(fault(world.cloud.promote(&ours).await), Fault::Invalid);
    let before = promoted(&world).await?;
    assert_eq!(before.get(&theirs).map(String::as_str), Some("true"));

    let dir = tempfile::tempdir()?;
    let other = settings(&world.fake.url(), world.fake.token(), &dir)?;
    let other = client(tidepool_coordinator::cloud::hetzner::HetznerSettings {
        image_selector: "role=tidepool-image".to_owned(),
        ..other
    })?;
    assert_eq!(fault(other.promote(&ours).await), Fault::Invalid);
    world.end().await
}

#[tokio::test]
async fn a_server_is_made_of_the_image_that_its_order_names_if_it_fits() -> anyhow::Result<()> {
    let world = World::start().await?;
    let tried = snapshot(&world, ("openclaw", "2026.9.7"), "x86")?;
    let arm = snapshot(&world, ("openclaw", "2026.9.7"), "arm")?;
    assert!(world.cloud.fits(&tried, "cx23").await?);
    assert!(!world.cloud.fits(&arm, "cx23").await?);
    assert!(world.cloud.fits(&arm, "cax11").await?);
    assert!(!world.cloud.fits("4711", "cx23").await?);
    let order = Order {
        image: Some(tried.clone()),
        ..order("tidepool-trial-a")
    };
    let made = world.cloud.create(&order).await?;
    assert_eq!(made.image, Some(tried));
    let requests = world.fake.requests();
    let making = requests
        .iter()
        .find(|request| request.operation == "POST /servers");
    let image = making.map(|request| request.body["image"].to_string());
    assert_eq!(image, made.image);
    world.end().await
}
