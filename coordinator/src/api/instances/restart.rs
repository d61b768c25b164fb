//! Restarting an instance's gateway.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header},
};
use tidepool_shared::id::OperationId;

use super::view::{InstanceView, view};
use crate::{
    api::{
        ApiState,
        problem::{Code, Problem, ProblemBody},
    },
    instance,
    model::InstanceStatus,
};

/// Restarts the gateway.
#[utoipa::path(post, path = "/v1/instances/{id}/restart", tag = "instances",
    params(
        ("id" = String, Path, description = "Id or name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Replays the first answer to the same request"),
    ),
    responses((status = 202, body = InstanceView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn restart(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<InstanceView>), Problem> {
    let found = super::find_living(&state, &key).await?;
    if found.status != InstanceStatus::Running {
        let detail = format!("it is {}, not running", found.status.word());
        return Err(Problem::new(Code::NotPossible, detail));
    }
    let operation = OperationId::new(state.chance.uuid(state.now()));
    let change = instance::restart(&found, operation, state.limits(&found.pool));
    let changed = state
        .store
        .change_document(&change, state.now())
        .await
        .map_err(super::refused)?;
    super::ring(&state, &changed);
    let location = (header::LOCATION, format!("/v1/operations/{operation}"));
    Ok((
        StatusCode::ACCEPTED,
        [location],
        Json(view(&state, changed).await?),
    ))
}
