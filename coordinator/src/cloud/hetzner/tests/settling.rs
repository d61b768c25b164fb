//! Seeing servers run, and waiting for actions together.

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::{
    Reply, Seen, Stage, fault,
    miniature::{Miniature, action, server},
    ours, refusal, whole,
};
use crate::cloud::{Cloud as _, Fault};

const NAME: &str = "tidepool-a";

/// A stage with a server that has these actions, and this status.
fn stage_with(
    status: &'static str,
    actions: &[Value],
    twist: impl FnMut(&Seen, &mut Miniature) -> Option<Reply> + Send + 'static,
) -> Stage {
    let stage = Stage::with(twist);
    stage.miniature(|miniature| {
        let mut server = server(40, NAME, &ours());
        server["status"] = json!(status);
        miniature.servers.push(server);
        miniature.actions = actions.to_vec();
    });
    stage
}

fn polls(stage: &Stage) -> Vec<Seen> {
    stage.seen(|seen| seen.is(&Method::GET, "actions"))
}

/// On the so-manieth poll everything that runs ends like this, and the server with it.
fn ends_on_poll(
    number: usize,
    ids: &'static [u64],
    outcome: &'static str,
    status: &'static str,
) -> impl FnMut(&Seen, &mut Miniature) -> Option<Reply> + Send + 'static {
    let mut polls = 0;
    move |seen, miniature| {
        polls += usize::from(seen.is(&Method::GET, "actions"));
        if polls >= number {
            for action in &mut miniature.actions {
                if ids.iter().any(|id| action["id"] == *id) {
                    action["status"] = json!(outcome);
                }
            }
            miniature.servers[0]["status"] = json!(status);
        }
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_runs_when_all_its_actions_succeeded_and_its_status_says_so() {
    let actions = [
        action(1, "create_server", "running"),
        action(2, "start_server", "running"),
    ];
    let ends = ends_on_poll(4, &[1, 2], "success", "running");
    let stage = stage_with("initializing", &actions, ends);
    stage.cloud.settle(NAME).await.unwrap();
    let polls = polls(&stage);
    assert_eq!(polls.len(), 4);
    let both = [
        ("id".to_owned(), "1".to_owned()),
        ("id".to_owned(), "2".to_owned()),
    ];
    assert_eq!(polls[0].query, both, "one call for all");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_made_but_not_started_never_runs() {
    let actions = [
        action(1, "create_server", "success"),
        action(2, "start_server", "running"),
    ];
    let stage = stage_with("off", &actions, ends_on_poll(2, &[2], "error", "off"));
    let error = stage.cloud.settle(NAME).await.unwrap_err();
    assert_eq!(error.fault, Fault::Invalid);
    assert!(whole(&error).contains("start_server"), "{}", whole(&error));
}

#[tokio::test(start_paused = true)]
async fn an_error_is_seen_while_another_action_is_stuck() {
    let actions = [
        action(1, "create_server", "running"),
        action(2, "start_server", "running"),
    ];
    let stage = stage_with(
        "initializing",
        &actions,
        ends_on_poll(1, &[2], "error", "off"),
    );
    let start = Instant::now();
    assert_eq!(fault(stage.cloud.settle(NAME).await), Fault::Invalid);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn capacity_that_is_found_missing_after_the_order_is_told_apart() {
    let mut failed = action(1, "create_server", "error");
    failed["error"]["code"] = json!("resource_unavailable");
    let stage = stage_with("initializing", &[failed], |_, _| None);
    assert_eq!(fault(stage.cloud.settle(NAME).await), Fault::NoCapacity);
}

#[tokio::test(start_paused = true)]
async fn an_action_that_is_stuck_for_ever_ends_at_the_deadline() {
    let actions = [action(1, "create_server", "running")];
    let stage = stage_with("initializing", &actions, |_, _| None);
    let start = Instant::now();
    assert_eq!(fault(stage.cloud.settle(NAME).await), Fault::Invalid);
    assert_eq!(start.elapsed(), Duration::from_mins(20));
    // A second, then two, … up to five and a bit of chance between looks.
    let polls = polls(&stage).len();
    assert!((200..=250).contains(&polls), "{polls}");
}

#[tokio::test(start_paused = true)]
async fn an_action_that_resolves_no_more_proves_nothing() {
    let mut looks = 0;
    let twist = move |seen: &Seen, miniature: &mut Miniature| {
        if seen.is(&Method::GET, "actions") {
            return Some(refusal(404, "not_found"));
        }
        if seen.is(&Method::GET, "servers/40/actions") {
            looks += 1;
            if looks == 3 {
                miniature.actions[0]["status"] = json!("success");
                miniature.servers[0]["status"] = json!("running");
            }
        }
        None
    };
    let actions = [action(1, "create_server", "running")];
    let stage = stage_with("initializing", &actions, twist);
    stage.cloud.settle(NAME).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_off_with_nothing_under_way_never_runs() {
    let actions = [action(1, "create_server", "success")];
    for (status, patience) in [("off", 60), ("deleting", 1), ("brand_new", 60)] {
        let stage = stage_with(status, &actions, |_, _| None);
        let start = Instant::now();
        assert_eq!(fault(stage.cloud.settle(NAME).await), Fault::Invalid);
        assert!(start.elapsed() <= Duration::from_secs(patience), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_exist_never_runs() {
    let stage = Stage::smooth();
    assert_eq!(fault(stage.cloud.settle(NAME).await), Fault::Invalid);
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_share_one_poll_of_at_most_25_actions() {
    let stage = Stage::smooth();
    stage.miniature(|miniature| {
        miniature.actions = (1..=60).map(|id| action(id, "x", "success")).collect();
    });
    let (api, waiter) = (&stage.cloud.api, &stage.cloud.waiter);
    let outcomes = join_all((1..=60).map(|id| waiter.wait(api, id))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let sizes: Vec<usize> = polls(&stage).iter().map(|seen| seen.query.len()).collect();
    assert_eq!(sizes, [25, 25, 10]);
}

#[tokio::test(start_paused = true)]
async fn one_who_stops_waiting_hands_the_turn_on() {
    let stage = Stage::smooth();
    stage.miniature(|miniature| {
        miniature.actions = vec![action(1, "x", "running"), action(2, "x", "running")];
    });
    let (api, waiter) = (&stage.cloud.api, &stage.cloud.waiter);
    let impatient = tokio::time::timeout(Duration::from_secs(10), waiter.wait(api, 1));
    let patient = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        tokio::time::timeout(Duration::from_mins(1), waiter.wait(api, 2)).await
    };
    let news = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        stage.miniature(|miniature| miniature.actions[1]["status"] = json!("success"));
    };
    let (first, second, ()) = tokio::join!(impatient, patient, news);
    assert!(first.is_err(), "it gave up");
    second.expect("in time").unwrap();
    let last = polls(&stage).pop().unwrap();
    assert_eq!(
        last.query,
        [("id".to_owned(), "2".to_owned())],
        "nobody asks for it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_fails_fails_nothing_for_ever() {
    let mut polls = 0;
    let twist = move |seen: &Seen, miniature: &mut Miniature| {
        if !seen.is(&Method::GET, "actions") {
            return None;
        }
        polls += 1;
        if polls <= 3 {
            return Some(refusal(503, "unavailable"));
        }
        miniature.actions[0]["status"] = json!("success");
        miniature.servers[0]["status"] = json!("running");
        None
    };
    let actions = [action(1, "create_server", "running")];
    stage_with("off", &actions, twist)
        .cloud
        .settle(NAME)
        .await
        .unwrap();
}
