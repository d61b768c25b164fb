//! Streams as providers send them, cut in every way.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::sse::{Framer, Piece};

/// What was observed of a stream in these pieces, and the kind of each of its events.
fn observed<'a>(
    dialect: Dialect,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Observed, Vec<EventKind>) {
    let mut framer = Framer::default();
    let mut observer = Observer::new(dialect);
    let mut kinds = Vec::new();
    for piece in pieces {
        for piece in framer.pieces(piece) {
            match piece {
                Piece::Data(bytes) => observer.data(bytes),
                Piece::End(_) => kinds.push(observer.end_of_event()),
            }
        }
    }
    if framer.is_mid_event() {
        kinds.push(observer.end_of_event());
    }
    // Ends of lines that are cut off are events without anything.
    kinds.retain(|kind| *kind != EventKind::default());
    (observer.finish(), kinds)
}

/// The same, having made sure that it does not matter where the stream is cut.
fn whole(dialect: Dialect, stream: &str) -> (Observed, Vec<EventKind>) {
    let bytes = stream.as_bytes();
    let whole = observed(dialect, [bytes]);
    assert_eq!(observed(dialect, bytes.chunks(1)), whole, "byte by byte");
    for at in 0..bytes.len() {
        let (left, right) = bytes.split_at(at);
        assert_eq!(observed(dialect, [left, right]), whole, "cut at {at}");
    }
    let cr_lf = stream.replace('\n', "\r\n");
    assert_eq!(
        observed(dialect, cr_lf.as_bytes().chunks(5)),
        whole,
        "with CRLF"
    );
    let cr = stream.replace('\n', "\r");
    assert_eq!(observed(dialect, cr.as_bytes().chunks(5)), whole, "with CR");
    whole
}

fn body(dialect: Dialect, body: &str) -> Observed {
    let observe = |pieces: std::slice::Chunks<'_, u8>| {
        let mut observer = Observer::new(dialect);
        pieces.for_each(|piece| observer.body(piece));
        observer.finish()
    };
    let whole = observe(body.as_bytes().chunks(body.len()));
    for size in 1..=64 {
        assert_eq!(
            observe(body.as_bytes().chunks(size)),
            whole,
            "in pieces of {size}"
        );
    }
    whole
}

fn data(events: &[Value]) -> String {
    let events: Vec<_> = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    events.concat()
}

fn named(events: &[Value]) -> String {
    let event = |event: &Value| {
        let name = event["type"].as_str().unwrap();
        format!("event: {name}\ndata: {event}\n\n")
    };
    events.iter().map(event).collect::<Vec<_>>().concat()
}

fn chunk(choices: &Value, more: &Value) -> Value {
    let mut chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
        "model": "gpt-4o-mini-2024-07-18", "service_tier": "default", "choices": choices,
        "obfuscation": "x7\"}{"});
    for (key, value) in more.as_object().unwrap() {
        chunk[key] = value.clone();
    }
    chunk
}

fn delta(delta: &Value, finish: &Value) -> Value {
    json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}])
}

fn openai_usage() -> Value {
    json!({"prompt_tokens": 1200, "completion_tokens": 30, "total_tokens": 1230,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 10, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}})
}

fn openai_counts() -> Usage {
    Usage {
        input: 176,
        cache_read: 1024,
        output: 30,
        reasoning: 10,
        ..Usage::default()
    }
}

#[test]
fn openai_tells_its_usage_in_a_chunk_of_its_own() {
    let null = json!({"usage": null});
    let call =
        json!({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{\"a\":1}"}}]});
    let stream = data(&[
        chunk(
            &json!([]),
            &json!({"usage": null, "prompt_filter_results": [{"prompt_index": 0}]}),
        ),
        chunk(
            &delta(&json!({"role": "assistant", "content": ""}), &Value::Null),
            &null,
        ),
        chunk(
            &delta(
                &json!({"content": "{\"usage\":{\"prompt_tokens\":1}}"}),
                &Value::Null,
            ),
            &null,
        ),
        chunk(&delta(&call, &Value::Null), &null),
        chunk(&delta(&json!({}), &json!("stop")), &null),
        chunk(&json!([]), &json!({"usage": openai_usage()})),
    ]) + "data: [DONE]\n\n";
    let (observed, kinds) = whole(Dialect::Chat, &stream);
    let expected = Observed {
        usage: Some(openai_counts()),
        model: Some("gpt-4o-mini-2024-07-18".to_owned()),
        service_tier: Some("default".to_owned()),
        finished: true,
        done: true,
        exact: true,
        generated: 14,
        generated_since_count: Some(0),
        ..Observed::default()
    };
    assert_eq!(observed, expected);
    let kinds: Vec<_> = kinds
        .iter()
        .map(|kind| (kind.is_usage_only_chunk, kind.is_done))
        .collect();
    assert_eq!(kinds, [(true, false), (false, true)]);
}

