//! Limits of one instance, and what it has spent of its budgets.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use tidepool_shared::limits::Limits;
use utoipa::ToSchema;

use super::{find, find_living};
use crate::{
    api::{
        ApiState,
        body::Parsed,
        limits::{self, LimitsView},
        problem::{Problem, ProblemBody},
    },
    model::Instance,
};

/// An instance's limits, and how far it is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct InstanceLimits {
    /// Its own; they go before its tier's, one by one.
    pub own: LimitsView,
    /// What counts.
    pub effective: LimitsView,
    /// Hundred-millionths of a US dollar, today and this month (UTC), as far as requests have ended.
    pub spent_day_microcents: u64,
    pub spent_month_microcents: u64,
}

/// Shows an instance's limits and what it has spent.
#[utoipa::path(get, path = "/v1/instances/{id}/limits", tag = "models", params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = InstanceLimits), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn show(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
) -> Result<Json<InstanceLimits>, Problem> {
    let instance = find(&state, &id).await?;
    view(&state, &instance).await.map(Json)
}

/// Sets an instance's own limits, all of them: whatever is absent is as its tier's.
#[utoipa::path(put, path = "/v1/instances/{id}/limits", tag = "models", params(("id" = String, Path, description = "Id or name")), request_body = LimitsView,
    responses((status = 200, body = InstanceLimits), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn put(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
    Parsed(body): Parsed<LimitsView>,
) -> Result<Json<InstanceLimits>, Problem> {
    let instance = find_living(&state, &id).await?;
    limits::put(&state, instance.id.to_string(), body).await?;
    view(&state, &instance).await.map(Json)
}

/// Removes an instance's own limits: its tier's count.
#[utoipa::path(delete, path = "/v1/instances/{id}/limits", tag = "models", params(("id" = String, Path, description = "Id or name")),
    responses((status = 204), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn delete(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let instance = find(&state, &id).await?;
    limits::delete(&state, &instance.id.to_string()).await
}

async fn view(state: &ApiState, instance: &Instance) -> Result<InstanceLimits, Problem> {
    let all = state.store.limits().await?;
    let of = |subject: &str| {
        let found = all.iter().find(|limits| limits.subject == subject);
        found.map(|found| found.limits).unwrap_or_default()
    };
    let own = of(&instance.id.to_string());
    let spent = state.store.spent(instance.id, state.now()).await?;
    Ok(InstanceLimits {
        own: own.into(),
        effective: own
            .or(of(&Limits::subject_of_tier(&instance.pool.tier)))
            .into(),
        spent_day_microcents: spent.day,
        spent_month_microcents: spent.month,
    })
}
