//! Requests on their way to a provider and back, through the real server, with a provider that misbehaves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "forward/limits.rs"]
mod limits;
#[path = "forward/metrics.rs"]
mod metrics;
#[path = "forward/rig.rs"]
mod rig;
#[path = "forward/upstream.rs"]
mod upstream;

use std::{net::Ipv4Addr, time::Duration};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use self::rig::{Rig, Row};

fn chat(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]})
}

/// A stream of the model that has a price, behaving so.
fn stream(behaviour: &str) -> Value {
    json!({"model": "default", "stream": true, "messages": [{"role": "user", "content": behaviour}]})
}

/// What the provider counts for its usual answer, priced as gpt-4o-mini.
fn usual(row: &Row) {
    assert_eq!((row.input, row.cache_read, row.output), (60, 40, 7));
    // 60 x 150,000 + 40 x 75,000 + 7 x 600,000 picodollars.
    assert_eq!(row.cost_microcents, Some(1620));
    assert!(!row.estimated);
}

#[tokio::test]
async fn a_stream_passes_byte_for_byte_and_is_accounted_exactly() {
    let rig = Rig::start().await;
    let (status, answer) = rig
        .post("/v1/chat/completions", &chat("default", true))
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        answer,
        upstream::chat_stream(false),
        "the usage that we asked for is not the client's"
    );
    let row = rig.only_row().await;
    usual(&row);
    assert_eq!((row.outcome.as_str(), row.status), ("completed", 200));
    assert_eq!(
        (row.model.as_str(), row.asked_model.as_str()),
        ("gpt-4o-mini", "default")
    );
    assert_eq!(
        (row.payer.as_str(), row.instance_id.as_deref()),
        ("managed", Some(rig::INSTANCE))
    );
}

#[tokio::test]
async fn a_client_that_asks_for_usage_gets_it() {
    let rig = Rig::start().await;
    let mut request = chat("default", true);
    request["stream_options"] = json!({"include_usage": true});
    let (_, answer) = rig.post("/v1/chat/completions", &request).await;
    assert_eq!(answer, upstream::chat_stream(true));
    usual(&rig.only_row().await);
}

#[tokio::test]
async fn a_plain_answer_passes_as_it_is() {
    let rig = Rig::start().await;
    let (status, answer) = rig
        .post("/v1/chat/completions", &chat("default", false))
        .await;
    assert_eq!((status, answer), (200, upstream::chat_body()));
    usual(&rig.only_row().await);
}

#[tokio::test]
async fn a_provider_that_fails_is_followed_by_the_next_and_both_are_rows() {
    let rig = Rig::start().await;
    let (status, _) = rig
        .post("/v1/chat/completions", &chat("fallback", true))
        .await;
    assert_eq!(status, 200);
    let rows = rig.rows(2).await;
    assert_eq!(
        (rows[0].outcome.as_str(), rows[0].status),
        ("upstream_refused", 500)
    );
    assert_eq!((rows[0].output, rows[0].cost_microcents), (0, Some(0)));
    assert!(!rows[0].estimated, "who refuses does not charge");
    assert_eq!(rows[1].outcome, "completed");
    assert_eq!(rows[0].request_id, rows[1].request_id);
}

#[tokio::test]
async fn a_provider_that_breaks_off_never_looks_like_an_end() {
    let rig = Rig::start().await;
    let (_, answer) = rig.post("/v1/chat/completions", &stream("cut")).await;
    assert!(!answer.contains("[DONE]"), "{answer}");
    let last = answer.trim_end().rsplit("\n\n").next().unwrap();
    let error: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "upstream_broke_off");
    let row = rig.only_row().await;
    assert_eq!(
        (row.outcome.as_str(), row.estimated),
        ("upstream_broke", true)
    );
    assert!(row.output > 0 && row.input > 0, "{row:?}");
}

