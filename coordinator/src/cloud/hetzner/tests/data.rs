//! The API's own description: every example is understood, every body is as it has to be.

use std::sync::LazyLock;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Seen, Stage, order};
use crate::cloud::{
    Cloud as _, Labels,
    hetzner::wire::{Action, Image, Meta, PrimaryIp, Server},
};

static SCHEMAS: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../../../tests/data/hetzner/response-schemas.json");
    serde_json::from_str(text).unwrap()
});

/// Fails the test whose client sent a body that the API would refuse.
pub(super) fn check_request(seen: &Seen) {
    let path = seen
        .path
        .split('/')
        .map(|part| part.parse::<u64>().map_or(part, |_| "{id}"))
        .collect::<Vec<_>>()
        .join("/");
    let key = format!("{} /{path}", seen.method);
    match SCHEMAS["requests"].get(&key) {
        Some(schema) => {
            let validator = jsonschema::validator_for(schema).unwrap();
            let wrong: Vec<String> = validator
                .iter_errors(&seen.body)
                .map(|error| format!("{} at {}", error, error.instance_path()))
                .collect();
            assert!(wrong.is_empty(), "{key}: {wrong:?}");
        }
        None => assert_eq!(seen.body, Value::Null, "{key} takes no body"),
    }
}

fn decode<T: DeserializeOwned>(value: &Value, what: &str) {
    if let Err(error) = serde_json::from_value::<T>(value.clone()) {
        panic!("{what}: {error}");
    }
}

/// Whether the client knows such a thing; it is understood then.
fn understood(name: &str, value: &Value, what: &str) -> bool {
    match name {
        "server" => decode::<Server>(value, what),
        "action" => decode::<Option<Action>>(value, what),
        "actions" | "next_actions" => decode::<Vec<Action>>(value, what),
        "image" => decode::<Image>(value, what),
        "primary_ip" => decode::<PrimaryIp>(value, what),
        "meta" => decode::<Meta>(value, what),
        _ => return false,
    }
    true
}

#[test]
fn every_example_of_hetzner_is_understood() {
    let text = include_str!("../../../../../tests/data/hetzner/examples.json");
    let examples: Map<String, Value> = serde_json::from_str(text).unwrap();
    let mut count = 0;
    for (operation, kinds) in &examples {
        for (status, examples) in kinds.as_object().unwrap() {
            if status == "request" {
                continue;
            }
            for example in examples.as_object().unwrap().values() {
                for (name, value) in example.as_object().unwrap() {
                    count += usize::from(understood(name, value, operation));
                }
            }
        }
    }
    assert!(count > 70, "only {count} things were looked at");
}

#[tokio::test(start_paused = true)]
async fn every_body_that_is_sent_is_one_that_the_api_takes() {
    let stage = Stage::smooth();
    let name = "tidepool-a";
    stage.cloud.create(&order(name)).await.unwrap();
    let claimed = Labels::from([("role".to_owned(), "claimed".to_owned())]);
    stage.cloud.relabel(name, &claimed).await.unwrap();
    stage.miniature(|miniature| {
        miniature.firewalls[0]["rules"] = json!([]);
        miniature.servers[0]["protection"] = json!({"delete": true, "rebuild": true});
    });
    stage.cloud.ensure_firewall().await.unwrap();
    stage.cloud.delete(name).await.unwrap();
    let bodies = stage.seen(|seen| seen.body != Value::Null);
    let sent: Vec<String> = bodies
        .iter()
        .map(|seen| format!("{} {}", seen.method, seen.path))
        .collect();
    assert_eq!(
        sent,
        [
            "POST firewalls",
            "POST servers",
            "PUT servers/40",
            "POST firewalls/5/actions/set_rules",
            "POST servers/40/actions/change_protection",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn relabelling_replaces_all_labels_but_those_that_make_it_ours() {
    let stage = Stage::smooth();
    stage.cloud.create(&order("tidepool-a")).await.unwrap();
    let claimed = Labels::from([("role".to_owned(), "claimed".to_owned())]);
    stage.cloud.relabel("tidepool-a", &claimed).await.unwrap();
    let labels = stage.miniature(|miniature| miniature.servers[0]["labels"].clone());
    let expected = json!({"env": "test", "managed-by": "tidepool", "role": "claimed"});
    assert_eq!(labels, expected);
}