#[test]
fn usage_beside_a_choice_is_no_chunk_of_its_own() {
    let last = chunk(
        &delta(&json!({}), &json!("stop")),
        &json!({"usage": openai_usage()}),
    );
    let (observed, kinds) = whole(Dialect::Chat, &data(&[last]));
    assert_eq!(observed.usage, Some(openai_counts()));
    assert!(observed.exact && !observed.done);
    assert_eq!(kinds, []);
    let without = json!({"choices": null, "usage": openai_usage()});
    assert_eq!(whole(Dialect::Chat, &data(&[without])).1, []);
}

#[test]
fn a_chat_that_is_cut_off_has_an_estimate_and_no_usage() {
    let text = chunk(
        &delta(&json!({"content": "four more bytes"}), &Value::Null),
        &json!({}),
    );
    let stream = data(&[text]) + "data: {\"choices\":[{\"delta\":{\"content\":\"and";
    let (observed, _) = whole(Dialect::Chat, &stream);
    assert_eq!((observed.usage, observed.generated), (None, 4));
    assert!(!observed.finished && !observed.done && !observed.exact);
}

#[test]
fn an_event_without_its_empty_line_counts_too() {
    let last = chunk(&json!([]), &json!({"usage": openai_usage()}));
    let finish = chunk(&delta(&json!({}), &json!("length")), &json!({}));
    let stream = data(&[finish]) + &format!("data: {last}");
    let (observed, kinds) = whole(Dialect::Chat, &stream);
    assert_eq!(observed.usage, Some(openai_counts()));
    assert!(observed.exact);
    assert!(kinds[0].is_usage_only_chunk);
}

#[test]
fn a_whole_chat_is_read_like_a_stream() {
    let choice = json!({"index": 0, "finish_reason": "stop", "message": {"role": "assistant",
        "content": "Hi", "reasoning_content": "Hm", "refusal": null, "annotations": []}});
    let answer = json!({"model": "m", "choices": [choice], "usage": openai_usage()});
    // DeepSeek sends empty lines while it thinks.
    for text in [answer.to_string(), format!("\n\n\n{answer:#}\n")] {
        let observed = body(Dialect::Chat, &text);
        assert_eq!(observed.usage, Some(openai_counts()));
        assert_eq!(observed.generated, 3);
        assert!(observed.finished && observed.done && observed.exact && !observed.error);
    }
    let half = answer.to_string();
    assert!(!body(Dialect::Chat, &half[..half.len() - 1]).done);
}

