//! Refusals, in the error shape of the client's dialect: its SDK makes an error of its own of it, and the
//! message reaches the customer as it is.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    budget::{Budget, NotReserved},
    dialect::Dialect,
    rates::TooMany,
    splice::Malformed,
};

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    UnknownAddress,
    IdentityUnavailable,
    /// The operator has suspended the instance.
    Suspended,
    Busy,
    TooLarge,
    TooSlow,
    /// The client broke off.
    Cut,
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
    /// Too many requests or tokens in a minute; when to come back.
    TooMany(Duration),
    /// The instance's budget is used up.
    Spent(Budget),
    /// What is left of the budget cannot be found out.
    NoBudget,
    /// There is a budget, and nobody knows what the model costs.
    NoPrice,
    /// What costs nobody knows what, or reaches others' things, is not served on the operator's key.
    NotOnOurKey(&'static str),
    /// The customer's own key does not open.
    OwnKey,
    NoSuchPath,
    NoSuchMethod,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.in_dialect(Dialect::Chat)
    }
}

impl Refusal {
    pub(crate) fn of_rate(too_many: TooMany) -> Self {
        Self::TooMany(too_many.retry_after)
    }

    pub(crate) fn of_budget(not_reserved: NotReserved) -> Self {
        match not_reserved {
            NotReserved::Spent(budget) => Self::Spent(budget),
            NotReserved::Unknown => Self::NoBudget,
        }
    }

    /// The answer, as this dialect has its errors.
    pub fn in_dialect(self, dialect: Dialect) -> Response {
        let (status, kind, code) = self.kind();
        let error = error(dialect, status, kind, code, &self.message());
        let mut response = (status, Json(error)).into_response();
        let retry_after = match self {
            // Whole seconds, not too early.
            Self::TooMany(wait) => Some(wait.as_millis().div_ceil(1000).max(1)),
            _ => (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        };
        if let Some(seconds) = retry_after
            && let Ok(seconds) = HeaderValue::from_str(&seconds.to_string())
        {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }

    /// A word for programs.
    pub(crate) const fn code(self) -> &'static str {
        self.kind().2
    }

    const fn kind(self) -> (StatusCode, Kind, &'static str) {
        use Kind::{Invalid, Missing, Ours, Stranger, TooFast, Unpaid};
        match self {
            Self::UnknownAddress => (StatusCode::FORBIDDEN, Stranger, "unknown_address"),
            Self::IdentityUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                Ours,
                "identity_unavailable",
            ),
            Self::Suspended => (StatusCode::FORBIDDEN, Stranger, "suspended"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, Ours, "busy"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, Invalid, "request_too_large"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, Invalid, "request_timeout"),
            Self::Unreadable | Self::Malformed(_) | Self::Cut => {
                (StatusCode::BAD_REQUEST, Invalid, "invalid_json")
            }
            Self::NoModel => (StatusCode::BAD_REQUEST, Invalid, "no_model"),
            Self::UnknownModel => (StatusCode::NOT_FOUND, Missing, "model_not_found"),
            Self::OtherDialect => (StatusCode::BAD_REQUEST, Invalid, "other_dialect"),
            Self::NobodyAnswers => (StatusCode::BAD_GATEWAY, Ours, "nobody_answers"),
            Self::OurKey => (StatusCode::BAD_GATEWAY, Ours, "provider_refuses"),
            Self::NoLedger => (StatusCode::SERVICE_UNAVAILABLE, Ours, "no_ledger"),
            Self::TooMany(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                TooFast,
                "rate_limit_exceeded",
            ),
            Self::Spent(_) => (StatusCode::PAYMENT_REQUIRED, Unpaid, "budget_exhausted"),
            Self::NoBudget => (StatusCode::SERVICE_UNAVAILABLE, Ours, "no_budget"),
            Self::NoPrice => (StatusCode::BAD_GATEWAY, Ours, "no_price"),
            Self::NotOnOurKey(_) => (StatusCode::BAD_REQUEST, Invalid, "not_on_this_key"),
            Self::OwnKey => (StatusCode::BAD_GATEWAY, Ours, "own_key_unreadable"),
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
            Self::Suspended => "this agent is suspended; please contact whoever runs this service",
            Self::Busy => "too many large requests at once",
            Self::TooLarge => "the request is larger than 20 MB",
            Self::TooSlow => "the request did not arrive in time",
            Self::Cut => "the request broke off",
            Self::NotOnOurKey(what) => {
                return format!("`{what}` is served with a key of your own only");
            }
            Self::NoPrice => {
                "this agent has a budget, and this model no price; its operator has been told"
            }
            Self::OwnKey => "your own key for this provider cannot be read; set it again",
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
            Self::TooMany(_) => "too many requests or tokens in a minute; try again a little later",
            Self::Spent(Budget::Day) => {
                "this agent's budget for today is used up; a new day begins at midnight UTC"
            }
            Self::Spent(Budget::Month) => {
                "this agent's budget for this month is used up; a new month begins on the first, UTC"
            }
            Self::NoBudget => "what is left of this agent's budget cannot be found out right now",
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
    TooFast,
    Unpaid,
    Ours,
}

fn error(dialect: Dialect, status: StatusCode, kind: Kind, code: &str, message: &str) -> Value {
    match dialect {
        Dialect::Chat | Dialect::Responses | Dialect::Embeddings => {
            let kind = match kind {
                Kind::Invalid | Kind::Missing => "invalid_request_error",
                Kind::Stranger => "authentication_error",
                Kind::TooFast => "rate_limit_error",
                Kind::Unpaid => "insufficient_quota",
                Kind::Ours => "server_error",
            };
            json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
        }
        Dialect::Messages => {
            let kind = match kind {
                Kind::Invalid => "invalid_request_error",
                Kind::Missing => "not_found_error",
                Kind::Stranger => "permission_error",
                Kind::TooFast => "rate_limit_error",
                Kind::Unpaid => "billing_error",
                Kind::Ours => "api_error",
            };
            json!({"type": "error", "error": {"type": kind, "message": message}})
        }
        Dialect::Gemini => {
            let kind = match kind {
                Kind::Invalid => "INVALID_ARGUMENT",
                Kind::Missing => "NOT_FOUND",
                Kind::Stranger => "PERMISSION_DENIED",
                Kind::TooFast => "RESOURCE_EXHAUSTED",
                Kind::Unpaid => "FAILED_PRECONDITION",
                Kind::Ours => "UNAVAILABLE",
            };
            json!({"error": {"code": status.as_u16(), "message": message, "status": kind}})
        }
    }
}
