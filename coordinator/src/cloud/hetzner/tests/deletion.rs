//! Deleting servers and seeing them gone.

use http::Method;
use serde_json::json;
use tokio::time::{Duration, Instant};

use super::{
    Reply, Stage, fault,
    miniature::{action, server},
    ours, refusal,
};
use crate::cloud::{Cloud as _, Fault};

const NAME: &str = "tidepool-a";

fn with_server(stage: Stage) -> Stage {
    stage.miniature(|miniature| miniature.servers.push(server(40, NAME, &ours())));
    stage
}

fn is_there(stage: &Stage) -> bool {
    stage.miniature(|miniature| !miniature.servers.is_empty())
}

fn deletions(stage: &Stage) -> usize {
    stage.count(&Method::DELETE, "servers/40")
}

#[tokio::test(start_paused = true)]
async fn a_server_is_deleted_and_seen_gone() {
    let stage = with_server(Stage::smooth());
    stage.cloud.delete(NAME).await.unwrap();
    assert!(!is_there(&stage));
    assert_eq!(stage.count(&Method::GET, "servers/40"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_already_is_deleted() {
    let stage = Stage::smooth();
    stage.cloud.delete(NAME).await.unwrap();

    let between = with_server(Stage::with(|seen, _| {
        (seen.method == Method::DELETE).then(|| refusal(404, "not_found"))
    }));
    between.cloud.delete(NAME).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_ours_is_never_deleted() {
    for labels in [json!({}), json!({"managed-by": "tidepool", "env": "prod"})] {
        let stage = Stage::smooth();
        stage.miniature(|miniature| miniature.servers.push(server(40, NAME, &labels)));
        assert_eq!(fault(stage.cloud.delete(NAME).await), Fault::Invalid);
        assert!(is_there(&stage));
        assert_eq!(deletions(&stage), 0);
        assert_eq!(fault(stage.cloud.find(NAME).await), Fault::Invalid);
        assert_eq!(
            fault(stage.cloud.relabel(NAME, &super::Labels::new()).await),
            Fault::Invalid
        );
    }
}

#[tokio::test(start_paused = true)]
async fn protection_is_lifted_first() {
    let stage = with_server(Stage::smooth());
    stage.miniature(|miniature| miniature.servers[0]["protection"] = json!({"delete": true}));
    stage.cloud.delete(NAME).await.unwrap();
    assert!(!is_there(&stage));
    assert_eq!(deletions(&stage), 1);
}

#[tokio::test(start_paused = true)]
async fn protection_that_came_between_is_lifted_too() {
    let mut first = true;
    let stage = with_server(Stage::with(move |seen, miniature| {
        if seen.method == Method::DELETE && std::mem::take(&mut first) {
            miniature.servers[0]["protection"] = json!({"delete": true});
        }
        None
    }));
    stage.cloud.delete(NAME).await.unwrap();
    assert_eq!(deletions(&stage), 2);
}

#[tokio::test(start_paused = true)]
async fn a_locked_server_is_deleted_after_what_runs_on_it() {
    let stage = with_server(Stage::with(|seen, miniature| {
        let polled = seen.is(&Method::GET, "actions");
        if polled && seen.query("id") == Some("9") {
            miniature.actions[0]["status"] = json!("success");
        }
        let locked = miniature.actions[0]["status"] == "running";
        (seen.method == Method::DELETE && locked).then(|| refusal(423, "locked"))
    }));
    stage.miniature(|miniature| miniature.actions = vec![action(9, "apply_firewall", "running")]);
    stage.cloud.delete(NAME).await.unwrap();
    assert!(!is_there(&stage));
    assert_eq!(deletions(&stage), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_never_ends_is_left_for_later() {
    let stage = with_server(Stage::with(|seen, _| {
        (seen.method == Method::DELETE).then(|| refusal(423, "locked"))
    }));
    stage.miniature(|miniature| miniature.actions = vec![action(9, "x", "running")]);
    let start = Instant::now();
    assert_eq!(fault(stage.cloud.delete(NAME).await), Fault::Busy);
    assert_eq!(start.elapsed(), Duration::from_mins(10));
    assert!(deletions(&stage) >= 4, "it is asked again meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_whose_answer_was_lost_is_asked_for_again() {
    let mut first = true;
    let stage = with_server(Stage::with(move |seen, miniature| {
        let lost = seen.method == Method::DELETE && std::mem::take(&mut first);
        lost.then(|| {
            miniature.servers.clear();
            Reply::Lost
        })
    }));
    stage.cloud.delete(NAME).await.unwrap();
    assert_eq!(deletions(&stage), 2);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_was_accepted_and_failed_is_asked_for_again() {
    let mut first = true;
    let stage = with_server(Stage::with(move |seen, miniature| {
        let failing = seen.method == Method::DELETE && std::mem::take(&mut first);
        failing.then(|| {
            let failed = action(9, "delete_server", "error");
            miniature.actions.push(failed.clone());
            Reply::Json(200, json!({"action": failed}))
        })
    }));
    stage.cloud.delete(NAME).await.unwrap();
    assert!(!is_there(&stage));
    assert_eq!(deletions(&stage), 2);
}
