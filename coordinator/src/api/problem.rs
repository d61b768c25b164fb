//! Refusals and failures as `application/problem+json` (RFC 9457), with a stable `code` to branch on.
//!
//! A [`Problem`] travels through axum as an extension of an empty response, because only the outermost
//! layer knows the request id; [`super::request_id`] writes the body. Internal causes never leave
//! the process.

use std::{error::Error, sync::Arc};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tidepool_shared::id::OperationId;
use utoipa::ToSchema;

use crate::{config::Finding, store::StoreError};

/// Declares the codes with status, title and whether the same request may succeed later.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $status:ident, $word:literal, $title:literal, $retryable:literal;)+) => {
        /// What went wrong, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $variant,)+ }

        impl Code {
            /// The word in the body.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }
            const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }
            const fn retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)+ }
            }
        }
    };
}

codes! {
    MalformedJson = BAD_REQUEST, "malformed_json", "The body is not JSON", false;
    InvalidParameter = BAD_REQUEST, "invalid_parameter", "A parameter or header is not valid", false;
    Unauthorized = UNAUTHORIZED, "unauthorized", "A valid token is needed", false;
    NotFound = NOT_FOUND, "not_found", "There is no such thing", false;
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "This method is not possible here", false;
    SlowRequest = REQUEST_TIMEOUT, "slow_request", "The body took too long", true;
    NameTaken = CONFLICT, "name_taken", "The name is taken", false;
    ExternalIdTaken = CONFLICT, "external_id_taken", "The external id is taken", false;
    OperationInProgress = CONFLICT, "operation_in_progress", "Another operation is running", true;
    IdempotencyInProgress = CONFLICT, "idempotency_in_progress", "The first request with this key is still running", true;
    NotPossible = CONFLICT, "not_possible", "Not possible in the present status", false;
    Changed = CONFLICT, "changed_meanwhile", "Others changed it at the same time", true;
    Stale = PRECONDITION_FAILED, "stale", "It was changed since it was read", false;
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large", false;
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body is to be JSON", false;
    Invalid = UNPROCESSABLE_ENTITY, "invalid", "The request is not valid", false;
    IdempotencyKeyReused = UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The key was used for another request", false;
    ServerUnreachable = SERVICE_UNAVAILABLE, "server_unreachable", "The server does not answer now", true;
    ProviderUnreachable = BAD_GATEWAY, "provider_unreachable", "The provider does not answer now", true;
    Internal = INTERNAL_SERVER_ERROR, "internal", "Something went wrong here", true;
}

/// Why a request was not served.
#[derive(Debug, Clone)]
pub struct Problem {
    pub code: Code,
    detail: String,
    faults: Vec<Fault>,
    retry_after_s: Option<u64>,
    operation: Option<OperationId>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            faults: Vec::new(),
            retry_after_s: None,
            operation: None,
            cause: None,
        }
    }

    /// The body or a field of it is not acceptable.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        Self {
            faults,
            ..Self::new(Code::Invalid, "see errors for each fault")
        }
    }

    /// One field is not acceptable.
    pub fn field(pointer: &str, code: &str, detail: impl Into<String>) -> Self {
        Self::invalid(vec![Fault::new(pointer, code, detail)])
    }

    /// What the API is made of failed; the caller learns only that it did.
    pub fn internal(cause: impl Error + Send + Sync + 'static) -> Self {
        Self {
            cause: Some(Arc::new(cause)),
            ..Self::new(Code::Internal, "the request id helps to find out why")
        }
    }

    /// Another operation must end first.
    pub fn busy(operation: OperationId) -> Self {
        Self {
            operation: Some(operation),
            ..Self::new(Code::OperationInProgress, "wait for it and try again").retry_after(2)
        }
    }

    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    #[must_use]
    pub fn pointing_at(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    pub(super) fn cause(&self) -> Option<&(dyn Error + Send + Sync)> {
        self.cause.as_deref()
    }

    /// What the caller reads.
    pub fn body(&self, request_id: &str) -> ProblemBody {
        ProblemBody {
            kind: format!("https://tidepool.invalid/problems/{}", self.code.word()),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            detail: self.detail.clone(),
            code: self.code.word().to_owned(),
            request_id: request_id.to_owned(),
            errors: self.faults.clone(),
            retryable: self.code.retryable(),
            retry_after_s: self.retry_after_s,
            operation_id: self.operation.map(|id| id.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::internal(error)
    }
}

/// One fault of a request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// JSON pointer into the body.
    pub pointer: String,
    pub code: String,
    pub detail: String,
}

impl Fault {
    pub fn new(pointer: &str, code: &str, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.to_owned(),
            code: code.to_owned(),
            detail: detail.into(),
        }
    }

    /// A configuration's fault, where the configuration stands at `at` in the body.
    pub fn in_config(at: &str, finding: &Finding) -> Self {
        let pointer = format!("{at}{}", finding.pointer);
        Self::new(&pointer, finding.code, finding.detail.clone())
    }
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProblemBody {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// Branch on this one.
    pub code: String,
    pub request_id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
}

pub(super) async fn no_such_route() -> Problem {
    Problem::new(Code::NotFound, "no such path")
}

pub(super) async fn no_such_method() -> Problem {
    Problem::new(
        Code::MethodNotAllowed,
        "see the OpenAPI document for what is",
    )
}
