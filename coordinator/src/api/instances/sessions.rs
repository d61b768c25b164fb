//! The browser sessions of an instance, as a whole.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::{
    ApiState,
    problem::{Problem, ProblemBody},
};

/// What became of them.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EndedSessions {
    /// How many there were.
    pub ended: u64,
}

/// Signs everybody out who came by a login link.
///
/// Takes effect within two seconds. Whatever is open to the instance is cut off, also what a password let in, as soon
/// as its server has heard of it; WebSockets within fifteen seconds in any case.
#[utoipa::path(delete, path = "/v1/instances/{id}/sessions", tag = "access", params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = EndedSessions), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn end(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<Json<EndedSessions>, Problem> {
    let instance = super::find_living(&state, &key).await?;
    let ended = state.store.end_sessions(instance.id, None).await?;
    // The edge remembers good answers for a moment; the ring makes it forget them.
    super::ring(&state, &instance);
    Ok(Json(EndedSessions { ended }))
}
