//! What Tidepool relies on in an OpenClaw gateway, tried on the stub and on the real thing.
//!
//! The stub's tests are one per sentence. The real gateway takes seconds to start, so that the same
//! sentences are gone through on one instance of it: `TIDEPOOL_OPENCLAW_MANIFEST` names its
//! manifest, `TIDEPOOL_OPENCLAW_PREVIOUS_MANIFEST` that of 2026.9.5; without them those two tests say
//! so and pass.

#[path = "gateway_contract/bench.rs"]
mod bench;
#[path = "gateway_contract/channels.rs"]
mod channels;
#[path = "gateway_contract/container.rs"]
mod container;
#[path = "gateway_contract/rows.rs"]
mod rows;
#[path = "gateway_contract/sentences.rs"]
mod sentences;
#[path = "gateway_contract/upgrades.rs"]
mod upgrades;

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tidepool_agent::{
    gateway::{As, Startup},
    reload::{Deadlines, How, Outcome},
    runtime::{Started, State, Stopped},
};

use self::bench::{Bench, manifest_from};

/// Enough for the stub on a busy machine, short enough for a wedge.
const SHORT: Deadlines = Deadlines {
    word: Duration::from_millis(500),
    close: Duration::from_millis(500),
    start: Duration::from_secs(10),
    stop: Duration::from_millis(300),
    trial: Duration::from_secs(10),
    steady: Duration::from_millis(300),
};

macro_rules! on_the_stub {
    ($($sentence:ident)*) => {$(
        #[tokio::test]
        async fn $sentence() {
            let bench = Bench::stub(&[]).await;
            sentences::$sentence(&bench).await;
            bench.end().await;
        }
    )*};
}

on_the_stub! {
    health_is_told_by_the_body
    only_the_owner_is_let_in
    a_foreign_origin_is_refused_at_connect
    the_warm_up_turn_asks_the_model_and_leaves_no_trace
    a_gateway_warmed_up_twice_still_holds_no_trace
    a_customers_configuration_is_applied_while_serving
    a_configuration_against_the_schema_is_not_even_written
    what_the_gateway_wrote_itself_survives
    a_configuration_that_the_gateway_refuses_is_taken_back
    a_cut_off_try_is_ended_by_the_next
    a_running_gateway_is_adopted_after_the_agents_death
    what_it_takes_is_told
    the_restart_signal_restarts_in_the_process
    a_stop_is_heard
}

/// Docker takes a second to start, so that it is one gateway for all sentences.
#[tokio::test]
async fn the_stub_in_a_container_keeps_the_contract() {
    if let Some(bench) = Bench::stub_in_container(&[]).await {
        sentences::of_a_configuration(&bench).await;
        sentences::a_cut_off_try_is_ended_by_the_next(&bench).await;
        sentences::of_a_life(&bench).await;
    }
}

#[tokio::test]
async fn real_openclaw_keeps_the_contract() {
    if let Some(manifest) = manifest_from("TIDEPOOL_OPENCLAW_MANIFEST") {
        sentences::all(&Bench::real(manifest).await).await;
    }
}

#[tokio::test]
async fn real_openclaw_has_its_channels() {
    if let Some(manifest) = manifest_from("TIDEPOOL_OPENCLAW_MANIFEST") {
        let bench = Bench::real(manifest).await;
        channels::a_channel_hears_once_it_is_configured(&bench).await;
        bench.end().await;
    }
}

#[tokio::test]
async fn slow_real_openclaw_in_a_container_keeps_the_contract() {
    let Some(manifest) = manifest_from("TIDEPOOL_OPENCLAW_MANIFEST") else {
        return;
    };
    if let Some(bench) = Bench::real_in_container(manifest).await {
        sentences::all(&bench).await;
    }
}

#[tokio::test]
async fn slow_real_openclaw_in_a_container_has_its_channels() {
    let Some(manifest) = manifest_from("TIDEPOOL_OPENCLAW_MANIFEST") else {
        return;
    };
    if let Some(bench) = Bench::real_in_container(manifest).await {
        channels::a_channel_hears_once_it_is_configured(&bench).await;
        bench.end().await;
    }
}

