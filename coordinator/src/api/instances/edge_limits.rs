//! What visitors may send to an instance: how large a body, how many requests.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use tidepool_shared::id::OperationId;
use utoipa::ToSchema;

use super::{find, find_living};
use crate::{
    api::{
        ApiState,
        body::{Parsed, request_bodies},
        problem::{Problem, ProblemBody},
    },
    instance,
    model::{EdgeLimits, Instance},
};

/// Bounds for an instance's visitors. Whatever is absent is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeLimitsView {
    /// Of one request, in bytes; 100 MiB by default. More is answered with 413.
    #[schema(minimum = 1, maximum = 1_073_741_824)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// Of signed-in visitors together, and of web hooks together, at each edge; 100 by default. More is answered
    /// with 429 and `retry-after`.
    #[schema(minimum = 1, maximum = 10_000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// How many may come at once after a pause; 200 by default.
    #[schema(minimum = 1, maximum = 10_000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_burst: Option<u32>,
}

request_bodies!(EdgeLimitsView);

impl From<EdgeLimits> for EdgeLimitsView {
    fn from(limits: EdgeLimits) -> Self {
        Self {
            max_body_bytes: limits.max_body_bytes,
            requests_per_second: limits.requests_per_second,
            request_burst: limits.request_burst,
        }
    }
}

impl From<EdgeLimitsView> for EdgeLimits {
    fn from(view: EdgeLimitsView) -> Self {
        Self {
            max_body_bytes: view.max_body_bytes,
            requests_per_second: view.requests_per_second,
            request_burst: view.request_burst,
        }
    }
}

/// An instance's bounds.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct InstanceEdgeLimits {
    pub own: EdgeLimitsView,
    /// What counts.
    pub effective: EdgeLimitsView,
}

impl From<EdgeLimits> for InstanceEdgeLimits {
    fn from(limits: EdgeLimits) -> Self {
        Self {
            own: limits.into(),
            effective: EdgeLimitsView {
                max_body_bytes: Some(limits.max_body_bytes()),
                requests_per_second: Some(limits.requests_per_second()),
                request_burst: Some(limits.request_burst()),
            },
        }
    }
}

/// Shows what an instance's visitors may send.
#[utoipa::path(get, path = "/v1/instances/{id}/edge_limits", tag = "access", params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = InstanceEdgeLimits), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn show(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<Json<InstanceEdgeLimits>, Problem> {
    let instance = find(&state, &key).await?;
    Ok(Json(instance.edge_limits.into()))
}

/// Sets what an instance's visitors may send, all of it: whatever is absent is the default.
#[utoipa::path(put, path = "/v1/instances/{id}/edge_limits", tag = "access", request_body = EdgeLimitsView, params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = InstanceEdgeLimits), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn put(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
    Parsed(body): Parsed<EdgeLimitsView>,
) -> Result<Json<InstanceEdgeLimits>, Problem> {
    let changed = change(&state, &key, body.into()).await?;
    Ok(Json(changed.edge_limits.into()))
}

/// Removes an instance's own bounds: the defaults count.
#[utoipa::path(delete, path = "/v1/instances/{id}/edge_limits", tag = "access", params(("id" = String, Path, description = "Id or name")),
    responses((status = 204), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn delete(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<StatusCode, Problem> {
    change(&state, &key, EdgeLimits::default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn change(state: &ApiState, key: &str, limits: EdgeLimits) -> Result<Instance, Problem> {
    let found = find_living(state, key).await?;
    if found.edge_limits == limits {
        return Ok(found);
    }
    let now = state.now();
    let operation = OperationId::new(state.chance.uuid(now));
    let change = instance::limit(&found, limits, operation, state.limits(&found.pool));
    let changed = state.store.change_document(&change, now).await;
    let changed = changed.map_err(super::refused)?;
    super::ring(state, &changed);
    Ok(changed)
}
