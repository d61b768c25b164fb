//! A provider of all dialects: what is said to it says how it behaves, and it remembers what it heard.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

const USAGE: &str = r#"{"prompt_tokens":100,"completion_tokens":7,"total_tokens":107,"prompt_tokens_details":{"cached_tokens":40},"completion_tokens_details":{"reasoning_tokens":2}}"#;

/// One request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<Heard>>>);

pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    memory: Memory,
    _serving: JoinSet<()>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let memory = Memory::default();
        let router = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1beta/openai/chat/completions", post(chat))
            .route("/v1/responses", post(responses))
            .route("/v1/messages", post(messages))
            .route("/v1beta/models/{call}", post(gemini))
            .route("/v1/generation", get(generation))
            .with_state(memory.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            memory,
            _serving: serving,
        }
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.memory.0.lock().unwrap().clone()
    }
}

fn note(memory: &Memory, uri: &Uri, headers: &HeaderMap, body: &Value) {
    memory.0.lock().unwrap().push(Heard {
        uri: uri.to_string(),
        headers: headers.clone(),
        body: body.clone(),
    });
}

async fn chat(
    State(memory): State<Memory>,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    note(&memory, &uri, &headers, &body);
    let said = match body["model"].as_str().unwrap() {
        model @ ("fails" | "refuses-key") => model.to_owned(),
        _ => body["messages"][0]["content"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    };
    let wants_usage = body.pointer("/stream_options/include_usage") == Some(&json!(true));
    match said.as_str() {
        "think" => std::future::pending().await,
        // The connection goes with the task that serves it, and nothing is printed.
        "hang up" => std::panic::resume_unwind(Box::new("hung up as asked for")),
        "be busy" if memory.0.lock().unwrap().len() == 1 => {
            let headers = [("retry-after", "1"), ("retry-after-ms", "300")];
            (StatusCode::TOO_MANY_REQUESTS, headers, "{}").into_response()
        }
        "be left" | "be unknown" => {
            let id = said.replace("be ", "gen-");
            let again = stream::repeat_with(|| Ok::<_, Infallible>(word("again "))).take(50);
            let mut response = events(again.chain(stream::pending()));
            response
                .headers_mut()
                .insert("x-generation-id", id.parse().unwrap());
            response
        }
        "wait" => and_silence(": processing\n\n".to_owned()),
        "count along" => and_silence(format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"Hello\"}}}}],\"usage\":{USAGE}}}\n\n"
        )),
        "end early" => events(stream::iter([Ok::<_, Infallible>(word("Hel"))])),
        "end without a mark" => {
            let whole = chat_stream(false).replace("data: [DONE]\n\n", "");
            events(stream::iter([Ok::<_, Infallible>(whole)]))
        }
        "fails" => (StatusCode::INTERNAL_SERVER_ERROR, "{}").into_response(),
        "refuses-key" => (
            StatusCode::UNAUTHORIZED,
            "Incorrect API key provided: sk-ours",
        )
            .into_response(),
        "cut" => events(
            stream::iter([
                Ok(Bytes::from(word("Hel"))),
                Ok(Bytes::from(word("lo, ha"))),
                Ok(Bytes::from_static(b"data: {\"half")),
                Err(std::io::Error::other("cut")),
            ])
            // What was sent before must have left when the connection breaks.
            .then(|piece| async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                piece
            }),
        ),
        "never end" => events(
            stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from(word("again ")))).then(
                |event| async {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    event
                },
            ),
        ),
        "count late" => {
            let whole = chat_stream(true);
            let at = whole
                .find("data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[],")
                .unwrap();
            let parts = [whole[..at].to_owned(), whole[at..].to_owned()];
            events(
                stream::iter(parts.into_iter().enumerate()).then(|(number, part)| async move {
                    tokio::time::sleep(Duration::from_millis(300) * u32::try_from(number).unwrap())
                        .await;
                    Ok::<_, Infallible>(Bytes::from(part))
                }),
            )
        }
        _ if body["stream"] == true => {
            // In small pieces that respect nothing.
            let whole = chat_stream(wants_usage).into_bytes();
            let pieces: Vec<_> = whole
                .chunks(13)
                .map(Bytes::copy_from_slice)
                .map(Ok::<_, Infallible>)
                .collect();
            events(stream::iter(pieces))
        }
        _ => {
            let headers = [
                ("content-type", "application/json"),
                ("set-cookie", "__cf=1"),
                ("openai-organization", "ours"),
                ("x-ratelimit-remaining-tokens", "5"),
                ("x-request-id", "req_upstream"),
            ];
            (headers, chat_body()).into_response()
        }
    }
}

