//! Servers: their lives, their names, their places and limits, their addresses.

use std::time::Duration;

use anyhow::ensure;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tidepool_tests::fake_hetzner::{Fault, Kind, Settings};

use crate::world::World;

#[tokio::test]
async fn a_server_is_initializing_then_off_then_starting_then_running() -> anyhow::Result<()> {
    let mut settings = Settings::quick().with_room("cx23", "nbg1", 1);
    settings.pace.create = Duration::from_millis(500);
    settings.pace.start = Duration::from_secs(1);
    let world = World::with(settings).await?;
    let ordered = world.order("a", &json!({})).await?;
    assert_eq!(ordered.status, 201, "{ordered:?}");
    assert_eq!(ordered.at("/action/command"), "create_server");
    assert_eq!(ordered.at("/next_actions/0/command"), "start_server");
    assert_eq!(ordered.at("/server/public_net/ipv4/ip"), "10.77.0.1");
    assert_eq!(ordered.at("/server/locked"), true);
    assert!(ordered.at("/root_password").is_string());
    let mut states: Vec<Value> = Vec::new();
    let path = format!("/servers/{}", ordered.id("/server/id"));
    let shown = world.until(&path, |answer| {
        let state = answer.at("/server/status");
        if states.last() != Some(state) {
            states.push(state.clone());
        }
        state == "running"
    });
    let shown = shown.await?;
    ensure!(
        states == ["initializing", "off", "starting", "running"],
        "{states:?}"
    );
    assert_eq!(shown.at("/server/locked"), false);
    let actions = world.get(&format!("{path}/actions")).await?;
    let ended = |row: &Value| row["status"] == "success" && row["progress"] == 100;
    assert!(actions.rows("actions").iter().all(ended), "{actions:?}");
    let [one, two] = ["/action/id", "/next_actions/0/id"].map(|at| ordered.id(at));
    let both = world.get(&format!("/actions?id={one}&id={two}")).await?;
    assert_eq!(both.rows("actions").len(), 2);
    world.end().await
}

#[tokio::test]
async fn a_name_is_taken_until_its_server_is_gone() -> anyhow::Result<()> {
    let mut settings = Settings::quick().with_room("cx23", "nbg1", 5);
    // Longer than this test takes.
    settings.pace.create = Duration::from_hours(1);
    let world = World::with(settings).await?;
    let first = world.order("a", &json!({})).await?;
    let again = world.order("a", &json!({})).await?;
    assert_eq!(again.refusal(), (409, "uniqueness_error"));
    assert_eq!(again.at("/error/details/fields/0/name"), "name");
    // A server that is still being made may be deleted.
    let path = format!("/servers/{}", first.id("/server/id"));
    let deleted = world.delete(&path).await?;
    assert_eq!(deleted.status, 200, "{deleted:?}");
    world.success(deleted.id("/action/id")).await?;
    assert_eq!(world.get(&path).await?.status, 404);
    let outcome = world.outcome(first.id("/next_actions/0/id")).await?;
    assert_eq!(outcome["status"], "error", "its start ended with it");
    let next = world.order("a", &json!({})).await?;
    assert_eq!(next.status, 201);
    assert_eq!(
        next.at("/server/public_net/ipv4/ip"),
        first.at("/server/public_net/ipv4/ip"),
        "an address comes back at once"
    );
    for bad in ["-a", "a_b", "", "a..b"] {
        let refused = world.order(bad, &json!({})).await?;
        assert_eq!(refused.refusal(), (422, "invalid_input"), "{bad}");
    }
    world.end().await
}

#[tokio::test]
async fn of_many_creates_of_one_name_one_is_done() -> anyhow::Result<()> {
    let world = World::start().await?;
    let more = json!({});
    let answers = try_join_all((0..20).map(|_| world.order("a", &more))).await?;
    let made = answers.iter().filter(|answer| answer.status == 201);
    assert_eq!(made.count(), 1);
    let refused = answers.iter().filter(|answer| answer.refusal().0 == 409);
    assert_eq!(refused.count(), 19);
    assert_eq!(world.fake.books().ever(Kind::Server).count(), 1);
    world.end().await
}

