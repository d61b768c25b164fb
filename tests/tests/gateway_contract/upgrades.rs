//! Another version in the place of the one that runs, and the way back, as a process and in a container.

use std::fs;

use tidepool_agent::{
    converge::{
        body::{Gateway as _, Probe, Standing},
        openclaw::OpenClaw,
    },
    upgrade::UpgradeStage,
};
use tidepool_shared::{
    document::OpenClawOrder,
    manifest::{ImageManifest, Release},
};

use crate::{
    SHORT,
    bench::{Bench, patient},
};

const NEXT: &str = "2026.9.6-r20261101";

/// The next version, which is the stub with these switches.
fn next(bench: &Bench, switches: &[&str]) -> Release {
    let own = bench.release();
    let switches = switches.iter().map(|switch| (*switch).to_owned());
    Release {
        openclaw_version: NEXT.to_owned(),
        gateway: own
            .gateway
            .iter()
            .cloned()
            .chain([format!("STUB_VERSION={NEXT}")])
            .chain(switches)
            .collect(),
        ..own
    }
}

fn order(number: u64, version: &str) -> OpenClawOrder {
    OpenClawOrder {
        number,
        version: version.parse().expect("a version"),
        signed: None,
    }
}

/// Gives the order as the loop does, until it is begun or refused.
async fn give(openclaw: &OpenClaw, order: &OpenClawOrder) {
    openclaw.order(order).await.expect("an order");
    while openclaw.standing().order == Some(order.number) && openclaw.standing().stage.is_none() {
        openclaw.prepared().await;
        openclaw.order(order).await.expect("an order");
    }
}

/// Does what the loop does until the order is over.
async fn carry_out(openclaw: &OpenClaw) -> Standing {
    for _ in 0..8 {
        let standing = openclaw.standing();
        let Some(stage) = standing.stage else {
            return standing;
        };
        openclaw.proceed(stage).await.expect("a stage");
    }
    panic!("no end: {:?}", openclaw.standing());
}

/// The version that the gateway's state is of.
fn schema(bench: &Bench) -> String {
    fs::read_to_string(bench.place.state_dir().join("stub-schema")).expect("the state's version")
}

/// Whether the version that has the word is up, on its own state.
async fn runs(bench: &Bench, openclaw: &OpenClaw, version: &str) {
    openclaw.start().await.expect("start");
    assert!(bench.gateway.started_within(SHORT.start).await);
    assert_eq!(openclaw.probe().await, Probe::Started);
    assert_eq!(bench.gateway.version().await.as_deref(), Some(version));
    assert_eq!(openclaw.standing().state.version, version);
    assert_eq!(schema(bench), version);
}

async fn an_order_is_carried_out(bench: &Bench, next: Release) {
    let openclaw = bench.openclaw_beside(&[next], SHORT);
    fs::write(bench.place.state_dir().join("of-the-customer"), "dear").expect("a file");
    give(&openclaw, &order(1, NEXT)).await;
    let over = carry_out(&openclaw).await;
    assert_eq!(over.state.settled, 1);
    assert_eq!(over.state.failed, None);
    runs(bench, &openclaw, NEXT).await;
    let kept = bench.upgrades().join("state");
    let read = |name: &str| fs::read_to_string(kept.join(name)).expect("the state of before");
    assert_eq!(read("stub-schema"), "2026.9.6");
    assert_eq!(read("of-the-customer"), "dear");
    give(&openclaw, &order(2, NEXT)).await;
    assert_eq!(openclaw.standing().state.settled, 2, "it has that one");
}

async fn a_version_that_does_not_prove_itself_goes_back(bench: &Bench, next: Release) {
    let openclaw = bench.openclaw_beside(&[next], SHORT);
    give(&openclaw, &order(1, NEXT)).await;
    let over = carry_out(&openclaw).await;
    assert_eq!(over.state.settled, 1);
    let failed = over.state.failed.expect("a reason");
    assert!(failed.contains("ended"), "{failed}");
    runs(bench, &openclaw, "2026.9.6").await;
    assert!(!bench.upgrades().join("state").exists(), "it is back");
}

