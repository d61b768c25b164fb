//! Images over HTTP: what may be tried and what may be promoted. The cloud is in memory and has two images, of which
//! the first is promoted.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tidepool_coordinator::{
    ambient::Clock as _,
    model::{Baseline, Conclusion, Figures},
    store::{EventStore as _, VerificationStore as _},
};

use crate::world::{Answer, World};

const FIGURES: Figures = Figures {
    boot_to_enrolled_ms: 30_000,
    boot_to_warm_ms: 60_000,
    gateway_start_ms: 20_000,
    first_turn_ms: 2_000,
    gateway_mib: Some(800),
    rest_mib: Some(140),
};

/// What a leader would write once it has looked.
async fn conclude(world: &World, trial: &Answer, problems: &[&str]) -> anyhow::Result<()> {
    let conclusion = Conclusion {
        figures: Some(FIGURES),
        baseline: Some(Baseline {
            image: "image-1".to_owned(),
            figures: FIGURES,
        }),
        problems: problems.iter().map(|&problem| problem.to_owned()).collect(),
    };
    let id = trial.text("/id").parse()?;
    // Ids are in order as long as time goes by.
    world.clock.advance(Duration::from_mins(1));
    let now = world.clock.now();
    let conclude = world.store.conclude_verification(id, &conclusion, now);
    conclude.await?;
    Ok(())
}

async fn promoted(world: &World) -> anyhow::Result<Vec<Value>> {
    let events = world.store.events_after(0, None, 1000).await?;
    let told = events
        .into_iter()
        .filter(|event| event.kind == "image.promoted");
    Ok(told.map(|event| event.data).collect())
}

#[tokio::test]
async fn images_are_listed_with_what_is_known_of_them() -> anyhow::Result<()> {
    let world = World::start().await?;
    let trial = world.post("/v1/images/image-2/verify", &json!({})).await?;
    assert_eq!((trial.status, trial.text("/state")), (202, "wanted"));
    let listed = world.get("/v1/images").await?;
    assert_eq!(listed.text("/trial/id"), trial.text("/id"));
    conclude(&world, &trial, &[]).await?;
    let listed = world.get("/v1/images").await?;
    assert_eq!(listed.at("/trial"), &Value::Null);
    let shown: Vec<_> = ["/data/0", "/data/1"]
        .map(|place| {
            let at = |field: &str| listed.at(&format!("{place}{field}")).clone();
            json!([
                at("/id"),
                at("/promoted"),
                at("/servers"),
                at("/verification/state")
            ])
        })
        .into();
    assert_eq!(
        shown,
        [
            json!(["image-1", true, 0, null]),
            json!(["image-2", false, 0, "passed"])
        ]
    );
    let figures = listed.at("/data/1/verification/figures");
    let start = json!({
        "name": "gateway_start", "unit": "ms", "measured": 20_000, "promoted": 20_000,
        "limit": 35_000, "good_enough": true,
    });
    assert_eq!(figures.get(2), Some(&start));
    world.end().await
}

#[tokio::test]
async fn one_image_is_tried_at_a_time_and_asking_again_is_the_same_trial() -> anyhow::Result<()> {
    let world = World::start().await?;
    let first = world.post("/v1/images/image-2/verify", &json!({})).await?;
    let again = world.post("/v1/images/image-2/verify", &json!({})).await?;
    assert_eq!(first.text("/id"), again.text("/id"));
    let other = world.post("/v1/images/image-1/verify", &json!({})).await?;
    assert_eq!((other.status, other.text("/code")), (409, "not_possible"));
    let unknown = world.post("/v1/images/image-9/verify", &json!({})).await?;
    assert_eq!(unknown.status, 404);
    let path = format!("/v1/verifications/{}", first.text("/id"));
    conclude(&world, &first, &["too slow"]).await?;
    let ended = world.get(&path).await?;
    assert_eq!(ended.text("/state"), "refused");
    assert_eq!(ended.at("/problems"), &json!(["too slow"]));
    assert_eq!(world.get("/v1/verifications/vrf_1").await?.status, 404);
    world.end().await
}

#[tokio::test]
async fn only_an_image_whose_last_verification_passed_is_promoted_and_told_once()
-> anyhow::Result<()> {
    let world = World::start().await?;
    let promote = async |image: &str| {
        let path = format!("/v1/images/{image}/promote");
        world.post(&path, &json!({})).await
    };
    assert_eq!(promote("image-9").await?.status, 404);
    let never = promote("image-2").await?;
    assert_eq!((never.status, never.text("/code")), (409, "not_possible"));
    // The one that is promoted already was not verified either.
    assert_eq!(promote("image-1").await?.status, 409);
    for (problems, status) in [(&["slow"][..], 409), (&[], 200), (&[], 200)] {
        let trial = world.post("/v1/images/image-2/verify", &json!({})).await?;
        conclude(&world, &trial, problems).await?;
        assert_eq!(promote("image-2").await?.status, status, "{problems:?}");
    }
    let told = json!({ "image": "image-2", "before": ["image-1"] });
    assert_eq!(promoted(&world).await?, [told]);
    let listed = world.get("/v1/images").await?;
    assert_eq!(listed.at("/data/0/promoted"), &json!(false));
    assert_eq!(listed.at("/data/1/promoted"), &json!(true));

    let trial = world.post("/v1/images/image-1/verify", &json!({})).await?;
    conclude(&world, &trial, &[]).await?;
    assert_eq!(promote("image-1").await?.at("/promoted"), &json!(true));
    let back = promoted(&world).await?;
    let back = back.last().context("a second promotion")?;
    assert_eq!(back, &json!({ "image": "image-1", "before": ["image-2"] }));
    world.end().await
}
