//! Every way in which the API says no, in its own words (`tests/data/hetzner/errors.json`).

use axum::http::StatusCode;
use serde_json::{Value, json};

/// An error answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    code: &'static str,
    message: String,
    details: Value,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            details: Value::Null,
        }
    }

    fn with_details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    pub(super) fn body(&self) -> Value {
        json!({
            "error": { "code": self.code, "message": self.message, "details": self.details }
        })
    }

    pub(super) fn json() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "json_error", "invalid JSON body")
    }

    pub(super) fn no_token() -> Self {
        let message = "token is required";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    pub(super) fn wrong_token() -> Self {
        let message = "the token you have provided is invalid";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    pub(super) fn read_only() -> Self {
        let message = "the token is only allowed to perform GET requests";
        Self::new(StatusCode::FORBIDDEN, "token_readonly", message)
    }

    /// `what` as in `server`.
    pub(super) fn limit(what: &str) -> Self {
        let name = format!("{}_limit", what.to_lowercase().replace(' ', "_"));
        let message = format!("{what} limit exceeded");
        Self::new(StatusCode::FORBIDDEN, "resource_limit_exceeded", message)
            .with_details(json!({ "limits": [{ "name": name }] }))
    }

    /// `what` as in `server`.
    pub(super) fn not_found(what: &str) -> Self {
        let message = format!("{what} not found");
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn no_route() -> Self {
        Self::not_found("api route")
    }

    pub(super) fn firewall_resource_not_found() -> Self {
        let message = "firewall resource not found";
        Self::new(
            StatusCode::NOT_FOUND,
            "firewall_resource_not_found",
            message,
        )
    }

    pub(super) fn method() -> Self {
        let message = "method not allowed";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            message,
        )
    }

    pub(super) fn gone() -> Self {
        let message = "this endpoint has been removed";
        Self::new(StatusCode::GONE, "deprecated_api_endpoint", message).with_details(json!({
            "announcement": "https://docs.hetzner.cloud/changelog"
        }))
    }

    /// `what` as in `server name`.
    pub(super) fn taken(what: &str, field: &str) -> Self {
        let message = format!("{what} is already used");
        Self::new(StatusCode::CONFLICT, "uniqueness_error", message)
            .with_details(json!({ "fields": [{ "name": field }] }))
    }

    pub(super) fn no_capacity() -> Self {
        let message = "error during placement";
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "resource_unavailable",
            message,
        )
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::unprocessable("invalid_input", message)
    }

    pub(super) fn field(field: &str, fault: &str) -> Self {
        let message = format!("invalid input in field '{field}'");
        Self::invalid(message)
            .with_details(json!({ "fields": [{ "name": field, "messages": [fault] }] }))
    }

    pub(super) fn unprocessable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// `what` as in `server`.
    pub(super) fn locked(what: &str) -> Self {
        let message = format!("cannot perform operation because {what} is locked");
        Self::new(StatusCode::LOCKED, "locked", message)
    }

    /// `what` as in `server`.
    pub(super) fn protected(what: &str) -> Self {
        let message = format!("{what} deletion is protected");
        Self::new(StatusCode::LOCKED, "protected", message)
    }

    pub(super) fn version_mismatch() -> Self {
        let message = "primary ip has another version";
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "primary_ip_version_mismatch",
            message,
        )
    }

    pub(super) fn conflict() -> Self {
        let message = "the resource has changed during the request, please retry";
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    pub(super) fn rate(requests: u32) -> Self {
        let message = format!("limit of {requests} requests per hour reached");
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_exceeded",
            message,
        )
    }

    pub(super) fn server_error() -> Self {
        let message = "an unexpected error occurred";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    pub(super) fn bad_gateway() -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "bad_gateway", "bad gateway")
    }

    pub(super) fn unavailable() -> Self {
        let message = "service unavailable";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }
}