#[tokio::test]
async fn one_action_at_a_time_and_the_rest_is_locked() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = world.server("a", &json!({})).await?;
    let act = async |what: &str| {
        let path = format!("/servers/{id}/actions/{what}");
        world.post(&path, &json!({})).await
    };
    let stuck = world.server("b", &json!({})).await?;
    world
        .fake
        .faults()
        .next(1, Fault::ActionStuck, "stop_server");
    let path = format!("/servers/{stuck}/actions/poweroff");
    assert_eq!(world.post(&path, &json!({})).await?.status, 201);
    for refused in ["poweron", "reset", "create_image", "shutdown", "reboot"] {
        let path = format!("/servers/{stuck}/actions/{refused}");
        let answer = world.post(&path, &json!({})).await?;
        assert_eq!(answer.refusal(), (423, "locked"), "{refused}");
    }
    assert_eq!(
        world.delete(&format!("/servers/{stuck}")).await?.refusal(),
        (423, "locked")
    );
    let off = act("poweroff").await?;
    world.success(off.id("/action/id")).await?;
    let path = format!("/servers/{id}");
    assert_eq!(world.get(&path).await?.at("/server/status"), "off");

    let bigger = json!({ "server_type": "cpx22", "upgrade_disk": false });
    let path_of = |what: &str| format!("/servers/{id}/actions/{what}");
    let changed = world.post(&path_of("change_type"), &bigger).await?;
    world.success(changed.id("/action/id")).await?;
    let shown = world.get(&path).await?;
    assert_eq!(shown.at("/server/server_type/name"), "cpx22");
    assert_eq!(shown.at("/server/primary_disk_size"), 40);

    world
        .success(act("poweron").await?.id("/action/id"))
        .await?;
    let refused = world.post(&path_of("change_type"), &bigger).await?;
    assert_eq!(refused.refusal(), (422, "server_not_stopped"));
    for what in ["reboot", "reset"] {
        world.success(act(what).await?.id("/action/id")).await?;
    }
    let rebuilt = world
        .post(&path_of("rebuild"), &json!({ "image": "ubuntu-24.04" }))
        .await?;
    assert!(rebuilt.at("/root_password").is_string());
    world.success(rebuilt.id("/action/id")).await?;
    assert_eq!(
        world.get(&path).await?.at("/server/image/name"),
        "ubuntu-24.04"
    );
    // Success says that the machine has heard it.
    world
        .success(act("shutdown").await?.id("/action/id"))
        .await?;
    world
        .until(&path, |answer| answer.at("/server/status") == "off")
        .await?;
    world.end().await
}

#[tokio::test]
async fn a_protected_server_is_not_deleted() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = world.server("a", &json!({})).await?;
    let path = format!("/servers/{id}/actions/change_protection");
    let half = world.post(&path, &json!({ "delete": true })).await?;
    assert_eq!(half.refusal(), (422, "invalid_input"));
    for (on, status) in [(true, 423), (false, 200)] {
        let both = json!({ "delete": on, "rebuild": on });
        let changed = world.post(&path, &both).await?;
        world.success(changed.id("/action/id")).await?;
        let deleted = world.delete(&format!("/servers/{id}")).await?;
        assert_eq!(deleted.status, status);
        if on {
            assert_eq!(deleted.refusal(), (423, "protected"));
        }
    }
    world.end().await
}

#[tokio::test]
async fn labels_are_checked_replaced_whole_and_selected_by() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = world
        .server("a", &json!({ "labels": { "env": "t", "role": "pool" } }))
        .await?;
    world
        .server("b", &json!({ "labels": { "env": "t" } }))
        .await?;
    for (selector, found) in [
        ("env=t", 2),
        ("env==t,role=pool", 1),
        ("role!=pool", 1),
        ("!role", 1),
        ("role", 1),
        ("role in (pool,claimed)", 1),
        ("role notin (pool)", 1),
        ("env=u", 0),
    ] {
        let encoded = selector.bytes().map(|byte| format!("%{byte:02x}"));
        let encoded = encoded.collect::<Vec<_>>().concat();
        let list = world
            .get(&format!("/servers?label_selector={encoded}"))
            .await?;
        assert_eq!(list.rows("servers").len(), found, "{selector}");
    }
    let path = format!("/servers/{id}");
    let changed = world
        .put(&path, &json!({ "labels": { "role": "claimed" } }))
        .await?;
    assert_eq!(changed.at("/server/labels"), &json!({ "role": "claimed" }));
    assert_eq!(changed.at("/server/name"), "a");
    for wrong in [
        json!({ "hetzner.cloud/x": "y" }),
        json!({ "a": "-" }),
        json!({ "": "" }),
    ] {
        let refused = world.put(&path, &json!({ "labels": wrong })).await?;
        assert_eq!(refused.refusal(), (422, "invalid_input"), "{wrong}");
    }
    let taken = world.put(&path, &json!({ "name": "b" })).await?;
    assert_eq!(taken.refusal(), (409, "uniqueness_error"));
    let by_status = world.get("/servers?status=running&status=off").await?;
    assert_eq!(by_status.rows("servers").len(), 2);
    let by_name = world.get("/servers?name=b").await?;
    assert_eq!(by_name.rows("servers").len(), 1);
    world.end().await
}

