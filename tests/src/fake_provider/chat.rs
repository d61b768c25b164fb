//! OpenAI's chat completions.

use serde_json::{Value, json};

use super::reply::{Events, Reply};

pub(super) fn whole(reply: &Reply) -> Value {
    let message = match &reply.call {
        Some(call) => {
            json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [{
                "id": id(reply), "type": "function",
                "function": {"name": call.name, "arguments": call.arguments.to_string()},
            }]})
        }
        None => {
            json!({"role": "assistant", "content": reply.text(), "refusal": null, "annotations": []})
        }
    };
    json!({
        "id": format!("chatcmpl-{}", reply.number), "object": "chat.completion", "created": 1_764_000_000,
        "model": reply.model,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish(reply)}],
        "usage": usage(reply), "service_tier": "default", "system_fingerprint": "fp_fake",
    })
}

pub(super) fn events(reply: &Reply) -> Events {
    let head = vec![chunk(
        reply,
        &json!({"role": "assistant", "content": "", "refusal": null}),
        None,
    )];
    let pieces = if let Some(call) = &reply.call {
        called(reply, &call.name, &call.arguments.to_string())
    } else {
        let piece = |word: &&str| chunk(reply, &json!({"content": word}), None);
        reply.words.iter().map(piece).collect()
    };
    let mut tail = vec![chunk(reply, &json!({}), Some(finish(reply)))];
    if reply.wants_usage {
        let mut last = frame(reply);
        last["choices"] = json!([]);
        last["usage"] = usage(reply);
        tail.push(data(&last));
    }
    tail.push("data: [DONE]\n\n".to_owned());
    Events { head, pieces, tail }
}

/// The arguments come in two halves.
fn called(reply: &Reply, name: &str, arguments: &str) -> Vec<String> {
    let half = arguments.len() / 2;
    let (first, second) = arguments.split_at(arguments.floor_char_boundary(half));
    let begin = json!({"tool_calls": [{"index": 0, "id": id(reply), "type": "function",
        "function": {"name": name, "arguments": ""}}]});
    let more = |part: &str| json!({"tool_calls": [{"index": 0, "function": {"arguments": part}}]});
    [begin, more(first), more(second)]
        .iter()
        .map(|delta| chunk(reply, delta, None))
        .collect()
}

fn id(reply: &Reply) -> String {
    format!("call_{}", reply.number)
}

fn finish(reply: &Reply) -> &'static str {
    if reply.call.is_some() {
        "tool_calls"
    } else {
        "stop"
    }
}

fn chunk(reply: &Reply, delta: &Value, finish: Option<&str>) -> String {
    let mut chunk = frame(reply);
    chunk["choices"] =
        json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
    if reply.wants_usage {
        chunk["usage"] = Value::Null;
    }
    chunk["obfuscation"] = "aW4ndA".into();
    data(&chunk)
}

fn frame(reply: &Reply) -> Value {
    json!({
        "id": format!("chatcmpl-{}", reply.number), "object": "chat.completion.chunk",
        "created": 1_764_000_000, "model": reply.model, "service_tier": "default",
        "system_fingerprint": "fp_fake",
    })
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn usage(reply: &Reply) -> Value {
    let tokens = &reply.tokens;
    json!({
        "prompt_tokens": tokens.prompt(), "completion_tokens": tokens.output,
        "total_tokens": tokens.prompt() + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    })
}
