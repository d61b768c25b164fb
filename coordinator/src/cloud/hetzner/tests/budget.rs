//! Resends, time-outs and the budget of requests.

use http::Method;
use tokio::time::{Duration, Instant};

use super::{
    Reply, Stage, fault,
    miniature::{page, server},
    order, ours, refusal,
};
use crate::cloud::{Cloud as _, Fault};

const NAME: &str = "tidepool-a";

/// Finds on a stage whose every answer is this; says how many calls that took, and how long.
async fn finding(answer: fn() -> Reply) -> (Fault, usize, Duration) {
    let stage = Stage::with(move |_, _| Some(answer()));
    let start = Instant::now();
    let fault = fault(stage.cloud.find(NAME).await);
    (fault, stage.seen(|_| true).len(), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn what_may_be_asked_again_is_with_growing_waits_and_not_for_ever() {
    for answer in [
        || refusal(500, "server_error"),
        || refusal(409, "conflict"),
        || Reply::Page(502),
        || Reply::Lost,
    ] {
        let (_, calls, took) = finding(answer).await;
        assert_eq!(calls, 6);
        assert!(took <= Duration::from_secs(1 + 2 + 4 + 8 + 16), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_asking_again_cannot_help_is_asked_once() {
    for (answer, expected) in [
        (
            (|| refusal(401, "unauthorized")) as fn() -> Reply,
            Fault::Unauthorized,
        ),
        (|| refusal(422, "invalid_input"), Fault::Invalid),
        (|| refusal(410, "deprecated_api_endpoint"), Fault::Invalid),
        (|| Reply::Page(200), Fault::Unknown),
    ] {
        let (fault, calls, took) = finding(answer).await;
        assert_eq!((fault, calls, took), (expected, 1, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_without_an_answer_is_given_up_after_15_seconds() {
    let (fault, calls, took) = finding(|| Reply::Never).await;
    assert_eq!((fault, calls), (Fault::Unknown, 6));
    let most = Duration::from_secs(6 * 15 + 31);
    assert!(
        took >= Duration::from_secs(6 * 15) && took <= most,
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_refusals_is_waited_out_by_everyone_together() {
    let start = Instant::now();
    let stage = Stage::with(move |_, _| {
        let stormy = start.elapsed() < Duration::from_mins(2);
        Some(if stormy {
            refusal(429, "rate_limit_exceeded")
        } else {
            page("servers", &[server(40, NAME, &ours())])
        })
    });
    let (first, second) = tokio::join!(stage.cloud.find(NAME), stage.cloud.find("b"));
    assert!(first.unwrap().is_some());
    second.unwrap();
    assert!(stage.seen(|_| true).len() < 60, "not in a hot loop");
}

#[tokio::test(start_paused = true)]
async fn deletions_go_on_while_creations_are_held_back() {
    let stage =
        Stage::with(|seen, miniature| Some(Reply::Left(599, Box::new(miniature.reply(seen)))));
    stage.miniature(|miniature| miniature.servers.push(server(40, "tidepool-b", &ours())));
    assert_eq!(fault(stage.cloud.create(&order(NAME)).await), Fault::Busy);
    assert_eq!(stage.count(&Method::POST, "servers"), 0);
    let asked = stage.seen(|_| true).len();
    assert_eq!(fault(stage.cloud.create(&order(NAME)).await), Fault::Busy);
    assert_eq!(
        stage.seen(|_| true).len(),
        asked,
        "trying again spends nothing"
    );
    stage.cloud.delete("tidepool-b").await.unwrap();
    stage.cloud.inventory().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_is_waited_for() {
    let stage =
        Stage::with(|seen, miniature| Some(Reply::Left(0, Box::new(miniature.reply(seen)))));
    let start = Instant::now();
    for _ in 0..5 {
        stage.cloud.find(NAME).await.unwrap();
    }
    assert_eq!(start.elapsed(), Duration::from_secs(4));
}
