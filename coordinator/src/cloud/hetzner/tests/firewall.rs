//! The firewall: made once, there before any server, put right when it drifted.

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use super::{Reply, Stage, fault, order, refusal};
use crate::cloud::{Cloud as _, Fault};

fn rules(stage: &Stage) -> Value {
    stage.miniature(|miniature| miniature.firewalls[0]["rules"].clone())
}

fn wanted() -> Value {
    json!([{
        "direction": "in",
        "protocol": "tcp",
        "port": "443",
        "source_ips": ["192.0.2.7/32", "2001:db8::7/128"],
    }])
}

#[tokio::test(start_paused = true)]
async fn it_admits_the_edge_port_from_the_main_servers_and_nothing_else() {
    let stage = Stage::smooth();
    stage.cloud.ensure_firewall().await.unwrap();
    assert_eq!(rules(&stage), wanted());
    let labels = stage.miniature(|miniature| miniature.firewalls[0]["labels"].clone());
    assert_eq!(labels, json!({"managed-by": "tidepool", "env": "test"}));
}

#[tokio::test(start_paused = true)]
async fn it_is_made_once_for_many_servers() {
    let stage = Stage::smooth();
    let orders: Vec<_> = ["tidepool-a", "tidepool-b", "tidepool-c"].map(order).into();
    for made in join_all(orders.iter().map(|order| stage.cloud.create(order))).await {
        made.unwrap();
    }
    assert_eq!(stage.count(&Method::POST, "firewalls"), 1);
    assert_eq!(stage.count(&Method::GET, "firewalls"), 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_put_right_when_it_drifted_and_left_alone_otherwise() {
    let stage = Stage::smooth();
    stage.cloud.ensure_firewall().await.unwrap();
    stage.cloud.ensure_firewall().await.unwrap();
    let setting = "firewalls/5/actions/set_rules";
    assert_eq!(stage.count(&Method::POST, setting), 0);
    let opened = json!([{"direction": "in", "protocol": "tcp", "port": "22",
        "source_ips": ["0.0.0.0/0"], "destination_ips": []}]);
    stage.miniature(|miniature| miniature.firewalls[0]["rules"] = opened);
    stage.cloud.ensure_firewall().await.unwrap();
    assert_eq!(rules(&stage), wanted());
    assert_eq!(stage.count(&Method::POST, setting), 1);
}

#[tokio::test(start_paused = true)]
async fn one_of_that_name_that_is_not_ours_is_not_touched() {
    let stage = Stage::smooth();
    let foreign = json!({"id": 6, "name": "tidepool-test", "labels": {}, "rules": [],
        "created": "2026-10-01T12:00:00Z"});
    stage.miniature(|miniature| miniature.firewalls.push(foreign));
    assert_eq!(fault(stage.cloud.ensure_firewall().await), Fault::Invalid);
    assert_eq!(
        fault(stage.cloud.create(&order("tidepool-a")).await),
        Fault::Invalid
    );
    assert!(stage.seen(|seen| seen.method != Method::GET).is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_whose_answer_was_lost_is_found_and_not_made_again() {
    let mut first = true;
    let stage = Stage::with(move |seen, miniature| {
        let lost = seen.is(&Method::POST, "firewalls") && std::mem::take(&mut first);
        lost.then(|| {
            miniature.reply(seen);
            Reply::Lost
        })
    });
    stage.cloud.ensure_firewall().await.unwrap();
    assert_eq!(stage.count(&Method::POST, "firewalls"), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_deleted_is_made_again_for_the_next_server() {
    let stage = Stage::with(move |seen, miniature| {
        let dangling = seen.is(&Method::POST, "servers") && miniature.firewalls.is_empty();
        dangling.then(|| refusal(404, "not_found"))
    });
    stage.cloud.create(&order("tidepool-a")).await.unwrap();
    stage.miniature(|miniature| miniature.firewalls.clear());
    assert_eq!(
        fault(stage.cloud.create(&order("tidepool-b")).await),
        Fault::Invalid
    );
    stage.cloud.create(&order("tidepool-b")).await.unwrap();
}