#[tokio::test]
async fn an_order_brings_the_new_version_and_its_own_state() {
    let bench = Bench::stub(&[]).await;
    let next = next(&bench, &[]);
    an_order_is_carried_out(&bench, next).await;
    bench.end().await;
}

#[tokio::test]
async fn a_version_that_ends_on_trial_goes_back_with_the_state_of_before() {
    let bench = Bench::stub(&[]).await;
    let next = next(&bench, &["STUB_BROKEN=1"]);
    a_version_that_does_not_prove_itself_goes_back(&bench, next).await;
    bench.end().await;
}

#[tokio::test]
async fn a_version_that_never_starts_or_is_another_goes_back_too() {
    for (switch, why) in [
        ("STUB_BOOT_MS=600000", "did not start"),
        ("STUB_VERSION=2026.9.5", "says that it is version"),
    ] {
        let bench = Bench::stub(&[("STUB_VERSION", "2026.9.5")]).await;
        let mut next = next(&bench, &[]);
        next.gateway = bench.release().gateway;
        next.gateway.push(switch.to_owned());
        let deadlines = tidepool_agent::reload::Deadlines {
            trial: std::time::Duration::from_secs(2),
            ..SHORT
        };
        let openclaw = bench.openclaw_beside(&[next], deadlines);
        give(&openclaw, &order(1, NEXT)).await;
        let over = carry_out(&openclaw).await;
        let failed = over.state.failed.expect("a reason");
        assert!(failed.contains(why), "{failed}");
        runs(&bench, &openclaw, "2026.9.5").await;
        bench.end().await;
    }
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_refused_with_the_gateway_untouched() {
    let bench = Bench::stub(&[]).await;
    let before = bench.recorded_process();
    let mut gone = next(&bench, &[]);
    gone.gateway[0] = "/nowhere/node".to_owned();
    let openclaw = bench.openclaw_beside(&[gone], SHORT);
    for (number, version, why) in [
        (1, "2026.9.5", "is not on this server"),
        (2, NEXT, "is not there"),
    ] {
        give(&openclaw, &order(number, version)).await;
        let standing = openclaw.standing();
        assert_eq!((standing.stage, standing.state.settled), (None, number));
        let failed = standing.state.failed.expect("a reason");
        assert!(failed.contains(why), "{failed}");
    }
    let large = fs::File::create(bench.place.state_dir().join("large")).expect("a file");
    large.set_len(1 << 43).expect("a hole");
    let openclaw = bench.openclaw_beside(&[next(&bench, &[])], SHORT);
    give(&openclaw, &order(3, NEXT)).await;
    let failed = openclaw.standing().state.failed.expect("a reason");
    assert!(failed.contains("MiB are needed"), "{failed}");
    assert_eq!(bench.recorded_process(), before);
    assert!(bench.gateway.started_within(SHORT.start).await);
    bench.end().await;
}

/// A file of the customer's in a state.
fn customers(state: &std::path::Path) -> String {
    fs::read_to_string(state.join("of-the-customer")).expect("the customer's file")
}

#[tokio::test]
async fn an_order_for_the_version_of_before_brings_its_own_state_back() {
    let bench = Bench::stub(&[]).await;
    let openclaw = bench.openclaw_beside(&[next(&bench, &[])], SHORT);
    let state = bench.place.state_dir();
    fs::write(state.join("of-the-customer"), "before").expect("a file");
    give(&openclaw, &order(1, NEXT)).await;
    carry_out(&openclaw).await;
    fs::write(state.join("of-the-customer"), "after").expect("a file");
    give(&openclaw, &order(2, "2026.9.6")).await;
    assert_eq!(openclaw.standing().stage, Some(UpgradeStage::Restoring));
    let over = carry_out(&openclaw).await;
    assert_eq!((over.state.settled, over.state.failed), (2, None));
    runs(&bench, &openclaw, "2026.9.6").await;
    assert_eq!(customers(&state), "before");
    openclaw.tidy().await.expect("tidy");
    assert_eq!(customers(&bench.upgrades().join("discarded-2")), "after");
    // An agent that starts now knows it as well, and the way on is open again.
    let openclaw = bench.openclaw_beside(&[next(&bench, &[])], SHORT);
    assert_eq!(openclaw.standing().state.version, "2026.9.6");
    give(&openclaw, &order(3, NEXT)).await;
    carry_out(&openclaw).await;
    runs(&bench, &openclaw, NEXT).await;
    bench.end().await;
}

#[tokio::test]
async fn what_was_written_during_a_trial_is_put_aside_and_its_place_is_told() {
    let bench = Bench::stub(&[]).await;
    let openclaw = bench.openclaw_beside(&[next(&bench, &[])], SHORT);
    let state = bench.place.state_dir();
    fs::write(state.join("of-the-customer"), "before").expect("a file");
    give(&openclaw, &order(1, NEXT)).await;
    openclaw.proceed(UpgradeStage::Saving).await.expect("saved");
    fs::write(state.join("of-the-customer"), "after").expect("a file");
    let why = "it was switched off meanwhile";
    openclaw
        .abandon(UpgradeStage::Trying, why)
        .await
        .expect("abandoned");
    let failed = carry_out(&openclaw).await.state.failed.expect("a reason");
    let aside = bench.upgrades().join("discarded-1");
    assert!(failed.contains(why), "{failed}");
    assert!(failed.contains(&aside.display().to_string()), "{failed}");
    openclaw.tidy().await.expect("tidy");
    assert_eq!(
        (customers(&aside), customers(&state)),
        ("after".into(), "before".into())
    );
    runs(&bench, &openclaw, "2026.9.6").await;
    bench.end().await;
}

#[tokio::test]
async fn a_version_that_is_not_here_any_more_is_not_replaced_by_another_one() {
    let bench = Bench::stub(&[]).await;
    let others = [next(&bench, &[])];
    let openclaw = bench.openclaw_beside(&others, SHORT);
    give(&openclaw, &order(1, NEXT)).await;
    carry_out(&openclaw).await;
    let openclaw = bench.openclaw();
    let standing = openclaw.standing();
    assert_eq!(standing.state.version, NEXT);
    let unusable = standing.unusable.expect("a reason");
    assert!(unusable.contains("not on this server"), "{unusable}");
    openclaw.stop().await;
    openclaw.start().await.expect_err("on its state");
    assert_eq!(openclaw.process().await, None);
    openclaw.tidy().await.expect("tidy");
    assert!(bench.upgrades().join("state").exists());
    fs::write(bench.upgrades().join("journal.json"), "{").expect("a damaged journal");
    assert!(bench.openclaw().standing().unusable.is_some());
    bench.end().await;
}

#[tokio::test]
async fn an_order_is_taken_back_while_it_is_prepared() {
    let bench = Bench::stub(&[]).await;
    let openclaw = bench.openclaw_beside(&[next(&bench, &[])], SHORT);
    openclaw.order(&order(1, NEXT)).await.expect("an order");
    assert_eq!(openclaw.standing().order, Some(1));
    openclaw.withdraw();
    let standing = openclaw.standing();
    assert_eq!((standing.order, standing.stage), (None, None));
    assert_eq!(standing.state.settled, 0);
    bench.end().await;
}

/// As after `kill -9` of the agent, which leaves the gateway, and after a power cut, which does not.
#[tokio::test]
async fn an_agent_that_dies_at_any_stage_leaves_one_version_on_its_own_state() {
    for (broken, power_cut) in [(false, false), (false, true), (true, false), (true, true)] {
        let bench = Bench::stub(&[]).await;
        let switches: &[&str] = if broken { &["STUB_BROKEN=1"] } else { &[] };
        let others = [next(&bench, switches)];
        let anew = || bench.openclaw_beside(&others, SHORT);
        give(&anew(), &order(1, NEXT)).await;
        let mut seen = Vec::new();
        while let Some(stage) = anew().standing().stage {
            seen.push(stage);
            if power_cut {
                bench.end().await;
            }
            // Another one in mid-stage, which is dropped, and one that goes through with it.
            let cut_off = anew();
            let limit = std::time::Duration::from_millis(30);
            drop(tokio::time::timeout(limit, cut_off.proceed(stage)).await);
            let next = anew();
            if next.standing().stage == Some(stage) {
                next.proceed(stage).await.expect("a stage");
            }
            assert!(seen.len() < 8, "no end: {seen:?}");
        }
        assert_eq!(seen.contains(&UpgradeStage::Restoring), broken, "{seen:?}");
        let openclaw = anew();
        let version = if broken { "2026.9.6" } else { NEXT };
        runs(&bench, &openclaw, version).await;
        assert_eq!(openclaw.standing().state.failed.is_some(), broken);
        bench.end().await;
    }
}

#[tokio::test]
async fn a_stage_that_is_cut_off_again_and_again_ends_with_the_old_version() {
    let bench = Bench::stub(&[]).await;
    let others = [next(&bench, &["STUB_BOOT_MS=600000"])];
    let anew = || bench.openclaw_beside(&others, SHORT);
    give(&anew(), &order(1, NEXT)).await;
    anew().proceed(UpgradeStage::Saving).await.expect("saved");
    let mut cut_off = 0;
    while anew().standing().stage == Some(UpgradeStage::Trying) {
        let openclaw = anew();
        let limit = std::time::Duration::from_millis(200);
        drop(tokio::time::timeout(limit, openclaw.proceed(UpgradeStage::Trying)).await);
        cut_off += 1;
        assert!(cut_off < 8);
    }
    let openclaw = anew();
    let over = carry_out(&openclaw).await;
    let failed = over.state.failed.expect("a reason");
    assert!(failed.contains("cut off"), "{failed}");
    runs(&bench, &openclaw, "2026.9.6").await;
    bench.end().await;
}

#[tokio::test]
async fn a_container_is_upgraded_to_an_image_that_its_docker_did_not_have() {
    let Some(bench) = Bench::stub_in_container(&[]).await else {
        return;
    };
    let image = bench.engine().stub_image().expect("an image");
    let archive = bench.upgrades().with_file_name("image.tar");
    let path = archive.display().to_string();
    let docker = |arguments: &[&str]| bench.engine().docker(arguments).expect("docker");
    docker(&["save", "--output", &path, image.as_str()]);
    docker(&["rmi", image.as_str()]);
    let mut wanted = next(&bench, &[]);
    wanted.container = Some(image);
    wanted.archive = Some(archive);
    an_order_is_carried_out(&bench, wanted).await;
    bench.end().await;
}

#[tokio::test]
async fn a_container_goes_back_to_its_image_and_the_state_of_before() {
    let Some(bench) = Bench::stub_in_container(&[]).await else {
        return;
    };
    let mut broken = next(&bench, &["STUB_BROKEN=1"]);
    broken.container = Some(bench.engine().stub_image().expect("an image"));
    a_version_that_does_not_prove_itself_goes_back(&bench, broken).await;
    let mut absent = next(&bench, &[]);
    let nowhere = format!("sha256:{}", "0a".repeat(32));
    absent.container = Some(nowhere.try_into().expect("a digest"));
    let openclaw = bench.openclaw_beside(&[absent], SHORT);
    let before = bench.recorded_process();
    give(&openclaw, &order(2, NEXT)).await;
    let failed = openclaw.standing().state.failed.expect("a reason");
    assert!(failed.contains("not with Docker"), "{failed}");
    assert_eq!(bench.recorded_process(), before);
    bench.end().await;
}

/// The old one with the new one beside it.
pub(crate) async fn the_real_one_is_upgraded(old: ImageManifest, new: &ImageManifest) {
    let new = new.baked();
    let bench = Bench::real(old).await;
    let openclaw = bench.openclaw_beside(std::slice::from_ref(&new), patient());
    let wish = order(1, &new.openclaw_version);
    give(&openclaw, &wish).await;
    let over = carry_out(&openclaw).await;
    assert_eq!(over.state.failed, None);
    assert_eq!(over.state.version, new.openclaw_version);
    let said = bench.gateway.version().await;
    assert_eq!(said.as_deref(), Some(new.openclaw_version.as_str()));
    // The next signal is the new version's.
    openclaw.restart().await.expect("a restart");
    assert!(bench.gateway.started_within(patient().start).await);
    openclaw.stop().await;
}
