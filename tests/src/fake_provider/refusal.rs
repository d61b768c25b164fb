//! Errors, as each provider has them: instead of an answer, and in the middle of one.

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::dialect::Dialect;

pub(super) fn refusal(dialect: Dialect, status: u16) -> Response {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = match dialect {
        Dialect::Chat | Dialect::Responses | Dialect::Embeddings => openai(status),
        Dialect::Messages => anthropic(status),
        Dialect::Gemini => gemini(status),
    };
    let mut response = (code, Json(body)).into_response();
    if status == 429 {
        let later = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, later);
    }
    response
}

/// In a stream.
pub(super) fn event(dialect: Dialect) -> String {
    match dialect {
        Dialect::Chat | Dialect::Embeddings => format!("data: {}\n\n", openai(500)),
        Dialect::Responses => {
            let event = json!({
                "type": "error", "code": "server_error", "message": message(500), "param": null,
                "sequence_number": 99,
            });
            format!("event: error\ndata: {event}\n\n")
        }
        Dialect::Messages => format!("event: error\ndata: {}\n\n", anthropic(529)),
        Dialect::Gemini => format!("data: {}\r\n\r\n", gemini(503)),
    }
}

fn message(status: u16) -> String {
    format!("this was to fail with {status}")
}

fn openai(status: u16) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", json!("invalid_api_key")),
        429 => ("requests", json!("rate_limit_exceeded")),
        500.. => ("server_error", Value::Null),
        _ => ("invalid_request_error", Value::Null),
    };
    json!({"error": {"message": message(status), "type": kind, "param": null, "code": code}})
}

fn anthropic(status: u16) -> Value {
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    json!({
        "type": "error", "error": {"type": kind, "message": message(status)}, "request_id": "req_fake",
    })
}

fn gemini(status: u16) -> Value {
    let word = match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    };
    json!({"error": {"code": status, "message": message(status), "status": word}})
}
