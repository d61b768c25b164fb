//! Every switch, in process and from another one.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tidepool_tests::fake_hetzner::{Fault, Kind, Settings};

use crate::world::World;

#[tokio::test]
async fn a_dropped_answer_was_done_and_a_dropped_request_was_not() -> anyhow::Result<()> {
    let world = World::start().await?;
    for (fault, servers) in [(Fault::DropBefore, 0), (Fault::DropAfter, 1)] {
        world.fake.faults().next(1, fault, "POST /servers");
        let lost = world.order("a", &json!({})).await;
        assert!(lost.is_err(), "{lost:?}");
        assert_eq!(
            world.get("/servers").await?.rows("servers").len(),
            servers,
            "{fault:?}"
        );
    }
    let resent = world.order("a", &json!({})).await?;
    assert_eq!(resent.refusal(), (409, "uniqueness_error"));
    assert!(world.fake.faults().switches().is_empty());
    assert_eq!(world.fake.faults().struck().values().sum::<u64>(), 2);
    world.end().await
}

#[tokio::test]
async fn a_bad_gateway_comes_after_everything_was_done() -> anyhow::Result<()> {
    let world = World::start().await?;
    world
        .fake
        .faults()
        .next(1, Fault::BadGatewayAfter, "POST /servers");
    let lost = world.order("a", &json!({})).await?;
    assert_eq!(lost.refusal(), (502, "bad_gateway"));
    assert_eq!(world.fake.books().existing(Kind::Server).count(), 1);
    world.end().await
}

#[tokio::test]
async fn refusals_that_are_nobodys_fault_leave_nothing_behind() -> anyhow::Result<()> {
    let world = World::start().await?;
    for (fault, at, refusal) in [
        (Fault::Unavailable, "POST /servers", (503, "unavailable")),
        (Fault::ServerError, "POST /servers", (500, "server_error")),
        (Fault::Conflict, "POST /servers", (409, "conflict")),
        (
            Fault::RateLimited,
            "POST /servers",
            (429, "rate_limit_exceeded"),
        ),
        (
            Fault::NoCapacity,
            "cx23 nbg1",
            (412, "resource_unavailable"),
        ),
        (
            Fault::LimitReached,
            "POST /servers",
            (403, "resource_limit_exceeded"),
        ),
    ] {
        world.fake.faults().next(2, fault, at);
        for _ in 0..2 {
            let refused = world.order("a", &json!({})).await?;
            assert_eq!(refused.refusal(), refusal);
        }
        assert_eq!(world.fake.books().entries.len(), 0, "{fault:?}");
    }
    assert_eq!(world.order("a", &json!({})).await?.status, 201);
    world.end().await
}

#[tokio::test]
async fn one_page_of_a_list_can_fail() -> anyhow::Result<()> {
    let mut settings = Settings::quick();
    settings.per_page = 2;
    let world = World::with(settings).await?;
    world
        .fake
        .faults()
        .always(Fault::Unavailable, "GET /locations page 2");
    for (page, status) in [("1", 200), ("2", 503), ("3", 200), ("2", 503)] {
        let answer = world.get(&format!("/locations?page={page}")).await?;
        assert_eq!(answer.status, status, "page {page}");
    }
    world.fake.faults().clear();
    assert_eq!(world.get("/locations?page=2").await?.status, 200);
    world.end().await
}

#[tokio::test]
async fn a_slow_answer_is_slow() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.fake.faults().set_slowness(Duration::from_millis(300));
    world.fake.faults().next(1, Fault::Slow, "GET /servers");
    let asked = tokio::time::Instant::now();
    assert_eq!(world.get("/servers").await?.status, 200);
    assert!(asked.elapsed() >= Duration::from_millis(300));
    world.end().await
}

