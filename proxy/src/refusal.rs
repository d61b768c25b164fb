//! Refusals, in the error shape of the OpenAI dialect, whose message reaches the customer as it is.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    UnknownAddress,
    IdentityUnavailable,
    Busy,
    TooLarge,
    TooSlow,
    Unreadable,
    NoSuchPath,
    NoSuchMethod,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, kind, code, message) = self.parts();
        let error =
            json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
        let mut response = (status, Json(error)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let soon = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        response
    }
}

impl Refusal {
    const fn parts(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        const INVALID: &str = "invalid_request_error";
        match self {
            Self::UnknownAddress => (
                StatusCode::FORBIDDEN,
                "authentication_error",
                "unknown_address",
                "this address is not known to the model proxy",
            ),
            Self::IdentityUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "server_error",
                "identity_unavailable",
                "the caller cannot be identified right now",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "server_error",
                "busy",
                "too many large requests at once",
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                INVALID,
                "request_too_large",
                "the request is larger than 20 MB",
            ),
            Self::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                INVALID,
                "request_timeout",
                "the request did not arrive in time",
            ),
            Self::Unreadable => (
                StatusCode::BAD_REQUEST,
                INVALID,
                "invalid_json",
                "the request is not a chat completion request",
            ),
            Self::NoSuchPath => (
                StatusCode::NOT_FOUND,
                INVALID,
                "unknown_path",
                "there is nothing at this path",
            ),
            Self::NoSuchMethod => (
                StatusCode::METHOD_NOT_ALLOWED,
                INVALID,
                "method_not_allowed",
                "this path takes another method",
            ),
        }
    }
}