#[tokio::test]
async fn places_and_limits_run_out() -> anyhow::Result<()> {
    let mut settings = Settings::quick().with_room("cx23", "nbg1", 1);
    settings.limits.servers = 2;
    let world = World::with(settings).await?;
    let id = world.server("a", &json!({})).await?;
    let full = world.order("b", &json!({})).await?;
    assert_eq!(full.refusal(), (412, "resource_unavailable"));
    // What the catalogue calls sold out is.
    let sold_out = world.order("b", &json!({ "location": "fsn1" })).await?;
    assert_eq!(sold_out.refusal(), (412, "resource_unavailable"));
    let nowhere = world.order("b", &json!({ "location": "ash" })).await?;
    assert_eq!(nowhere.refusal(), (422, "invalid_input"));
    let elsewhere = world.order("b", &json!({ "server_type": "cpx22" })).await?;
    assert_eq!(elsewhere.status, 201);
    world.fake.set_room("cx23", "nbg1", 5);
    let limit = world.order("c", &json!({})).await?;
    assert_eq!(limit.refusal(), (403, "resource_limit_exceeded"));
    let deleted = world.delete(&format!("/servers/{id}")).await?;
    world.success(deleted.id("/action/id")).await?;
    assert_eq!(world.order("c", &json!({})).await?.status, 201);

    let books = world.fake.books();
    assert_eq!(books.ever(Kind::Server).count(), 3);
    assert_eq!(books.existing(Kind::Server).count(), 2);
    assert_eq!(books.server_hours(), 3, "a started hour each");
    assert_eq!(books.calls_of("POST /servers"), 7);
    world.end().await
}

#[tokio::test]
async fn an_address_goes_with_its_server_unless_it_is_held() -> anyhow::Result<()> {
    let world = World::start().await?;
    let held = json!({
        "name": "mine", "type": "ipv4", "assignee_type": "server", "location": "nbg1",
        "labels": { "env": "t" },
    });
    let held = world.post("/primary_ips", &held).await?;
    assert_eq!(held.at("/primary_ip/assignee_type"), "unassigned");
    let held_id = held.id("/primary_ip/id");
    let net = json!({ "public_net": { "ipv4": held_id, "enable_ipv6": false } });
    let with_held = world.server("a", &net).await?;
    let own = world.server("b", &json!({})).await?;
    let shown = world.get(&format!("/servers/{with_held}")).await?;
    assert_eq!(
        shown.at("/server/public_net/ipv4/ip"),
        held.at("/primary_ip/ip")
    );
    assert!(shown.at("/server/public_net/ipv6").is_null());
    let list = world.get("/primary_ips").await?;
    let made = |row: &&Value| row["assignee_id"] == own;
    let made: Vec<_> = list.rows("primary_ips").iter().filter(made).collect();
    assert_eq!(made.len(), 2);
    for row in made {
        assert_eq!(
            (&row["auto_delete"], &row["labels"]),
            (&json!(true), &json!({}))
        );
        let name = row["name"].as_str().unwrap_or_default();
        assert!(name.starts_with("primary_ip-"), "{name}");
    }
    let path = format!("/primary_ips/{held_id}");
    let refused = world.delete(&path).await?;
    assert_eq!(refused.refusal(), (422, "must_be_unassigned"));
    let twice = world.order("c", &net).await?;
    assert_eq!(twice.refusal(), (422, "primary_ip_assigned"));
    for id in [with_held, own] {
        let deleted = world.delete(&format!("/servers/{id}")).await?;
        world.success(deleted.id("/action/id")).await?;
    }
    let left = world.get("/primary_ips").await?;
    assert_eq!(left.rows("primary_ips").len(), 1, "{left:?}");
    let selected = world.get("/primary_ips?label_selector=env%3Dt").await?;
    assert_eq!(selected.at("/primary_ips/0/assignee_type"), "unassigned");
    assert_eq!(world.delete(&path).await?.status, 204);
    assert_eq!(world.fake.books().existing(Kind::PrimaryIp).count(), 0);
    world.end().await
}

#[tokio::test]
async fn a_server_reads_its_metadata_and_user_data_without_a_token() -> anyhow::Result<()> {
    let world = World::start().await?;
    let id = world
        .server("a", &json!({ "user_data": "#cloud-config\n" }))
        .await?;
    world.server("b", &json!({})).await?;
    let base = format!("{}/machines", world.fake.admin_url());
    let http = reqwest::Client::builder().build()?;
    let ask = async |address: &str, path: &str| -> anyhow::Result<(u16, String)> {
        let url = format!("{base}/{address}/hetzner/v1/{path}");
        let answer = http.get(url).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    };
    let own = ask("10.77.0.1", "userdata").await?;
    assert_eq!(own, (200, "#cloud-config\n".to_owned()));
    assert_eq!(ask("10.77.0.2", "userdata").await?, (204, String::new()));
    let number = ask("10.77.0.1", "metadata/instance-id").await?;
    assert_eq!(number, (200, id.to_string()));
    let all = ask("10.77.0.1", "metadata").await?.1;
    assert!(
        all.contains("hostname: a\n") && all.contains("region: eu-central"),
        "{all}"
    );
    assert_eq!(ask("10.77.0.9", "metadata").await?.0, 404);
    let long = world
        .order("c", &json!({ "user_data": "x".repeat(32 * 1024 + 1) }))
        .await?;
    assert_eq!(long.refusal(), (422, "invalid_input"));
    let bodies = world.fake.requests();
    let first = bodies
        .iter()
        .find(|request| request.operation == "POST /servers");
    assert_eq!(
        first.map(|request| &request.body["user_data"]),
        Some(&json!("#cloud-config\n"))
    );
    world.end().await
}
