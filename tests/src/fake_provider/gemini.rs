//! Gemini's generated content. Lines end with CR LF; every chunk tells the usage so far.

use serde_json::{Value, json};

use super::{
    books::Tokens,
    reply::{Events, Reply},
};

pub(super) fn whole(reply: &Reply) -> Value {
    let parts = match &reply.call {
        Some(_) => json!([called(reply)]),
        None => json!([{"text": reply.text()}]),
    };
    content(reply, &parts, Some("STOP"), &reply.tokens)
}

/// As events, or as the parts of one JSON list.
pub(super) fn events(reply: &Reply, is_sse: bool) -> Events {
    let so_far = |(number, word): (usize, &&str)| {
        let tokens = reply.tokens_at(number + 1);
        content(reply, &json!([{"text": word}]), None, &tokens)
    };
    let mut chunks: Vec<Value> = reply.words.iter().enumerate().map(so_far).collect();
    let parts = match &reply.call {
        Some(_) => json!([called(reply)]),
        None => json!([{"text": ""}]),
    };
    chunks.push(content(reply, &parts, Some("STOP"), &reply.tokens));
    let mut texts: Vec<String> = if is_sse {
        chunks
            .iter()
            .map(|chunk| format!("data: {chunk}\r\n\r\n"))
            .collect()
    } else {
        let before = |number| if number == 0 { "[" } else { ",\r\n" };
        let chunks = chunks.iter().enumerate();
        chunks
            .map(|(number, chunk)| format!("{}{chunk}", before(number)))
            .collect()
    };
    let mut tail = texts.split_off(texts.len() - 1);
    if !is_sse {
        tail.push("]".to_owned());
    }
    Events {
        head: Vec::new(),
        pieces: texts,
        tail,
    }
}

fn called(reply: &Reply) -> Value {
    let call = reply.call.as_ref();
    json!({"functionCall": {
        "name": call.map(|call| &call.name), "args": call.map(|call| &call.arguments),
    }})
}

fn content(reply: &Reply, parts: &Value, finish: Option<&str>, tokens: &Tokens) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    if let Some(finish) = finish {
        candidate["finishReason"] = finish.into();
    }
    json!({
        "candidates": [candidate], "usageMetadata": usage(tokens),
        "modelVersion": reply.model, "responseId": format!("resp-{}", reply.number),
    })
}

/// A tenth of the prompt is what the provider's own tools put into it.
fn usage(tokens: &Tokens) -> Value {
    let tools = tokens.prompt() / 10;
    let prompt = tokens.prompt() - tools;
    let mut usage = json!({
        "promptTokenCount": prompt, "candidatesTokenCount": tokens.output - tokens.reasoning,
        "totalTokenCount": tokens.prompt() + tokens.output,
        "cachedContentTokenCount": tokens.cache_read, "toolUsePromptTokenCount": tools,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": tokens.cache_read}],
    });
    if tokens.reasoning > 0 {
        usage["thoughtsTokenCount"] = tokens.reasoning.into();
    }
    usage
}
