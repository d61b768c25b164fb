//! Refusals, in the error shape of the client's dialect: its SDK makes an error of its own of it, and the
//! message reaches the customer as it is.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{dialect::Dialect, splice::Malformed};

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    UnknownAddress,
    IdentityUnavailable,
    Busy,
    TooLarge,
    TooSlow,
    Unreadable,
    Malformed(Malformed),
    NoModel,
    UnknownModel,
    /// The model is not served in this dialect.
    OtherDialect,
    /// No provider answered, or none is configured.
    NobodyAnswers,
    /// A provider refuses the operator's key.
    OurKey,
    /// What the request will cost cannot be written down.
    NoLedger,
    NoSuchPath,
    NoSuchMethod,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.in_dialect(Dialect::Chat)
    }
}

impl Refusal {
    /// The answer, as this dialect has its errors.
    pub fn in_dialect(self, dialect: Dialect) -> Response {
        let (status, kind, code) = self.kind();
        let error = error(dialect, status, kind, code, &self.message());
        let mut response = (status, Json(error)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let soon = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        response
    }

    const fn kind(self) -> (StatusCode, Kind, &'static str) {
        use Kind::{Invalid, Missing, Ours, Stranger};
        match self {
            Self::UnknownAddress => (StatusCode::FORBIDDEN, Stranger, "unknown_address"),
            Self::IdentityUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                Ours,
                "identity_unavailable",
            ),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, Ours, "busy"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, Invalid, "request_too_large"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, Invalid, "request_timeout"),
            Self::Unreadable | Self::Malformed(_) => {
                (StatusCode::BAD_REQUEST, Invalid, "invalid_json")
            }
            Self::NoModel => (StatusCode::BAD_REQUEST, Invalid, "no_model"),
            Self::UnknownModel => (StatusCode::NOT_FOUND, Missing, "model_not_found"),
            Self::OtherDialect => (StatusCode::BAD_REQUEST, Invalid, "other_dialect"),
            Self::NobodyAnswers => (StatusCode::BAD_GATEWAY, Ours, "nobody_answers"),
            Self::OurKey => (StatusCode::BAD_GATEWAY, Ours, "provider_refuses"),
            Self::NoLedger => (StatusCode::SERVICE_UNAVAILABLE, Ours, "no_ledger"),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, Missing, "unknown_path"),
            Self::NoSuchMethod => (
                StatusCode::METHOD_NOT_ALLOWED,
                Invalid,
                "method_not_allowed",
            ),
        }
    }

    fn message(self) -> String {
        let text = match self {
            Self::UnknownAddress => "this address is not known to the model proxy",
            Self::IdentityUnavailable => "the caller cannot be identified right now",
            Self::Busy => "too many large requests at once",
            Self::TooLarge => "the request is larger than 20 MB",
            Self::TooSlow => "the request did not arrive in time",
            Self::Unreadable => "the request is not a chat completion request",
            Self::Malformed(malformed) => {
                return format!("the request is not understood: {malformed}");
            }
            Self::NoModel => "the request names no model",
            Self::UnknownModel => {
                "there is no such model; ask for one of `GET /v1/models`, or for `provider/model` with a key of your own"
            }
            Self::OtherDialect => "this model is not served in the dialect of this path",
            Self::NobodyAnswers => "no model provider answers",
            Self::OurKey => "the model provider refuses this service; its operator has been told",
            Self::NoLedger => "requests cannot be accounted for right now",
            Self::NoSuchPath => "there is nothing at this path",
            Self::NoSuchMethod => "this path takes another method",
        };
        text.to_owned()
    }
}

/// What kind of error it is; every dialect has a word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Invalid,
    Missing,
    Stranger,
    Ours,
}

fn error(dialect: Dialect, status: StatusCode, kind: Kind, code: &str, message: &str) -> Value {
    match dialect {
        Dialect::Chat | Dialect::Responses | Dialect::Embeddings => {
            let kind = match kind {
                Kind::Invalid | Kind::Missing => "invalid_request_error",
                Kind::Stranger => "authentication_error",
                Kind::Ours => "server_error",
            };
            json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
        }
        Dialect::Messages => {
            let kind = match kind {
                Kind::Invalid => "invalid_request_error",
                Kind::Missing => "not_found_error",
                Kind::Stranger => "permission_error",
                Kind::Ours => "api_error",
            };
            json!({"type": "error", "error": {"type": kind, "message": message}})
        }
        Dialect::Gemini => {
            let kind = match kind {
                Kind::Invalid => "INVALID_ARGUMENT",
                Kind::Missing => "NOT_FOUND",
                Kind::Stranger => "PERMISSION_DENIED",
                Kind::Ours => "UNAVAILABLE",
            };
            json!({"error": {"code": status.as_u16(), "message": message, "status": kind}})
        }
    }
}