#[tokio::test]
async fn slow_previous_openclaw_keeps_the_contract() {
    if let Some(manifest) = manifest_from("TIDEPOOL_OPENCLAW_PREVIOUS_MANIFEST") {
        sentences::all(&Bench::real(manifest).await).await;
    }
}

#[tokio::test]
async fn slow_real_openclaw_is_upgraded_and_its_state_with_it() {
    let old = manifest_from("TIDEPOOL_OPENCLAW_PREVIOUS_MANIFEST");
    let new = manifest_from("TIDEPOOL_OPENCLAW_MANIFEST");
    if let (Some(old), Some(new)) = (old, new) {
        upgrades::the_real_one_is_upgraded(old, &new).await;
    }
}

#[tokio::test]
async fn slow_real_openclaw_does_what_every_row_of_the_reload_table_says() {
    if let Some(manifest) = manifest_from("TIDEPOOL_OPENCLAW_MANIFEST") {
        let bench = Bench::real(manifest).await;
        rows::the_gateway_does_what_the_table_says(&bench, rows::every()).await;
        rows::a_gateway_that_prints_nothing_is_restarted_by_signal_too(&bench).await;
        bench.end().await;
    }
}

#[tokio::test]
async fn a_gateway_that_is_deaf_to_its_file_is_restarted_by_signal() {
    let bench = Bench::stub(&[("STUB_DEAF", "1")]).await;
    let outcome = bench.apply_with(SHORT, &json!({"ui": {"a": 1}})).await;
    assert!(
        matches!(
            outcome,
            Outcome::Applied {
                how: How::Restarted,
                ..
            }
        ),
        "{outcome:?}"
    );
    bench.end().await;
}

#[tokio::test]
async fn a_restart_that_wedges_ends_in_a_new_process() {
    let bench = Bench::stub(&[("STUB_DEAF", "1"), ("STUB_WEDGE", "1")]).await;
    let outcome = bench.apply_with(SHORT, &json!({"ui": {"a": 1}})).await;
    assert!(
        matches!(
            outcome,
            Outcome::Applied {
                how: How::StartedAgain,
                ..
            }
        ),
        "{outcome:?}"
    );
    let stopped = bench.runtime.stop(SHORT.stop).await.expect("stop");
    assert_eq!(stopped, Stopped::Killed);
    bench.end().await;
}

#[tokio::test]
async fn the_previous_version_gets_the_other_signal() {
    let bench = Bench::stub(&[("STUB_DEAF", "1"), ("STUB_VERSION", "2026.9.5")]).await;
    let outcome = bench.apply_with(SHORT, &json!({"ui": {"a": 1}})).await;
    assert!(
        matches!(
            outcome,
            Outcome::Applied {
                how: How::Restarted,
                ..
            }
        ),
        "{outcome:?}"
    );
    bench.end().await;
}

#[tokio::test]
async fn what_a_killed_gateway_had_started_is_ended_and_never_taken_for_it() {
    let bench = Bench::stub(&[("STUB_HELPER", "1")]).await;
    let before = bench.processes();
    assert_eq!(before.len(), 2, "the gateway and its helper");
    let gateway = bench.recorded_process();
    kill(Pid::from_raw(gateway), Signal::SIGKILL).expect("kill");
    while bench.runtime.state().await == State::Running {
        tokio::task::yield_now().await;
    }
    let helper: Vec<_> = before.into_iter().filter(|pid| *pid != gateway).collect();
    assert_eq!(bench.processes(), helper, "the helper outlives the gateway");
    let next = bench.another_runtime();
    assert_eq!(next.start().await.expect("start"), Started::Fresh);
    assert!(bench.gateway.started_within(SHORT.start).await);
    let now = bench.processes();
    assert_eq!(now.len(), 2, "the new gateway and its helper");
    assert!(!now.contains(&helper[0]), "the old helper is still there");
    bench.end().await;
}

#[tokio::test]
async fn a_booting_gateway_is_not_started_yet() {
    let bench = Bench::unstarted_stub(&[("STUB_BOOT_MS", "60000")]);
    bench.lay_down();
    bench.runtime.start().await.expect("start");
    while !bench.gateway.is_live().await {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.gateway.startup().await, Startup::NotYet);
    assert_eq!(bench.runtime.state().await, State::Running);
    assert!(bench.gateway.admits(As::Owner).await);
    bench.end().await;
}
