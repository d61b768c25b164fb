//! Rates and budgets, as a server meets them.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::{Rig, chat, rig, stream};

fn error_of(answer: &str) -> Value {
    serde_json::from_str::<Value>(answer).unwrap()["error"].clone()
}

/// What a usual answer costs; see `usual`.
const USUAL: i64 = 1620;

#[tokio::test]
async fn too_many_requests_in_a_minute_are_told_when_to_come_back() {
    let rig = Rig::start().await;
    rig.limit("tier/free", &json!({"requests_per_minute": 2}))
        .await;
    let request = chat("default", false);
    for _ in 0..2 {
        let (status, _) = rig.post("/v1/chat/completions", &request).await;
        assert_eq!(status, 200);
    }
    let refused = rig.send("/v1/chat/completions", &request).await;
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    let answer: Value = refused.json().await.unwrap();
    assert_eq!(answer["error"]["code"], "rate_limit_exceeded");
    let message = json!({"model": "claude", "max_tokens": 10, "messages": []});
    let (status, answer) = rig.post("/v1/messages", &message).await;
    assert_eq!(
        (status, &error_of(&answer)["type"]),
        (429, &json!("rate_limit_error"))
    );
    assert_eq!(rig.rows(2).await.len(), 2, "a refusal is no attempt");
    // The instance's own limits go before its tier's.
    rig.limit(rig::INSTANCE, &json!({"requests_per_minute": 100}))
        .await;
    let (status, _) = rig.post("/v1/chat/completions", &request).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn tokens_that_were_used_shut_an_instance_out_until_they_are_worked_off() {
    let rig = Rig::start().await;
    rig.limit("tier/free", &json!({"tokens_per_minute": 100}))
        .await;
    let request = chat("default", true);
    let (status, _) = rig.post("/v1/chat/completions", &request).await;
    assert_eq!(status, 200);
    rig.only_row().await;
    let (status, _) = rig.post("/v1/chat/completions", &request).await;
    assert_eq!(status, 429, "107 tokens of 100 were used");
}

#[tokio::test]
async fn what_is_under_way_is_reserved_and_what_is_spent_is_gone() {
    let rig = Rig::start().await;
    // An answer of unknown length is reserved for as 4,096 tokens, 245,760 microcents.
    rig.limit("tier/free", &json!({"day_microcents": 300_000}))
        .await;
    let endless = stream("never end");
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..6 {
        let response = rig.send("/v1/chat/completions", &endless).await;
        match response.status().as_u16() {
            200 => open.push(response),
            402 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(
        (open.len(), refused),
        (2, 4),
        "the second began when something was left"
    );
    drop(open);
    rig.rows(2).await;
    let (status, answer) = rig
        .post("/v1/chat/completions", &chat("default", false))
        .await;
    assert_eq!(
        status, 200,
        "what was reserved and not spent is there again: {answer}"
    );
    let rows = rig.rows(3).await;
    let spent: i64 = rows.iter().filter_map(|row| row.cost_microcents).sum();
    assert_eq!(
        rig.spent().await,
        [spent, spent],
        "in the day and in the month"
    );
}

#[tokio::test]
async fn a_spent_budget_ends_turns_in_every_dialect_and_costs_no_provider_a_call() {
    let rig = Rig::start().await;
    rig.limit(rig::INSTANCE, &json!({"month_microcents": USUAL}))
        .await;
    let request = chat("default", false);
    let (status, _) = rig.post("/v1/chat/completions", &request).await;
    assert_eq!(status, 200);
    rig.only_row().await;
    let (status, answer) = rig.post("/v1/chat/completions", &request).await;
    assert_eq!(
        (status, &error_of(&answer)["code"]),
        (402, &json!("budget_exhausted"))
    );
    assert!(
        error_of(&answer)["message"]
            .as_str()
            .unwrap()
            .contains("month")
    );
    let message = json!({"model": "claude", "max_tokens": 10, "messages": []});
    let (status, answer) = rig.post("/v1/messages", &message).await;
    assert_eq!(
        (status, &error_of(&answer)["type"]),
        (402, &json!("billing_error"))
    );
    let path = "/v1beta/models/gemini:generateContent";
    let (status, _) = rig.post(path, &json!({"contents": []})).await;
    assert_eq!(status, 402);
    assert_eq!(rig.upstream.heard().len(), 1);
    // Their own key is theirs to spend.
    rig.give_own_key("main", "sk-theirs").await;
    let (status, _) = rig.post("/v1/chat/completions", &request).await;
    assert_eq!(status, 200);
    assert_eq!(rig.rows(2).await[1].payer, "own");
    assert_eq!(rig.spent().await, [USUAL, USUAL]);
}

#[tokio::test]
async fn a_suspended_agent_is_told_so_in_every_dialect_whoever_pays() {
    let rig = Rig::start().await;
    rig.give_own_key("main", "sk-theirs").await;
    rig.run("UPDATE instances SET status = 'suspended'").await;
    rig.is_read().await;
    let request = chat("default", false);
    let (status, answer) = rig.post("/v1/chat/completions", &request).await;
    assert_eq!(
        (status, &error_of(&answer)["code"]),
        (403, &json!("suspended"))
    );
    let message = json!({"model": "claude", "max_tokens": 10, "messages": []});
    let (status, answer) = rig.post("/v1/messages", &message).await;
    assert_eq!(
        (status, &error_of(&answer)["type"]),
        (403, &json!("permission_error"))
    );
    let path = "/v1beta/models/gemini:generateContent";
    let (status, answer) = rig.post(path, &json!({"contents": []})).await;
    assert_eq!(
        (status, &error_of(&answer)["status"]),
        (403, &json!("PERMISSION_DENIED"))
    );
    assert_eq!(rig.upstream.heard().len(), 0);
}

#[tokio::test]
async fn a_store_that_cannot_say_what_is_left_is_a_refusal() {
    let rig = Rig::start().await;
    rig.limit("tier/free", &json!({"day_microcents": 1_000_000}))
        .await;
    rig.run("ALTER TABLE spending RENAME TO hidden").await;
    let request = chat("default", false);
    let response = rig.send("/v1/chat/completions", &request).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    assert!(rig.upstream.heard().is_empty());
    rig.run("ALTER TABLE hidden RENAME TO spending").await;
    let (status, _) = rig.post("/v1/chat/completions", &request).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn what_costs_nobody_knows_what_is_served_with_a_key_of_their_own_only() {
    let rig = Rig::start().await;
    let with = |key: &str, value: Value| {
        let mut request = chat("default", false);
        request[key] = value;
        request
    };
    for (key, value) in [
        ("previous_response_id", json!("resp_1")),
        ("background", json!(true)),
        ("Background", json!(true)),
        ("models", json!(["anthropic/claude-opus-4.5"])),
        ("web_search_options", json!({})),
        (
            "tools",
            json!([{"type": "function", "function": {"name": "a"}}, {"type": "web_search"}]),
        ),
        ("tools", json!([{"google_search": {}}])),
        ("n", json!(9)),
    ] {
        let (status, answer) = rig.post("/v1/chat/completions", &with(key, value)).await;
        assert_eq!(
            (status, &error_of(&answer)["code"]),
            (400, &json!("not_on_this_key")),
            "{key}"
        );
    }
    // Gemini takes a single tool for a list.
    let path = "/v1beta/models/gemini:generateContent";
    let request = json!({"contents": [], "tools": {"googleSearch": {}}});
    assert_eq!(rig.post(path, &request).await.0, 400);
    assert!(rig.upstream.heard().is_empty());
    let own =
        json!([{"type": "function", "function": {"name": "a"}}, {"name": "b", "input_schema": {}}]);
    for (key, value) in [
        ("tools", own),
        ("background", json!(false)),
        ("conversation", Value::Null),
        ("n", json!(2)),
    ] {
        let (status, answer) = rig.post("/v1/chat/completions", &with(key, value)).await;
        assert_eq!(status, 200, "{key}: {answer}");
    }
    rig.give_own_key("main", "sk-theirs").await;
    let request = with("background", json!(true));
    assert_eq!(rig.post("/v1/chat/completions", &request).await.0, 200);
}

#[tokio::test]
async fn a_model_without_a_price_is_not_served_where_there_is_a_budget() {
    let rig = Rig::start().await;
    let request = chat("unpriced", false);
    assert_eq!(rig.post("/v1/chat/completions", &request).await.0, 200);
    rig.limit("tier/free", &json!({"day_microcents": 1_000_000}))
        .await;
    let (status, answer) = rig.post("/v1/chat/completions", &request).await;
    assert_eq!(
        (status, &error_of(&answer)["code"]),
        (502, &json!("no_price"))
    );
    assert_eq!(rig.upstream.heard().len(), 1);
}

#[tokio::test]
async fn who_leaves_before_the_answer_began_pays_for_the_prompt_alone() {
    let rig = Rig::start().await;
    rig.limit("tier/free", &json!({"day_microcents": 10_000_000_000_u64}))
        .await;
    let request = rig.request("/v1/chat/completions", &stream("think"));
    let patience = Duration::from_millis(900);
    assert!(
        tokio::time::timeout(patience, request.send())
            .await
            .is_err()
    );
    let row = rig.only_row().await;
    assert_eq!((row.outcome.as_str(), row.estimated), ("abandoned", true));
    assert_eq!(row.output, 0, "the provider may have done nothing at all");
    assert!(row.input > 0, "{row:?}");
    assert_eq!(rig.spent().await, [row.cost_microcents.unwrap(); 2]);
}

/// The row of a stream that a client left after this long.
async fn left(rig: &Rig, behaviour: &str, patience: Duration) -> rig::Row {
    let response = rig.send("/v1/chat/completions", &stream(behaviour)).await;
    let mut events = response.bytes_stream();
    events.next().await.unwrap().unwrap();
    tokio::time::sleep(patience).await;
    drop(events);
    rig.only_row().await
}

#[tokio::test]
async fn who_leaves_a_model_at_work_pays_for_the_time_in_which_nothing_was_seen() {
    let rig = Rig::start().await;
    let row = left(&rig, "wait", Duration::from_millis(900)).await;
    assert_eq!((row.outcome.as_str(), row.estimated), ("client_left", true));
    assert!((10..4096).contains(&row.output), "{row:?}");
}

#[tokio::test]
async fn nothing_is_guessed_over_what_the_provider_counted_itself() {
    let rig = Rig::start().await;
    let row = left(&rig, "count along", Duration::from_millis(900)).await;
    assert_eq!((row.outcome.as_str(), row.estimated), ("client_left", true));
    assert_eq!((row.input, row.output), (60, 7));
}

#[tokio::test]
async fn whatever_a_neighbour_says_it_has_its_own_budget_key_and_usage() {
    const NEIGHBOUR: &str = "inst_00000000000000000000000007";
    let rig = Rig::start().await;
    rig.give_own_key("main", "sk-theirs").await;
    let address = std::net::Ipv4Addr::new(127, 9, 1, 50);
    let neighbour = rig.second_customer(NEIGHBOUR, address).await;
    rig.limit(NEIGHBOUR, &json!({"day_microcents": 0})).await;
    let owner = rig::OWNER.to_string();
    let ask = async |path: &str, model: &str| {
        let request = neighbour.post(rig.url(path)).json(&chat(model, false));
        let request = request
            .header("x-forwarded-for", &owner)
            .header("forwarded", format!("for={owner}"))
            .header("x-real-ip", &owner)
            .header("x-tidepool-instance", rig::INSTANCE)
            .header("authorization", "Bearer sk-theirs")
            .header("openai-organization", "theirs");
        request.send().await.unwrap().status().as_u16()
    };
    // Its own budget is nothing, whoever it says it is, and a key is the owner's alone.
    assert_eq!(ask("/v1/chat/completions", "default").await, 402);
    assert_eq!(ask("/v1/chat/completions?instance=x", "default").await, 402);
    assert_eq!(ask("/v1/chat/completions", "main/gpt-4o").await, 404);
    for path in [
        "//v1/chat/completions",
        "/v1/chat/completions/",
        "/v1/usage",
    ] {
        assert_eq!(ask(path, "default").await, 404, "{path}");
    }
    assert!(rig.upstream.heard().is_empty());
    rig.limit(NEIGHBOUR, &json!({})).await;
    assert_eq!(ask("/v1/chat/completions", "default").await, 200);
    assert_eq!(
        rig.upstream.heard()[0].headers["authorization"],
        "Bearer sk-ours"
    );
    let row = rig.only_row().await;
    assert_eq!(
        (row.instance_id.as_deref(), row.payer.as_str()),
        (Some(NEIGHBOUR), "managed")
    );
    assert_eq!(rig.spent().await, [0, 0], "nothing is the owner's");
}