#[test]
fn an_error_instead_of_an_answer_is_seen() {
    let error = r#"{"error":{"message":"no \"usage\":{}","type":"invalid_request_error"}}"#;
    let observed = body(Dialect::Chat, error);
    assert!(observed.error && observed.done && !observed.finished && !observed.exact);
    assert!(!body(Dialect::Responses, r#"{"error":null,"output":[]}"#).error);
    assert!(body(Dialect::Chat, r#"{"error":"model not found"}"#).error);
}

#[test]
fn embeddings_are_counted_past_all_their_numbers() {
    let vector: Vec<f64> = (0..500).map(|number| f64::from(number) / -7.0).collect();
    let answer = json!({"object": "list", "data": [{"embedding": vector, "index": 0}],
        "model": "text-embedding-3-small", "usage": {"prompt_tokens": 8, "total_tokens": 8}});
    let observed = body(Dialect::Embeddings, &answer.to_string());
    assert_eq!(observed.usage.unwrap().input, 8);
    assert_eq!(observed.model.as_deref(), Some("text-embedding-3-small"));
    assert!(observed.exact);
}

#[test]
fn an_empty_reason_or_error_is_none() {
    let empty = chunk(
        &delta(&json!({"content": "a"}), &json!("")),
        &json!({"error": ""}),
    );
    let (observed, kinds) = whole(Dialect::Chat, &data(&[empty]));
    assert!(!observed.finished && !observed.error);
    assert_eq!(kinds, []);
}

#[test]
fn usage_without_its_input_is_not_exact() {
    let usage = json!({"usage": {"completion_tokens": 5}});
    let last = chunk(&delta(&json!({}), &json!("stop")), &usage);
    let (observed, _) = whole(Dialect::Chat, &data(&[last]));
    assert_eq!(observed.usage.unwrap().output, 5);
    assert!(!observed.exact);
    let total = json!({"usage": {"total_tokens": 5}});
    let last = chunk(&delta(&json!({}), &json!("stop")), &total);
    assert_eq!(whole(Dialect::Chat, &data(&[last])).0.usage, None);
}

#[test]
fn openrouter_tells_a_cost_and_errors_in_a_chunk() {
    let mut usage = openai_usage();
    usage["cost"] = json!(0.00014);
    usage["is_byok"] = json!(false);
    usage["cost_details"] = json!({"upstream_inference_cost": null});
    let last = chunk(
        &delta(&json!({"content": ""}), &json!("stop")),
        &json!({"usage": usage}),
    );
    let stream = format!(
        ": OPENROUTER PROCESSING\n\n{}data: [DONE]\n\n",
        data(&[last])
    );
    let (observed, _) = whole(Dialect::Chat, &stream);
    assert_eq!(observed.reported_cost_pico, Some(140_000_000));
    assert_eq!(observed.usage, Some(openai_counts()));

    let error = json!({"error": {"code": 502, "message": "Provider disconnected"}});
    let error = chunk(&delta(&json!({"content": ""}), &json!("error")), &error);
    let (observed, kinds) = whole(Dialect::Chat, &data(&[error]));
    assert!(observed.error && observed.finished && kinds[0].is_error);
}

#[test]
fn groq_tells_its_usage_in_a_corner() {
    let usage = json!({"queue_time": 0.03, "prompt_tokens": 20, "completion_tokens": 5,
        "total_tokens": 25, "total_time": 0.01});
    let groq = json!({"x_groq": {"id": "req_1", "usage": usage}});
    let last = chunk(&delta(&json!({}), &json!("stop")), &groq);
    let asked = chunk(
        &json!([]),
        &json!({"usage": usage, "x_groq": groq["x_groq"]}),
    );
    let (observed, kinds) = whole(Dialect::Chat, &(data(&[last, asked]) + "data: [DONE]\n\n"));
    assert_eq!(
        observed.usage.map(|usage| (usage.input, usage.output)),
        Some((20, 5))
    );
    assert!(kinds[0].is_usage_only_chunk);
    let error = json!({"x_groq": {"id": "req_1", "error": "over capacity"}});
    assert!(
        whole(Dialect::Chat, &data(&[chunk(&json!([]), &error)]))
            .0
            .error
    );
}

#[test]
fn mistral_tells_text_in_parts() {
    let parts = json!([{"type": "thinking", "thinking": [{"type": "text", "text": "Hmm"}]},
        {"type": "text", "text": "Hello"}]);
    let usage = json!({"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25,
        "prompt_tokens_details": {"cached_tokens": 4}});
    let stream = data(&[
        chunk(&delta(&json!({"content": parts}), &Value::Null), &json!({})),
        chunk(
            &delta(&json!({"content": ""}), &json!("stop")),
            &json!({"usage": usage}),
        ),
    ]);
    let (observed, _) = whole(Dialect::Chat, &stream);
    assert_eq!(observed.generated, 3);
    assert_eq!(observed.usage.unwrap().total_input(), 20);
}

#[test]
fn a_local_server_may_tell_usage_in_every_chunk() {
    let usage = |completion: u64| {
        let usage = json!({"prompt_tokens": 9, "completion_tokens": completion,
            "total_tokens": 9 + completion});
        json!({ "usage": usage })
    };
    let mut events: Vec<_> = (1..4)
        .map(|count| {
            chunk(
                &delta(&json!({"content": "a"}), &Value::Null),
                &usage(count),
            )
        })
        .collect();
    let (observed, _) = whole(Dialect::Chat, &data(&events));
    assert_eq!(observed.usage.unwrap().output, 3);
    assert!(!observed.exact);
    assert_eq!(observed.generated_since_count, Some(0));
    // What comes behind the last count is estimated.
    let said = json!({"content": " and then there were three more boats"});
    let uncounted = chunk(&delta(&said, &Value::Null), &json!({}));
    let (observed, _) = whole(Dialect::Chat, &(data(&events) + &data(&[uncounted])));
    let since = observed.generated_since_count.unwrap();
    assert!((6..9).contains(&since), "{since} for 7");
    events.push(chunk(&delta(&json!({}), &json!("stop")), &usage(4)));
    let (observed, _) = whole(Dialect::Chat, &data(&events));
    assert_eq!(observed.usage.unwrap().output, 4);
    assert!(observed.exact);
}

fn anthropic_start() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
        "model": "claude-sonnet-5", "content": [], "stop_reason": null, "usage": {
            "input_tokens": 12, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 4000,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
            "output_tokens": 1, "service_tier": "priority", "inference_geo": "us"}}})
}

