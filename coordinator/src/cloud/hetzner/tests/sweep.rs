//! The list of everything that is ours, and removing from it.

use http::Method;
use serde_json::{Value, json};

use super::{
    Reply, Stage, fault,
    miniature::{image, page, server},
    ours, refusal,
};
use crate::{
    ambient::Moment,
    cloud::{Cloud as _, CloudObject, Fault, Labels, ObjectKind},
};

fn firewall(applied_to: &Value) -> Value {
    json!({"id": 5, "name": "tidepool-test", "labels": ours(), "rules": [],
        "created": "2026-10-01T12:00:00Z", "applied_to": applied_to})
}

fn address(assignee: &Value) -> Value {
    json!({"id": 6, "name": "spare", "labels": ours(), "created": "2026-10-01T12:00:00Z",
        "assignee_type": "unassigned", "assignee_id": assignee})
}

fn full() -> Stage {
    full_with(|_, _| None)
}

fn full_with(
    twist: impl FnMut(&super::Seen, &mut super::Miniature) -> Option<Reply> + Send + 'static,
) -> Stage {
    let stage = Stage::with(twist);
    stage.miniature(|miniature| {
        miniature.servers.push(server(4, "tidepool-a", &ours()));
        let applied = json!([{"type": "label_selector", "label_selector": {"selector": "a"}}]);
        miniature.firewalls.push(firewall(&applied));
        miniature.images.push(image(7, &ours()));
        miniature.addresses.push(address(&Value::Null));
    });
    stage
}

#[tokio::test(start_paused = true)]
async fn everything_that_bears_our_labels_is_listed() {
    let stage = full();
    let all = stage.cloud.inventory().await.unwrap();
    let short: Vec<_> = all
        .iter()
        .map(|object| (object.kind, object.id.as_str(), object.in_use))
        .collect();
    assert_eq!(
        short,
        [
            (ObjectKind::Server, "4", false),
            (ObjectKind::Firewall, "5", true),
            (ObjectKind::Snapshot, "7", false),
            (ObjectKind::PrimaryAddress, "6", false),
        ]
    );
    assert_eq!(all[0].created_at.rfc3339(), "2026-10-01T12:00:00.000Z");
    assert_eq!(all[0].labels["role"], "pool");
    let asked = stage.seen(|_| true);
    assert!(
        asked
            .iter()
            .all(|seen| seen.query("label_selector") == Some("managed-by=tidepool,env=test"))
    );
    assert_eq!(asked[2].query("type"), Some("snapshot"));
}

/// The so-manieth page of servers, one on each, of three.
fn third(page_number: u64, total: u64) -> Reply {
    let next = (page_number < 3).then_some(page_number + 1);
    let name = format!("tidepool-{page_number}");
    let items = [server(page_number, &name, &ours())];
    let meta = json!({"pagination": {"next_page": next, "total_entries": total}});
    Reply::Json(200, json!({"servers": items, "meta": meta}))
}

#[tokio::test(start_paused = true)]
async fn all_pages_are_read() {
    let stage = Stage::with(|seen, _| {
        let listing = seen.is(&Method::GET, "servers");
        listing.then(|| third(seen.query("page").unwrap().parse().unwrap(), 3))
    });
    let all = stage.cloud.inventory().await.unwrap();
    assert_eq!(all.len(), 3);
    let first = stage
        .seen(|seen| seen.is(&Method::GET, "servers"))
        .remove(0);
    assert_eq!(
        (first.query("per_page"), first.query("sort")),
        (Some("50"), Some("id:asc"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_page_that_fails_voids_the_list() {
    let stage = Stage::with(|seen, _| match (seen.path.as_str(), seen.query("page")) {
        ("servers", Some("2")) => Some(refusal(503, "unavailable")),
        ("servers", Some(page)) => Some(third(page.parse().unwrap(), 3)),
        _ => None,
    });
    assert_eq!(fault(stage.cloud.inventory().await), Fault::Unknown);
    assert_eq!(stage.seen(|seen| seen.query("page") == Some("2")).len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_changes_while_it_is_read_is_read_again_and_then_given_up() {
    // One was deleted between the pages: its successor slipped onto the page before.
    let mut reads = 0;
    let stage = Stage::with(move |seen, _| {
        if !seen.is(&Method::GET, "servers") {
            return None;
        }
        let page: u64 = seen.query("page").unwrap().parse().unwrap();
        reads += usize::from(page == 1);
        Some(third(page, if reads == 1 { 4 } else { 3 }))
    });
    assert_eq!(stage.cloud.inventory().await.unwrap().len(), 3);

    let restless = Stage::with(|seen, _| {
        let listing = seen.is(&Method::GET, "servers");
        listing.then(|| third(seen.query("page").unwrap().parse().unwrap(), 4))
    });
    assert_eq!(fault(restless.cloud.inventory().await), Fault::Busy);
}

#[tokio::test(start_paused = true)]
async fn what_a_selector_found_without_our_labels_is_not_ours() {
    let stage = Stage::with(|seen, _| {
        let foreign = server(1, "foreign", &json!({"managed-by": "tidepool"}));
        seen.is(&Method::GET, "servers")
            .then(|| page("servers", &[foreign]))
    });
    assert!(stage.cloud.inventory().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn everything_listed_can_be_removed_and_removed_again() {
    let stage = full();
    let all = stage.cloud.inventory().await.unwrap();
    for object in all.iter().chain(&all) {
        stage.cloud.remove(object).await.unwrap();
    }
    assert!(stage.cloud.inventory().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_lost_our_labels_since_it_was_listed_is_not_removed() {
    let stage = full();
    let all = stage.cloud.inventory().await.unwrap();
    stage.miniature(|miniature| {
        let theirs = json!({"managed-by": "tidepool", "env": "prod"});
        miniature.servers[0]["labels"] = theirs.clone();
        miniature.firewalls[0]["labels"] = json!({});
        miniature.images[0]["labels"] = theirs;
        miniature.addresses[0]["labels"] = json!({"env": "test"});
    });
    for object in &all {
        assert_eq!(fault(stage.cloud.remove(object).await), Fault::Invalid);
    }
    assert!(stage.seen(|seen| seen.method == Method::DELETE).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_something_else_still_needs_is_for_later() {
    let stage = full_with(|seen, _| match seen.path.as_str() {
        "firewalls/5" if seen.method == Method::DELETE => Some(refusal(422, "resource_in_use")),
        _ => None,
    });
    let all = stage.cloud.inventory().await.unwrap();
    assert_eq!(fault(stage.cloud.remove(&all[1]).await), Fault::Busy);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_none_is_not_put_into_a_path() {
    let object = CloudObject {
        kind: ObjectKind::Snapshot,
        id: "../servers/4".to_owned(),
        name: "a".to_owned(),
        labels: Labels::new(),
        created_at: Moment(0),
        in_use: false,
    };
    let stage = full();
    assert_eq!(fault(stage.cloud.remove(&object).await), Fault::Invalid);
    assert!(stage.seen(|_| true).is_empty());
}
