//! Paths, and a request's way: its key, its record, what it asks for, an answer.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, RawQuery, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{
    Shared,
    books::{Ending, Entry, Served, Tokens},
    chat,
    conversation::Conversation,
    course,
    dialect::Dialect,
    embeddings, gemini, messages,
    refusal::refusal,
    reply::Reply,
    responses,
    script::{Action, Script},
};

const BODY_MAX_BYTES: usize = 32 * 1024 * 1024;

type Fake = State<Arc<Shared>>;

/// What is called.
struct Called {
    dialect: Dialect,
    /// Gemini has it in the path.
    model: Option<String>,
    form: Form,
}

/// What the answer is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As the body's `stream` says.
    Asked,
    Whole,
    Stream {
        is_sse: bool,
    },
    Count,
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let by_body = |dialect, form| {
        post(
            move |State(shared): Fake, headers: HeaderMap, body: Bytes| async move {
                let called = Called {
                    dialect,
                    model: None,
                    form,
                };
                answer(&shared, &headers, &body, called)
            },
        )
    };
    Router::new()
        .route("/v1/chat/completions", by_body(Dialect::Chat, Form::Asked))
        .route("/v1/responses", by_body(Dialect::Responses, Form::Asked))
        .route("/v1/embeddings", by_body(Dialect::Embeddings, Form::Whole))
        .route("/v1/messages", by_body(Dialect::Messages, Form::Asked))
        .route(
            "/v1/messages/count_tokens",
            by_body(Dialect::Messages, Form::Count),
        )
        .route("/v1beta/models/{call}", post(by_path))
        .route("/v1/models/{call}", post(by_path))
        .route("/v1/models", get(models))
        .route("/v1beta/models", get(gemini_models))
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(shared)
}

async fn by_path(
    State(shared): Fake,
    Path(call): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let is_sse = query.is_some_and(|query| query.split('&').any(|pair| pair == "alt=sse"));
    let (model, form) = match call.rsplit_once(':') {
        Some((model, "generateContent")) => (model, Form::Whole),
        Some((model, "streamGenerateContent")) => (model, Form::Stream { is_sse }),
        Some((model, "countTokens")) => (model, Form::Count),
        _ => return refusal(Dialect::Gemini, 404),
    };
    let called = Called {
        dialect: Dialect::Gemini,
        model: Some(model.to_owned()),
        form,
    };
    answer(&shared, &headers, &body, called)
}

fn answer(shared: &Shared, headers: &HeaderMap, body: &Bytes, called: Called) -> Response {
    let dialect = called.dialect;
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let named = || parsed["model"].as_str().map(str::to_owned);
    let model = called.model.or_else(named).unwrap_or_default();
    let form = match called.form {
        Form::Asked if parsed["stream"] == true => Form::Stream { is_sse: true },
        Form::Asked => Form::Whole,
        form => form,
    };
    let key = dialect.key(headers);
    let is_known = key.as_deref() == Some(&shared.key);
    let conversation = Conversation::of(dialect, &parsed);
    let script = Script::of(&model, &conversation);
    let called_tool = match &script.action {
        Action::Call(call) => Some(call.name.clone()),
        Action::Say(_) | Action::Refuse(_) => None,
    };
    let entry = shared.books.open(Served {
        dialect,
        model: model.clone(),
        is_stream: matches!(form, Form::Stream { .. }),
        status: 200,
        called: called_tool,
        has_result: conversation.has_result,
        tokens: Tokens::default(),
        ending: Ending::UnderWay,
        key,
    });
    let refused = match script.action {
        _ if !is_known => Some(401),
        _ if !parsed.is_object() => Some(400),
        Action::Refuse(status) => Some(status),
        Action::Say(_) | Action::Call(_) => None,
    };
    if let Some(status) = refused {
        entry.end(status, Ending::Refused);
        return refusal(dialect, status);
    }
    let reply = Reply::of(dialect, entry.number(), &model, &parsed, &script);
    match form {
        Form::Stream { is_sse } => streamed(dialect, is_sse, entry, reply, &script),
        Form::Count => {
            // Costs nothing.
            entry.end(200, Ending::Whole);
            let prompt = reply.tokens.prompt();
            Json(json!({"input_tokens": prompt, "totalTokens": prompt})).into_response()
        }
        Form::Asked | Form::Whole => {
            entry.count(reply.tokens);
            entry.end(200, Ending::Whole);
            whole(dialect, &reply, &parsed)
        }
    }
}

fn streamed(
    dialect: Dialect,
    is_sse: bool,
    entry: Entry,
    reply: Reply,
    script: &Script,
) -> Response {
    let events = match dialect {
        Dialect::Responses => responses::events(&reply),
        Dialect::Messages => messages::events(&reply),
        Dialect::Gemini => gemini::events(&reply, is_sse),
        Dialect::Chat | Dialect::Embeddings => chat::events(&reply),
    };
    let kind = if is_sse {
        "text/event-stream; charset=utf-8"
    } else {
        "application/json"
    };
    let body = course::body(dialect, entry, reply, events, script);
    ([("content-type", kind)], body).into_response()
}

fn whole(dialect: Dialect, reply: &Reply, parsed: &Value) -> Response {
    let whole = match dialect {
        Dialect::Chat => chat::whole(reply),
        Dialect::Responses => responses::whole(reply),
        Dialect::Messages => messages::whole(reply),
        Dialect::Gemini => gemini::whole(reply),
        Dialect::Embeddings => embeddings::whole(reply, parsed),
    };
    let headers = [("x-request-id", "req_fake"), ("request-id", "req_fake")];
    (headers, Json(whole)).into_response()
}

/// One path for three providers: Anthropic's clients tell a version, Google's have a header of their own.
async fn models(headers: HeaderMap) -> Json<Value> {
    if headers.contains_key("x-goog-api-key") {
        return gemini_models().await;
    }
    Json(if headers.contains_key("anthropic-version") {
        json!({
            "data": [{"type": "model", "id": "claude-haiku-4-5", "display_name": "Claude Haiku 4.5",
                "created_at": "2025-10-15T00:00:00Z"}],
            "has_more": false, "first_id": "claude-haiku-4-5", "last_id": "claude-haiku-4-5",
        })
    } else {
        json!({"object": "list", "data": [
            {"id": "gpt-4o-mini", "object": "model", "created": 1_721_172_741, "owned_by": "system"},
        ]})
    })
}

async fn gemini_models() -> Json<Value> {
    Json(json!({"models": [{
        "name": "models/gemini-2.5-flash", "version": "001", "displayName": "Gemini 2.5 Flash",
        "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }]}))
}
