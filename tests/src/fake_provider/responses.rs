//! OpenAI's responses.

use serde_json::{Value, json};

use super::reply::{Events, Reply};

pub(super) fn whole(reply: &Reply) -> Value {
    response(reply, "completed")
}

pub(super) fn events(reply: &Reply) -> Events {
    let mut sequence = Sequence::default();
    let item = item(reply, "completed");
    let head = vec![
        sequence.event(
            "response.created",
            json!({"response": response(reply, "in_progress")}),
        ),
        sequence.event(
            "response.in_progress",
            json!({"response": response(reply, "in_progress")}),
        ),
        sequence.event(
            "response.output_item.added",
            json!({"output_index": 0, "item": begun(reply)}),
        ),
    ];
    let id = item["id"].clone();
    let (pieces, mut tail) = match &reply.call {
        Some(call) => called(&mut sequence, &id, &call.arguments.to_string()),
        None => said(&mut sequence, &id, reply),
    };
    tail.push(sequence.event(
        "response.output_item.done",
        json!({"output_index": 0, "item": item}),
    ));
    tail.push(sequence.event(
        "response.completed",
        json!({"response": response(reply, "completed")}),
    ));
    Events { head, pieces, tail }
}

fn said(sequence: &mut Sequence, id: &Value, reply: &Reply) -> (Vec<String>, Vec<String>) {
    let place = |more: Value| {
        let mut fields = json!({"item_id": id, "output_index": 0, "content_index": 0});
        merge(&mut fields, more);
        fields
    };
    let mut pieces = vec![sequence.event(
        "response.content_part.added",
        place(json!({"part": part("")})),
    )];
    for word in &reply.words {
        let delta = place(json!({"delta": word, "logprobs": [], "obfuscation": "aW4ndA"}));
        pieces.push(sequence.event("response.output_text.delta", delta));
    }
    let text = reply.text();
    let tail = vec![
        sequence.event(
            "response.output_text.done",
            place(json!({"text": text, "logprobs": []})),
        ),
        sequence.event(
            "response.content_part.done",
            place(json!({"part": part(&text)})),
        ),
    ];
    (pieces, tail)
}

fn called(sequence: &mut Sequence, id: &Value, arguments: &str) -> (Vec<String>, Vec<String>) {
    let delta = json!({"item_id": id, "output_index": 0, "delta": arguments});
    let done = json!({"item_id": id, "output_index": 0, "arguments": arguments});
    (
        vec![sequence.event("response.function_call_arguments.delta", delta)],
        vec![sequence.event("response.function_call_arguments.done", done)],
    )
}

/// Events are numbered.
#[derive(Debug, Default)]
struct Sequence(u64);

impl Sequence {
    fn event(&mut self, kind: &str, fields: Value) -> String {
        let mut event = json!({"type": kind, "sequence_number": self.0});
        self.0 += 1;
        merge(&mut event, fields);
        format!("event: {kind}\ndata: {event}\n\n")
    }
}

fn merge(into: &mut Value, fields: Value) {
    if let (Some(into), Value::Object(fields)) = (into.as_object_mut(), fields) {
        into.extend(fields);
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn begun(reply: &Reply) -> Value {
    let mut item = item(reply, "in_progress");
    if reply.call.is_some() {
        item["arguments"] = "".into();
    } else {
        item["content"] = json!([]);
    }
    item
}

fn item(reply: &Reply, status: &str) -> Value {
    let number = reply.number;
    match &reply.call {
        Some(call) => json!({
            "id": format!("fc_{number}"), "type": "function_call", "status": status,
            "call_id": format!("call_{number}"), "name": call.name, "arguments": call.arguments.to_string(),
        }),
        None => json!({
            "id": format!("msg_{number}"), "type": "message", "status": status, "role": "assistant",
            "content": [part(&reply.text())],
        }),
    }
}

/// The whole response, which the last event repeats with every tool's schema, and metadata behind the usage.
fn response(reply: &Reply, status: &str) -> Value {
    let is_over = status == "completed";
    let tokens = &reply.tokens;
    let usage = json!({
        "input_tokens": tokens.prompt(),
        "input_tokens_details": {
            "cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write_5m,
        },
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.prompt() + tokens.output,
    });
    json!({
        "id": format!("resp_{}", reply.number), "object": "response", "created_at": 1_764_000_000,
        "status": status, "background": false, "error": null, "incomplete_details": null,
        "instructions": null, "max_output_tokens": null, "max_tool_calls": null, "model": reply.model,
        "output": if is_over { json!([item(reply, "completed")]) } else { json!([]) },
        "parallel_tool_calls": true, "previous_response_id": null, "prompt_cache_key": null,
        "reasoning": {"effort": null, "summary": null}, "safety_identifier": null,
        "service_tier": "default", "store": false, "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"}, "tool_choice": "auto",
        "tools": reply.tools, "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled",
        "usage": if is_over { usage } else { Value::Null },
        "user": null, "metadata": {"note": "x".repeat(512)},
    })
}
