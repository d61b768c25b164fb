//! Answers in the OpenAI chat format, whole or as a stream of events.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::{
    Json,
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header;
use serde_json::{Value, json};

use crate::prompt::ChatRequest;

/// Words per event, and the pause between two: a stream that can be seen to be one.
const WORDS_PER_EVENT: usize = 4;
const PAUSE: Duration = Duration::from_millis(8);
/// Longer names of models are not repeated back.
const MODEL_MAX_BYTES: usize = 128;
/// A usual estimate; the demo model has no tokenizer.
const BYTES_PER_TOKEN: usize = 4;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// An answer before it is given a form.
#[derive(Debug)]
pub struct Answer {
    id: String,
    created: u64,
    model: String,
    text: String,
    usage: Value,
}

impl Answer {
    /// What the model says to a request.
    pub fn new(request: &ChatRequest, text: String) -> Self {
        let created = unix_seconds();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let model = request
            .model
            .as_deref()
            .filter(|model| model.len() <= MODEL_MAX_BYTES)
            .unwrap_or(crate::demo::MODEL);
        let prompt = request.text_bytes().div_ceil(BYTES_PER_TOKEN);
        let completion = text.len().div_ceil(BYTES_PER_TOKEN);
        Self {
            id: format!("chatcmpl-demo-{created:x}-{count:x}"),
            created,
            model: model.to_owned(),
            text,
            usage: json!({
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            }),
        }
    }

    /// In one piece.
    pub fn whole(self) -> Response {
        Json(json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": self.text, "refusal": null},
                "logprobs": null,
                "finish_reason": "stop",
            }],
            "usage": self.usage,
        }))
        .into_response()
    }

    /// As server-sent events, one by one.
    pub fn streamed(&self, usage: Usage) -> Response {
        let events = stream::iter(self.events(usage).into_iter().enumerate()).then(
            |(number, event)| async move {
                if number > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
                Ok::<_, Infallible>(event)
            },
        );
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        (headers, Body::from_stream(events)).into_response()
    }

    fn events(&self, usage: Usage) -> Vec<Bytes> {
        let words: Vec<&str> = self.text.split_inclusive(' ').collect();
        let mut events =
            vec![self.event(usage, &json!({"role": "assistant", "content": ""}), None)];
        events.extend(
            words
                .chunks(WORDS_PER_EVENT)
                .map(|words| self.event(usage, &json!({"content": words.concat()}), None)),
        );
        events.push(self.event(usage, &json!({}), Some("stop")));
        if usage == Usage::Wanted {
            events.push(data(&self.chunk(&json!([]), &self.usage)));
        }
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        events
    }

    fn event(&self, usage: Usage, delta: &Value, finish: Option<&str>) -> Bytes {
        let choices = json!([{
            "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish,
        }]);
        let mut chunk = self.chunk(&choices, &Value::Null);
        if let (Usage::Unwanted, Some(fields)) = (usage, chunk.as_object_mut()) {
            fields.shift_remove("usage");
        }
        data(&chunk)
    }

    fn chunk(&self, choices: &Value, usage: &Value) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "usage": usage,
        })
    }
}

/// Whether the client asked for the extra event with the usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Wanted,
    Unwanted,
}

fn data(chunk: &Value) -> Bytes {
    Bytes::from(format!("data: {chunk}\n\n"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the answer's date; nothing is decided by it"
)]
fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
