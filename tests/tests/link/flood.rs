//! What somebody with one server's key can make the coordinator write: not much.

use tidepool_coordinator::store::EventStore as _;
use tidepool_shared::{
    capability::close,
    message::{Health, Phase, Report},
};

use super::{
    rig::{Raw, Rig},
    unknown_kind,
};

#[tokio::test]
async fn a_server_that_begins_session_after_session_is_told_to_wait() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut sessions = 0;
    let refused = loop {
        let mut raw = Raw::dial(&rig, &identity).await;
        raw.hello(server.id).await;
        if raw.reply().await.is_none() {
            break raw.closed().await;
        }
        sessions += 1;
    };
    assert_eq!(refused, close::TROUBLE);
    // Twelve at once and six a minute: as many as this loop's own time allows.
    assert!((12..30).contains(&sessions), "{sessions}");
}

#[tokio::test]
async fn an_agent_that_changes_its_mind_all_the_time_fills_no_log() {
    let rig = Rig::start().await;
    let server = rig.plan().await;
    let identity = rig.enrol(&server).await.unwrap();
    let mut raw = Raw::dial(&rig, &identity).await;
    let epoch = raw.welcomed(server.id).await.epoch;
    let before = rig.store.last_sequence().await.unwrap();
    for number in 0..200u64 {
        let report = Report {
            epoch,
            phase: if number.is_multiple_of(2) {
                Phase::Warm
            } else {
                Phase::Starting
            },
            served_generation: number,
            observed_generation: number,
            health: Health::Ok,
            reasons: Vec::new(),
            steps: Vec::new(),
            rejected: None,
            openclaw: None,
            gateway_starts: number,
        };
        raw.say(&report).await;
    }
    // The answer to this comes when all before it are taken in.
    raw.send(&unknown_kind(9999)).await;
    raw.reply().await.expect("the link is up");
    let told = rig.store.last_sequence().await.unwrap() - before;
    assert!((2..60).contains(&told), "{told} events");
}