#[tokio::test]
async fn actions_can_fail_or_never_end() -> anyhow::Result<()> {
    let world = World::start().await?;
    let faults = world.fake.faults();
    faults.next(1, Fault::ActionFails, "create_server");
    let failed = world.order("a", &json!({})).await?;
    let outcome = world.outcome(failed.id("/action/id")).await?;
    assert_eq!(
        (&outcome["status"], &outcome["error"]["code"]),
        (&json!("error"), &json!("action_failed"))
    );
    let start = world.outcome(failed.id("/next_actions/0/id")).await?;
    assert_eq!(start["status"], "error", "nothing to start");

    faults.next(1, Fault::StartFails, "POST /servers");
    let off = world.order("b", &json!({})).await?;
    world.success(off.id("/action/id")).await?;
    let start = world.outcome(off.id("/next_actions/0/id")).await?;
    assert_eq!(start["status"], "error");
    let path = format!("/servers/{}", off.id("/server/id"));
    assert_eq!(
        world.get(&path).await?.at("/server/status"),
        "off",
        "but it is there, and billed"
    );

    faults.next(1, Fault::ActionStuck, "create_server");
    let stuck = world.order("c", &json!({})).await?;
    let later = world.server("d", &json!({})).await?;
    let action = world
        .get(&format!("/actions/{}", stuck.id("/action/id")))
        .await?;
    assert_eq!(action.at("/action/status"), "running");
    let path = format!("/servers/{}", stuck.id("/server/id"));
    assert_eq!(world.get(&path).await?.at("/server/status"), "initializing");
    let deleted = world.delete(&path).await?;
    world.success(deleted.id("/action/id")).await?;

    faults.next(1, Fault::ActionFails, "delete_server");
    let path = format!("/servers/{later}");
    let kept = world.delete(&path).await?;
    assert_eq!(
        world.outcome(kept.id("/action/id")).await?["status"],
        "error"
    );
    assert_eq!(world.get(&path).await?.at("/server/status"), "running");
    world.end().await
}

#[tokio::test]
async fn answers_of_a_later_version_have_fields_and_values_nobody_knows() -> anyhow::Result<()> {
    let world = World::start().await?;
    world
        .server("a", &json!({ "labels": { "type": "mine" } }))
        .await?;
    let faults = world.fake.faults();
    faults.always(Fault::UnknownValues, "GET /servers");
    faults.always(Fault::UnknownStatus, "GET /servers");
    faults.always(Fault::ExtraFields, "GET /servers");
    let list = world.get("/servers").await?;
    let server = list.at("/servers/0");
    assert_eq!(server["status"], "never_heard_of");
    assert_eq!(server["image"]["type"], "never_heard_of");
    assert_eq!(server["labels"], json!({ "type": "mine" }));
    assert!(server["public_net"].get("never_heard_of").is_some());
    faults.clear();
    assert_eq!(
        world.get("/servers").await?.at("/servers/0/status"),
        "running"
    );
    world.end().await
}

#[tokio::test]
async fn another_process_can_set_and_read_everything() -> anyhow::Result<()> {
    let world = World::start().await?;
    let admin = world.fake.admin_url();
    let http = reqwest::Client::builder().build()?;
    let switch = json!({ "fault": "unavailable", "at": "GET /servers", "often": { "next": 1 } });
    let set = http
        .post(format!("{admin}/faults"))
        .json(&switch)
        .send()
        .await?;
    assert_eq!(set.status(), StatusCode::NO_CONTENT);
    let read = async |path: &str| -> anyhow::Result<Value> {
        Ok(http
            .get(format!("{admin}/{path}"))
            .send()
            .await?
            .json()
            .await?)
    };
    assert_eq!(read("faults").await?, json!([switch]));
    assert_eq!(world.get("/servers").await?.status, 503);
    assert_eq!(read("faults/struck").await?, json!({ "unavailable": 1 }));
    let chance = json!({ "fault": "drop_after", "often": { "chance": 0.5 } });
    http.post(format!("{admin}/faults"))
        .json(&chance)
        .send()
        .await?;
    http.delete(format!("{admin}/faults")).send().await?;
    assert_eq!(read("faults").await?, json!([]));
    let nonsense = json!({ "fault": "nonsense", "often": "always" });
    let refused = http
        .post(format!("{admin}/faults"))
        .json(&nonsense)
        .send()
        .await?;
    assert!(refused.status().is_client_error());

    let room = json!({ "server_type": "cax11", "location": "hel1", "servers": 1 });
    http.put(format!("{admin}/room")).json(&room).send().await?;
    let image = json!({ "architecture": "arm" });
    let image = http
        .post(format!("{admin}/snapshots"))
        .json(&image)
        .send()
        .await?;
    let image: Value = image.json().await?;
    let arm = json!({ "server_type": "cax11", "location": "hel1", "image": image["id"] });
    assert_eq!(world.order("a", &arm).await?.status, 201);
    let slow = http
        .put(format!("{admin}/faults/slowness"))
        .json(&json!({ "ms": 1 }));
    assert_eq!(slow.send().await?.status(), StatusCode::NO_CONTENT);
    let books = read("books").await?;
    assert_eq!(books["calls"]["POST /servers"], 1);
    assert_eq!(
        books["entries"].as_array().map(Vec::len),
        Some(4),
        "{books}"
    );
    assert_eq!(read("violations").await?, json!([]));
    world.end().await
}