fn anthropic_stream() -> Vec<Value> {
    let delta = |delta: Value| json!({"type": "content_block_delta", "index": 0, "delta": delta});
    let tools = json!({"web_search_requests": 2, "web_fetch_requests": 0});
    vec![
        anthropic_start(),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        delta(json!({"type": "thinking_delta", "thinking": "Hm."})),
        delta(json!({"type": "text_delta", "text": "Hello \"you\""})),
        delta(json!({"type": "input_json_delta", "partial_json": "{\"a\":"})),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": null}, "usage": {"output_tokens": 40}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"input_tokens": null, "output_tokens": 90, "server_tool_use": tools,
                "output_tokens_details": {"thinking_tokens": 30}}}),
        json!({"type": "message_stop"}),
    ]
}

#[test]
fn anthropic_tells_its_input_first_and_its_output_last() {
    let (observed, kinds) = whole(Dialect::Messages, &named(&anthropic_stream()));
    let expected = Observed {
        usage: Some(Usage {
            input: 12,
            cache_read: 4000,
            cache_write_5m: 100,
            cache_write_1h: 200,
            output: 90,
            reasoning: 30,
        }),
        model: Some("claude-sonnet-5".to_owned()),
        service_tier: Some("priority".to_owned()),
        inference_geo: Some("us".to_owned()),
        web_searches: 2,
        finished: true,
        done: true,
        exact: true,
        generated: 7,
        generated_since_count: Some(0),
        ..Observed::default()
    };
    assert_eq!(observed, expected);
    assert!(kinds.len() == 1 && kinds[0].is_done);
}

#[test]
fn a_cut_anthropic_stream_is_exact_in_its_input_only() {
    let events = anthropic_stream();
    let (observed, _) = whole(Dialect::Messages, &named(&events[..5]));
    assert_eq!(observed.usage.unwrap().total_input(), 4312);
    assert_eq!(observed.usage.unwrap().output, 1);
    assert_eq!(
        observed.generated_since_count, None,
        "the 1 is no count of anything"
    );
    assert!(!observed.exact && !observed.finished);
    // Cut between the reason for the end and the usage.
    let stream = named(&events[..9]);
    let cut = stream.rfind("\"usage\"").unwrap();
    let (observed, _) = whole(Dialect::Messages, &stream[..cut]);
    assert!(!observed.exact && observed.finished);
}

#[test]
fn anthropics_errors_are_events() {
    let error =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let (observed, kinds) = whole(Dialect::Messages, &named(&[anthropic_start(), error]));
    assert!(observed.error && !observed.done);
    assert!(kinds[0].is_error);
}

#[test]
fn a_whole_message_is_read_like_a_stream() {
    let mut message = anthropic_start()["message"].clone();
    message["stop_reason"] = json!("tool_use");
    message["content"] = json!([{"type": "text", "text": "Hello"},
        {"type": "tool_use", "name": "f", "input": {"usage": {"input_tokens": 0}, "stop_reason": 1}}]);
    let observed = body(Dialect::Messages, &message.to_string());
    assert_eq!(observed.usage.unwrap().total_input(), 4312);
    assert_eq!(observed.generated, 2);
    assert!(observed.exact && observed.done);
}

