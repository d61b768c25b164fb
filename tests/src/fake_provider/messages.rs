//! Anthropic's messages.

use serde_json::{Value, json};

use super::reply::{Events, Reply};

pub(super) fn whole(reply: &Reply) -> Value {
    let block = match &reply.call {
        Some(call) => {
            json!({"type": "tool_use", "id": id(reply), "name": call.name, "input": call.arguments})
        }
        None => json!({"type": "text", "text": reply.text()}),
    };
    let mut message = message(reply);
    message["content"] = json!([block]);
    message["stop_reason"] = stop(reply).into();
    message["usage"] = first_usage(reply, reply.tokens.output);
    message["usage"]["output_tokens_details"] = json!({"thinking_tokens": reply.tokens.reasoning});
    message
}

pub(super) fn events(reply: &Reply) -> Events {
    let mut begun = message(reply);
    // What the real one says here is a placeholder.
    begun["usage"] = first_usage(reply, 1);
    let block = match &reply.call {
        Some(call) => json!({"type": "tool_use", "id": id(reply), "name": call.name, "input": {}}),
        None => json!({"type": "text", "text": ""}),
    };
    let head = vec![
        event("message_start", json!({"message": begun})),
        event(
            "content_block_start",
            json!({"index": 0, "content_block": block}),
        ),
        event("ping", json!({})),
    ];
    let deltas: Vec<_> = if let Some(call) = &reply.call {
        let json = call.arguments.to_string();
        let (first, second) = json.split_at(json.floor_char_boundary(json.len() / 2));
        let delta = |part| json!({"type": "input_json_delta", "partial_json": part});
        [first, second].map(delta).to_vec()
    } else {
        let delta = |word: &&str| json!({"type": "text_delta", "text": word});
        reply.words.iter().map(delta).collect()
    };
    let piece = |delta| event("content_block_delta", json!({"index": 0, "delta": delta}));
    let pieces = deltas.into_iter().map(piece).collect();
    let delta = json!({"stop_reason": stop(reply), "stop_sequence": null});
    let tail = vec![
        event("content_block_stop", json!({"index": 0})),
        event(
            "message_delta",
            json!({"delta": delta, "usage": last_usage(reply)}),
        ),
        event("message_stop", json!({})),
    ];
    Events { head, pieces, tail }
}

fn event(kind: &str, fields: Value) -> String {
    let mut data = json!({"type": kind});
    if let (Some(data), Value::Object(fields)) = (data.as_object_mut(), fields) {
        data.extend(fields);
    }
    format!("event: {kind}\ndata: {data}\n\n")
}

fn id(reply: &Reply) -> String {
    format!("toolu_{}", reply.number)
}

fn stop(reply: &Reply) -> &'static str {
    if reply.call.is_some() {
        "tool_use"
    } else {
        "end_turn"
    }
}

fn message(reply: &Reply) -> Value {
    json!({
        "id": format!("msg_{}", reply.number), "type": "message", "role": "assistant",
        "model": reply.model, "content": [], "stop_reason": null, "stop_sequence": null,
    })
}

fn first_usage(reply: &Reply, output: u64) -> Value {
    let tokens = &reply.tokens;
    json!({
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_write_5m + tokens.cache_write_1h,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write_5m,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
        "output_tokens": output, "service_tier": "standard", "inference_geo": "global",
    })
}

/// Totals so far; how the cache was written is not told again.
fn last_usage(reply: &Reply) -> Value {
    let tokens = &reply.tokens;
    json!({
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_write_5m + tokens.cache_write_1h,
        "cache_read_input_tokens": tokens.cache_read,
        "output_tokens": tokens.output,
        "output_tokens_details": {"thinking_tokens": tokens.reasoning},
    })
}