async fn messages(
    State(memory): State<Memory>,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    note(&memory, &uri, &headers, &body);
    let mut whole = messages_stream();
    if body["messages"][0]["content"] == "end early" {
        whole.truncate(whole.find("event: message_delta").unwrap());
    }
    events(stream::iter([Ok::<_, Infallible>(whole)]))
}

async fn responses(
    State(memory): State<Memory>,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    note(&memory, &uri, &headers, &body);
    let mut whole = responses_stream();
    if body["input"] == "end early" {
        whole.truncate(whole.find("event: response.completed").unwrap());
    }
    events(stream::iter([Ok::<_, Infallible>(whole)]))
}

/// OpenRouter's books, which know nothing when they are asked for the first time.
async fn generation(
    State(memory): State<Memory>,
    uri: Uri,
    headers: HeaderMap,
) -> (StatusCode, String) {
    let key = headers.get("authorization");
    if key.is_none_or(|key| key != "Bearer sk-ours") || uri.query() == Some("id=gen-unknown") {
        return (StatusCode::FORBIDDEN, "{}".to_owned());
    }
    note(&memory, &uri, &headers, &Value::Null);
    let heard = memory.0.lock().unwrap();
    if heard
        .iter()
        .filter(|one| one.uri == uri.to_string())
        .count()
        == 1
    {
        return (StatusCode::NOT_FOUND, "{}".to_owned());
    }
    let books = json!({"data": {"id": "gen-left", "model": "openai/gpt-4o-mini", "cancelled": true,
        "native_tokens_prompt": 100, "native_tokens_completion": 7, "native_tokens_cached": 40,
        "native_tokens_reasoning": 2, "total_cost": 0.0123}});
    (StatusCode::OK, books.to_string())
}

/// A stream that does not go on.
fn and_silence(first: String) -> Response {
    let first = stream::iter([Ok::<_, Infallible>(first)]);
    events(first.chain(stream::pending()))
}

async fn gemini(
    State(memory): State<Memory>,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    note(&memory, &uri, &headers, &body);
    events(stream::iter([Ok::<_, Infallible>(gemini_stream())]))
}

fn events<S, B, E>(stream: S) -> Response
where
    S: futures_util::Stream<Item = Result<B, E>> + Send + 'static,
    B: Into<Bytes> + 'static,
    E: Into<axum::BoxError> + 'static,
{
    let headers = [
        ("content-type", "text/event-stream"),
        ("openai-organization", "ours"),
    ];
    (headers, Body::from_stream(stream)).into_response()
}

fn word(text: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
    )
}

pub(crate) fn chat_stream(with_usage: bool) -> String {
    let mut whole = String::from(": begin\n\n");
    whole.push_str(&word("Hello"));
    whole.push_str(&word("\u{2028} there"));
    whole.push_str("data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\n");
    if with_usage {
        whole.push_str(
            "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":",
        );
        whole.push_str(USAGE);
        whole.push_str("}\n\n");
    }
    whole.push_str("data: [DONE]\n\n");
    whole
}

pub(crate) fn chat_body() -> String {
    format!(
        "{{\"id\":\"c\",\"object\":\"chat.completion\",\"model\":\"gpt-4o-mini\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"Hello\"}},\"finish_reason\":\"stop\"}}],\"usage\":{USAGE}}}"
    )
}

pub(crate) fn messages_stream() -> String {
    named(&[
        r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"claude-haiku-4-5","content":[],"usage":{"input_tokens":10,"cache_creation_input_tokens":20,"cache_read_input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":0},"output_tokens":1}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":5}}"#,
        r#"{"type":"message_stop"}"#,
    ])
}

pub(crate) fn responses_stream() -> String {
    named(&[
        r#"{"type":"response.created","sequence_number":0,"response":{"id":"r","usage":null}}"#,
        r#"{"type":"response.output_text.delta","sequence_number":1,"delta":"Hello"}"#,
        r#"{"type":"response.completed","sequence_number":2,"response":{"id":"r","usage":{"input_tokens":9,"output_tokens":3,"total_tokens":12}}}"#,
    ])
}

fn named(events: &[&str]) -> String {
    let event = |data: &&str| {
        let event: Value = serde_json::from_str(data).unwrap();
        format!(
            "event: {}\ndata: {data}\n\n",
            event["type"].as_str().unwrap()
        )
    };
    events.iter().map(event).collect()
}

pub(crate) fn gemini_stream() -> String {
    [
        r#"{"candidates":[{"content":{"parts":[{"text":"Hel"}],"role":"model"}}],"usageMetadata":{"promptTokenCount":8,"totalTokenCount":8}}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"lo"}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":3,"thoughtsTokenCount":2,"totalTokenCount":13}}"#,
    ]
    .iter()
    .map(|data| format!("data: {data}\r\n\r\n"))
    .collect::<Vec<_>>()
    .concat()
}