fn gemini_chunk(text: &str, usage: &Value, finish: Option<&str>) -> Value {
    let mut candidate = json!({"content": {"parts": [{"text": text, "thought": true}], "role": "model"},
        "index": 0});
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    json!({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3-flash",
        "responseId": "r"})
}

fn gemini_stream() -> Vec<Value> {
    vec![
        gemini_chunk(
            "One\u{2028}",
            &json!({"promptTokenCount": 50, "totalTokenCount": 50}),
            None,
        ),
        gemini_chunk(
            "two",
            &json!({"promptTokenCount": 50, "candidatesTokenCount": 3, "totalTokenCount": 73,
                "thoughtsTokenCount": 20}),
            None,
        ),
        gemini_chunk(
            "",
            &json!({"promptTokenCount": 50, "candidatesTokenCount": 7, "totalTokenCount": 79,
                "cachedContentTokenCount": 30, "thoughtsTokenCount": 22,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 50}]}),
            Some("STOP"),
        ),
    ]
}

fn gemini_counts() -> Usage {
    Usage {
        input: 20,
        cache_read: 30,
        output: 29,
        reasoning: 22,
        ..Usage::default()
    }
}

#[test]
fn geminis_last_usage_counts_as_events_or_as_a_list() {
    let (observed, kinds) = whole(Dialect::Gemini, &data(&gemini_stream()));
    let expected = Observed {
        usage: Some(gemini_counts()),
        model: Some("gemini-3-flash".to_owned()),
        finished: true,
        exact: true,
        generated: 4,
        generated_since_count: Some(0),
        ..Observed::default()
    };
    assert_eq!(observed, expected);
    assert_eq!(kinds, []);
    let list = format!("{:#}", Value::from(gemini_stream())).replace('\n', "\r\n");
    let as_list = body(Dialect::Gemini, &list);
    assert_eq!(
        as_list,
        Observed {
            done: true,
            ..expected
        }
    );
    // Cut off in the last element, behind the reason for the end and before the usage.
    let cut = list.rfind("\"usageMetadata\"").unwrap();
    let cut = body(Dialect::Gemini, &list[..cut]);
    assert!(cut.finished && !cut.exact);
    assert_eq!(cut.usage.unwrap().output, 23);
}

#[test]
fn a_prompt_that_gemini_refuses_is_finished() {
    let refused = json!({"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "gemini-3-flash",
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}});
    let (observed, _) = whole(Dialect::Gemini, &data(&[refused]));
    assert_eq!(observed.usage.unwrap().input, 9);
    assert!(observed.finished && observed.exact);
}

fn responses_end(kind: &str, usage: &Value) -> Value {
    let schema = json!({"type": "object", "properties": {"usage": {"type": "object",
        "input_tokens": 1, "properties": {"input_tokens": {"type": "integer"}}}}});
    let tools: Vec<_> = (0..300)
        .map(|number| {
            json!({"type": "function", "name": format!("tool{number}"),
            "description": "x \\\" ".repeat(80), "parameters": schema})
        })
        .collect();
    let metadata: serde_json::Map<_, _> = (0..16)
        .map(|number| (format!("key{number}"), json!("v".repeat(512))))
        .collect();
    let text = json!([{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}]);
    json!({"type": kind, "sequence_number": 9, "response": {"id": "resp_1", "object": "response",
        "error": null, "instructions": "Be brief", "model": "gpt-5.2-2025-12-11", "output": text,
        "service_tier": "default", "tools": tools, "usage": usage, "user": null,
        "metadata": metadata}})
}

fn responses_usage() -> Value {
    json!({"input_tokens": 1200, "input_tokens_details": {"cached_tokens": 1024,
            "cache_write_tokens": 0},
        "output_tokens": 30, "output_tokens_details": {"reasoning_tokens": 10},
        "total_tokens": 1230})
}