#[tokio::test]
async fn a_stream_that_ends_in_order_and_too_early_is_told_as_broken_off() {
    let rig = Rig::start().await;
    let message = json!({"model": "claude", "max_tokens": 10, "stream": true,
        "messages": [{"role": "user", "content": "end early"}]});
    let response = json!({"model": "default", "stream": true, "input": "end early"});
    let chat = stream("end early");
    for (rows, path, request) in [
        (1, "/v1/chat/completions", chat),
        (2, "/v1/messages", message),
        (3, "/v1/responses", response),
    ] {
        let (_, answer) = rig.post(path, &request).await;
        let last = answer.trim_end().rsplit("\n\n").next().unwrap();
        assert!(last.contains("the provider broke off"), "{path}: {answer}");
        let row = rig.rows(rows).await.pop().unwrap();
        assert_eq!(
            (row.outcome.as_str(), row.estimated),
            ("upstream_broke", true),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_provider_that_says_why_it_ended_needs_no_mark() {
    let rig = Rig::start().await;
    let request = stream("end without a mark");
    let (_, answer) = rig.post("/v1/chat/completions", &request).await;
    assert!(!answer.contains("error"), "{answer}");
    assert_eq!(rig.only_row().await.outcome, "completed");
    let response = json!({"model": "default", "stream": true, "input": "Hi"});
    let (_, answer) = rig.post("/v1/responses", &response).await;
    assert_eq!(answer, upstream::responses_stream());
    assert_eq!(rig.rows(2).await[1].outcome, "completed");
}

#[tokio::test]
async fn what_was_asked_whole_and_not_answered_is_an_estimate_of_what_was_read() {
    let rig = Rig::start().await;
    let (status, _) = rig.post("/v1/chat/completions", &stream("hang up")).await;
    assert_eq!(status, 502);
    for row in rig.rows(2).await {
        assert_eq!(
            (row.outcome.as_str(), row.status, row.estimated),
            ("upstream_failed", 502, true)
        );
        assert!(row.input > 0 && row.cost_microcents > Some(0), "{row:?}");
        assert_eq!(row.output, 0);
    }
}

#[tokio::test]
async fn who_leaves_before_the_head_pays_for_time_if_the_model_was_at_work_in_it() {
    const WAIT: Duration = Duration::from_millis(600);
    let rig = Rig::start().await;
    let plain = json!({"model": "default", "messages": [{"role": "user", "content": "think"}]});
    for (number, asked) in [plain, stream("think")].iter().enumerate() {
        let request = rig.request("/v1/chat/completions", asked);
        assert!(request.timeout(WAIT).send().await.unwrap_err().is_timeout());
        let row = rig.rows(number + 1).await.pop().unwrap();
        assert_eq!((row.outcome.as_str(), row.estimated), ("abandoned", true));
        assert!(row.input > 0 && row.cost_microcents > Some(0), "{row:?}");
        // Of a whole answer the head comes when the model is done; that of a stream would have come at once.
        let is_plain = number == 0;
        assert_eq!(row.output >= 20, is_plain, "{row:?}");
        assert_eq!(row.output == 0, !is_plain, "{row:?}");
    }
}

#[tokio::test]
async fn the_row_of_a_request_under_way_has_the_likely_answer_in_it() {
    let rig = Rig::start().await;
    let request = rig.request("/v1/chat/completions", &stream("think"));
    let mut asked = JoinSet::new();
    asked.spawn(request.send());
    let begun = loop {
        let journal = rig.journal();
        if let Some(line) = journal.lines().find(|line| line.contains("proxy_died")) {
            break serde_json::from_str::<Value>(line).unwrap()["begin"].clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(
        (&begun["output"], &begun["estimated"]),
        (&json!(4096), &json!(true))
    );
    // 4,096 x 600,000 picodollars are 245,760 microcents, and the prompt is more.
    assert!(
        begun["cost_microcents"].as_u64().unwrap() > 245_760,
        "{begun}"
    );
    asked.shutdown().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_a_row_with_an_estimate() {
    let rig = Rig::start().await;
    let response = rig.send("/v1/chat/completions", &stream("never end")).await;
    let mut stream = response.bytes_stream();
    let mut read = 0;
    while read < 4000 {
        read += stream.next().await.unwrap().unwrap().len();
    }
    drop(stream);
    let row = rig.only_row().await;
    assert_eq!((row.outcome.as_str(), row.estimated), ("client_left", true));
    assert!(row.output > 0, "{row:?}");
    assert!(row.cost_microcents.unwrap() > 0);
}

#[tokio::test]
async fn a_busy_provider_is_asked_again_when_it_said() {
    let rig = Rig::start().await;
    let asked = json!({"model": "default", "messages": [{"role": "user", "content": "be busy"}]});
    let begun = Instant::now();
    let (status, answer) = rig.post("/v1/chat/completions", &asked).await;
    assert_eq!((status, answer), (200, upstream::chat_body()));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let rows = rig.rows(2).await;
    let outcomes: Vec<_> = rows
        .iter()
        .map(|row| (row.status, row.outcome.as_str()))
        .collect();
    assert_eq!(outcomes, [(429, "upstream_refused"), (200, "completed")]);
}

/// Asks by way of OpenRouter, and leaves when something has come.
async fn leave(rig: &Rig, said: &str) {
    let mut asked = stream(said);
    asked["model"] = json!("routed");
    let response = rig.send("/v1/chat/completions", &asked).await;
    assert!(!response.headers().contains_key("x-generation-id"));
    let mut stream = response.bytes_stream();
    assert!(!stream.next().await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn of_a_stream_that_was_left_openrouters_books_know_what_it_came_to() {
    let rig = Rig::start().await;
    leave(&rig, "be left").await;
    let row = rig.only_row().await;
    assert_eq!(
        (row.outcome.as_str(), row.estimated),
        ("client_left", false)
    );
    assert_eq!((row.input, row.cache_read, row.output), (60, 40, 7));
    assert_eq!(row.cost_microcents, Some(1_230_000), "as they say");
    let heard = rig.upstream.heard();
    let asked: Vec<_> = heard.iter().skip(1).map(|one| one.uri.as_str()).collect();
    assert_eq!(asked, ["/v1/generation?id=gen-left"; 2]);
    assert_eq!(rig.spent().await, [1_230_000; 2]);
}

#[tokio::test]
async fn what_openrouter_does_not_tell_is_estimated() {
    let rig = Rig::start().await;
    leave(&rig, "be unknown").await;
    let row = rig.only_row().await;
    assert_eq!((row.outcome.as_str(), row.estimated), ("client_left", true));
    assert!(row.input > 0 && row.output > 0, "{row:?}");
}

#[tokio::test]
async fn a_client_that_leaves_after_the_last_word_pays_what_was_counted() {
    let rig = Rig::start().await;
    let response = rig
        .send("/v1/chat/completions", &stream("count late"))
        .await;
    let mut stream = response.bytes_stream();
    let mut seen = String::new();
    while !seen.contains("\"finish_reason\":\"stop\"") {
        seen.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
    }
    drop(stream);
    let row = rig.only_row().await;
    assert_eq!(row.outcome, "client_left");
    usual(&row);
}

#[tokio::test]
async fn only_named_headers_pass_and_the_key_is_ours() {
    let rig = Rig::start().await;
    let response = rig
        .request("/v1/chat/completions", &chat("default", false))
        .header("authorization", "Bearer stolen")
        .header("x-api-key", "stolen")
        .header("cookie", "a=b")
        .header("x-forwarded-for", "127.9.9.9")
        .header("x-stainless-lang", "js")
        .send()
        .await
        .unwrap();
    assert!(response.headers().get("set-cookie").is_none());
    assert!(response.headers().get("openai-organization").is_none());
    assert!(
        response
            .headers()
            .get("x-ratelimit-remaining-tokens")
            .is_none()
    );
    assert_eq!(response.headers()["x-request-id"], "req_upstream");
    let heard = rig.upstream.heard();
    let headers = &heard[0].headers;
    assert_eq!(headers["authorization"], "Bearer sk-ours");
    assert_eq!(headers["x-stainless-lang"], "js");
    for absent in ["x-api-key", "cookie", "x-forwarded-for"] {
        assert!(headers.get(absent).is_none(), "{absent}");
    }
    assert_eq!(heard[0].body["model"], "gpt-4o-mini");
}

#[tokio::test]
async fn a_customers_own_key_goes_before_ours_and_opens_what_has_no_alias() {
    let rig = Rig::start().await;
    let (status, answer) = rig
        .post("/v1/chat/completions", &chat("main/gpt-4o", false))
        .await;
    assert_eq!(status, 404, "{answer}");
    rig.give_own_key("main", "sk-theirs").await;
    let (status, _) = rig
        .post("/v1/chat/completions", &chat("main/gpt-4o", false))
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        rig.upstream.heard()[0].headers["authorization"],
        "Bearer sk-theirs"
    );
    let row = rig.only_row().await;
    assert_eq!((row.payer.as_str(), row.model.as_str()), ("own", "gpt-4o"));
    assert!(
        row.cost_microcents.unwrap() > 0,
        "noted, though not charged"
    );
}

#[tokio::test]
async fn what_a_customers_own_key_is_refused_is_not_asked_with_ours() {
    let rig = Rig::start().await;
    let request = chat("mixed", false);
    let (status, _) = rig.post("/v1/chat/completions", &request).await;
    assert_eq!(status, 200, "on our keys the next target answers");
    assert_eq!(rig.rows(2).await[1].payer, "managed");
    rig.give_own_key("main", "sk-theirs").await;
    let (status, answer) = rig.post("/v1/chat/completions", &request).await;
    assert_eq!(status, 401, "{answer}");
    let row = rig.rows(3).await.pop().unwrap();
    assert_eq!((row.payer.as_str(), row.status), ("own", 401));
    assert_eq!(rig.upstream.heard().len(), 3);
}

#[tokio::test]
async fn whom_a_load_balancer_names_is_the_caller_and_nobody_elses_word_counts() {
    let other = Ipv4Addr::new(127, 9, 1, 77);
    let rig = Rig::start_with(&[rig::OWNER.into()]).await;
    let ask = async |forwarded: &str| {
        let request = rig.request("/v1/chat/completions", &chat("default", false));
        let request = request.header("x-forwarded-for", forwarded);
        request.send().await.unwrap().status().as_u16()
    };
    // The hop's own address is in the trust table here; it speaks for itself no more than for strangers.
    assert_eq!(ask(&format!("{}, {other}", rig::OWNER)).await, 403);
    assert_eq!(ask(&rig::OWNER.to_string()).await, 403);
    rig.run("UPDATE trust SET address = '127.9.1.77'").await;
    rig.is_read().await;
    assert_eq!(ask(&format!("127.0.0.1, {other}")).await, 200);
    assert_eq!(ask(&format!("{other}, 127.0.0.1")).await, 403);
}

#[tokio::test]
async fn a_customers_key_that_does_not_open_is_not_replaced_by_ours() {
    let rig = Rig::start().await;
    rig.give_own_key("main", "sk-theirs").await;
    rig.run("UPDATE customer_keys SET sealed_key = x'00'").await;
    rig.is_read().await;
    let (status, answer) = rig
        .post("/v1/chat/completions", &chat("default", false))
        .await;
    assert_eq!(status, 502, "{answer}");
    assert!(answer.contains("own_key_unreadable"), "{answer}");
    assert!(rig.upstream.heard().is_empty());
}

#[tokio::test]
async fn a_key_for_repeated_requests_is_nobody_elses_and_a_body_is_json() {
    let rig = Rig::start().await;
    let request = rig.request("/v1/chat/completions", &chat("default", false));
    let request = request
        .header("idempotency-key", "again")
        .header("content-type", "application/json; charset=utf-16");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let headers = &rig.upstream.heard()[0].headers;
    assert_eq!(
        headers["idempotency-key"],
        format!("{}-again", rig::INSTANCE)
    );
    assert_eq!(headers["content-type"], "application/json");
}

#[tokio::test]
async fn our_refused_key_is_our_fault_and_a_customers_is_theirs() {
    let rig = Rig::start().await;
    let (status, answer) = rig
        .post("/v1/chat/completions", &chat("refused", false))
        .await;
    assert_eq!(status, 502);
    assert!(!answer.contains("sk-"), "{answer}");
    assert_eq!(
        rig.upstream.heard().len(),
        1,
        "the same key again is of no use"
    );
    let row = rig.only_row().await;
    assert_eq!(
        (row.outcome.as_str(), row.status),
        ("upstream_refused", 401)
    );
}

#[tokio::test]
async fn anthropic_and_gemini_are_spoken_as_they_are() {
    let rig = Rig::start().await;
    let message = json!({"model": "claude", "max_tokens": 10, "stream": true,
        "messages": [{"role": "user", "content": "Hi"}]});
    let (status, answer) = rig.post("/v1/messages", &message).await;
    assert_eq!((status, answer), (200, upstream::messages_stream()));
    let heard = rig.upstream.heard();
    assert_eq!(heard[0].headers["x-api-key"], "sk-ours");
    assert_eq!(heard[0].headers["anthropic-version"], "2023-06-01");
    let row = rig.only_row().await;
    assert_eq!(
        (row.input, row.cache_read, row.cache_write_5m, row.output),
        (10, 100, 20, 5)
    );
    let contents = json!({"contents": [{"parts": [{"text": "Hi"}]}]});
    let path = "/v1beta/models/gemini:streamGenerateContent?key=stolen&alt=sse";
    let (status, answer) = rig.post(path, &contents).await;
    assert_eq!((status, answer), (200, upstream::gemini_stream()));
    let heard = rig.upstream.heard();
    assert_eq!(heard[1].headers["x-goog-api-key"], "sk-ours");
    assert_eq!(
        heard[1].uri,
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    );
    let row = &rig.rows(2).await[1];
    assert_eq!((row.input, row.output), (8, 5));
    assert!(!row.estimated);
}

#[tokio::test]
async fn a_model_that_is_in_the_list_is_told_by_its_name() {
    let rig = Rig::start().await;
    let ask = async |path: &str, header: (&'static str, &'static str)| {
        let request = rig.get(path).header(header.0, header.1);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    let none = ("accept", "*/*");
    let (status, model) = ask("/v1/models/default", none).await;
    assert_eq!(
        (status, &model["id"], &model["object"]),
        (200, &json!("default"), &json!("model"))
    );
    let (status, model) = ask("/v1/models/claude", ("anthropic-version", "2023-06-01")).await;
    assert_eq!((status, &model["type"]), (200, &json!("model")));
    let (status, model) = ask("/v1beta/models/gemini", none).await;
    assert_eq!((status, &model["name"]), (200, &json!("models/gemini")));
    let (status, answer) = ask("/v1/models/main%2Fgpt-4o", none).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (404, &json!("model_not_found"))
    );
}

#[tokio::test]
async fn refusals_are_in_the_dialect_of_the_path() {
    let rig = Rig::start().await;
    let body = json!({"model": "nothing", "max_tokens": 1, "messages": []});
    let (status, answer) = rig.post("/v1/messages", &body).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (status, &answer["error"]["type"]),
        (404, &json!("not_found_error"))
    );
    // An alias that leads to another dialect's provider.
    let (status, answer) = rig
        .post("/v1/messages", &json!({"model": "default", "messages": []}))
        .await;
    assert_eq!(status, 400, "{answer}");
    let twice = r#"{"model":"default","model":"gpt-4o","messages":[]}"#;
    let (status, answer) = rig.post_text("/v1/chat/completions", twice).await;
    assert_eq!(status, 400, "{answer}");
    assert!(rig.upstream.heard().is_empty());
}

#[tokio::test]
async fn without_a_database_for_the_rows_answers_go_on_and_the_rows_come_later() {
    let rig = Rig::start().await;
    rig.hide_ledger_table().await;
    for _ in 0..5 {
        let (status, _) = rig
            .post("/v1/chat/completions", &chat("default", true))
            .await;
        assert_eq!(status, 200);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    rig.show_ledger_table().await;
    for row in rig.rows(5).await {
        usual(&row);
    }
}
