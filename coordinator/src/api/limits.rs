//! Limits of tiers over HTTP, and what limits of tiers and of instances have in common.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use tidepool_shared::limits::Limits;
use utoipa::ToSchema;

use super::{
    ApiState,
    body::{Parsed, request_bodies},
    problem::{Code, Problem, ProblemBody},
};
use crate::{doorbell::Ring, model::ModelLimits, store::Transition};

/// What customers may use of models; whatever is absent is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsView {
    /// Requests in a minute, answered with 429 above it.
    #[schema(maximum = 1_000_000)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Tokens read and written in a minute, caches included; counted when they are known.
    #[schema(maximum = 1_000_000_000)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// What may be spent on the operator's keys in a day (UTC), in hundred-millionths of a US dollar; 402
    /// above it.
    #[schema(maximum = 100_000_000_000_000_i64)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day_microcents: Option<u64>,
    /// The same in a calendar month (UTC).
    #[schema(maximum = 100_000_000_000_000_i64)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month_microcents: Option<u64>,
}

request_bodies!(LimitsView);

impl From<Limits> for LimitsView {
    fn from(limits: Limits) -> Self {
        Self {
            requests_per_minute: limits.requests_per_minute,
            tokens_per_minute: limits.tokens_per_minute,
            day_microcents: limits.day_microcents,
            month_microcents: limits.month_microcents,
        }
    }
}

impl From<LimitsView> for Limits {
    fn from(view: LimitsView) -> Self {
        Self {
            requests_per_minute: view.requests_per_minute,
            tokens_per_minute: view.tokens_per_minute,
            day_microcents: view.day_microcents,
            month_microcents: view.month_microcents,
        }
    }
}

/// Limits and whose they are.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SubjectLimits {
    /// `tier/NAME`, or an instance's id.
    pub subject: String,
    pub limits: LimitsView,
    pub updated_at: String,
}

/// All limits.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitsList {
    pub data: Vec<SubjectLimits>,
}

/// Lists the limits of all tiers and of the instances that have their own.
#[utoipa::path(get, path = "/v1/limits", tag = "models",
    responses((status = 200, body = LimitsList), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(State(state): State<Arc<ApiState>>) -> Result<Json<LimitsList>, Problem> {
    let all = state.store.limits().await?;
    let data = all.iter().map(|limits| SubjectLimits {
        subject: limits.subject.clone(),
        limits: limits.limits.into(),
        updated_at: limits.updated_at.rfc3339(),
    });
    Ok(Json(LimitsList {
        data: data.collect(),
    }))
}

/// Sets a tier's limits, all of them: whatever is absent is not limited any more.
#[utoipa::path(put, path = "/v1/limits/tiers/{tier}", tag = "models", params(("tier" = String, Path)), request_body = LimitsView,
    responses((status = 200, body = LimitsView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn put_of_tier(
    State(state): State<Arc<ApiState>>,
    Path(tier): Path<String>,
    Parsed(body): Parsed<LimitsView>,
) -> Result<Json<LimitsView>, Problem> {
    if state.pool(Some(&tier), None).is_none() {
        return Err(Problem::new(Code::NotFound, "no such tier"));
    }
    put(&state, Limits::subject_of_tier(&tier), body).await?;
    Ok(Json(body))
}

/// Removes a tier's limits.
#[utoipa::path(delete, path = "/v1/limits/tiers/{tier}", tag = "models", params(("tier" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn delete_of_tier(
    State(state): State<Arc<ApiState>>,
    Path(tier): Path<String>,
) -> Result<StatusCode, Problem> {
    delete(&state, &Limits::subject_of_tier(&tier)).await
}

pub(super) async fn put(
    state: &ApiState,
    subject: String,
    limits: LimitsView,
) -> Result<(), Problem> {
    let limits = ModelLimits {
        subject,
        limits: limits.into(),
        updated_at: state.now(),
    };
    state.store.put_limits(&limits).await?;
    state.doorbell.ring(Ring::Events);
    Ok(())
}

pub(super) async fn delete(state: &ApiState, subject: &str) -> Result<StatusCode, Problem> {
    match state.store.delete_limits(subject).await? {
        Transition::Done => {
            state.doorbell.ring(Ring::Events);
            Ok(StatusCode::NO_CONTENT)
        }
        Transition::NotPossible => Err(Problem::new(Code::NotFound, "there are no such limits")),
    }
}