fn responses_stream(end: Value) -> String {
    named(&[
        json!({"type": "response.created", "response": {"model": "gpt-5.2", "service_tier": "auto",
            "usage": null, "error": null}}),
        json!({"type": "response.output_text.delta", "delta": "Hello", "item_id": "msg_1"}),
        json!({"type": "response.output_text.done", "text": "Hello"}),
        end,
    ])
}

#[test]
fn usage_is_found_in_the_middle_of_a_large_event() {
    let stream = responses_stream(responses_end("response.completed", &responses_usage()));
    assert!(stream.len() > 200_000);
    let expected = Observed {
        usage: Some(openai_counts()),
        model: Some("gpt-5.2-2025-12-11".to_owned()),
        service_tier: Some("default".to_owned()),
        finished: true,
        done: true,
        exact: true,
        generated: 2,
        generated_since_count: Some(0),
        ..Observed::default()
    };
    for size in [1, 7, 1460, 16_384, stream.len()] {
        let (observed, kinds) = observed(Dialect::Responses, stream.as_bytes().chunks(size));
        assert_eq!(observed, expected, "in pieces of {size}");
        assert!(kinds.len() == 1 && kinds[0].is_done);
    }
}

#[test]
fn responses_end_in_three_ways_and_in_an_error() {
    let mut end = responses_end("response.incomplete", &responses_usage());
    end["response"]["tools"] = json!([]);
    let (observed, _) = whole(Dialect::Responses, &responses_stream(end));
    assert!(observed.exact && observed.done && !observed.error);

    let mut end = responses_end("response.failed", &Value::Null);
    end["response"]["tools"] = json!([]);
    end["response"]["error"] = json!({"code": "server_error", "message": "…"});
    let (observed, kinds) = whole(Dialect::Responses, &responses_stream(end));
    assert!(observed.error && observed.done && observed.usage.is_none());
    assert!(kinds[0].is_done && kinds[0].is_error);

    let error =
        json!({"type": "error", "code": "x", "message": "m", "param": null, "sequence_number": 3});
    let (observed, kinds) = whole(Dialect::Responses, &named(&[error]));
    assert!(observed.error && !observed.done && kinds[0].is_error);
}

#[test]
fn a_whole_response_is_read_like_a_stream() {
    let response = responses_end("response.completed", &responses_usage())["response"].to_string();
    let mut observer = Observer::new(Dialect::Responses);
    response
        .as_bytes()
        .chunks(4096)
        .for_each(|piece| observer.body(piece));
    let observed = observer.finish();
    assert_eq!(observed.usage, Some(openai_counts()));
    assert_eq!(observed.generated, 2);
    assert!(observed.done && observed.exact && !observed.error);
}

#[test]
fn a_usage_beyond_all_measure_is_dropped_and_counted() {
    let usage = json!({"usage": {"prompt_tokens": 1, "x": "y".repeat(9000)}});
    let (observed, kinds) = observed(
        Dialect::Chat,
        [data(&[chunk(&json!([]), &usage)]).as_bytes()],
    );
    assert_eq!((observed.usage, observed.dropped), (None, 1));
    assert!(kinds[0].is_usage_only_chunk);
    let usage = json!({"usage": {"prompt_tokens": 10u64.pow(12) + 1, "completion_tokens": 2}});
    let (observed, _) = whole(Dialect::Chat, &data(&[chunk(&json!([]), &usage)]));
    assert_eq!((observed.usage.unwrap().output, observed.dropped), (2, 1));
}

proptest! {
    #[test]
    fn what_is_observed_does_not_depend_on_the_pieces(
        choice in 0usize..3,
        sizes in prop::collection::vec(1usize..60, 1..20),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let (dialect, mut stream) = match choice {
            0 => (Dialect::Messages, named(&anthropic_stream()).into_bytes()),
            1 => (Dialect::Gemini, data(&gemini_stream()).into_bytes()),
            _ => (Dialect::Chat, data(&[chunk(&json!([]), &json!({"usage": openai_usage()}))]).into_bytes()),
        };
        if let Some((at, byte)) = damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let mut rest = &stream[..];
        let mut pieces = Vec::new();
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, more) = rest.split_at((*size).min(rest.len()));
            pieces.push(piece);
            rest = more;
        }
        prop_assert_eq!(observed(dialect, pieces), observed(dialect, [&stream[..]]));
    }
}
