//! The two ways out of deletion: back, or for good at once.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use tidepool_shared::id::OperationId;

use super::view::{InstanceView, view};
use crate::{
    ambient::Moment,
    api::{
        ApiState,
        problem::{Code, Problem, ProblemBody},
    },
    doorbell::Ring,
    instance,
    model::InstanceStatus,
    store::Transition,
};

/// Brings a deleted instance back: the same server, name and state.
#[utoipa::path(post, path = "/v1/instances/{id}/undelete", tag = "instances", params(("id" = String, Path, description = "Id or name")),
    responses((status = 202, body = InstanceView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn undelete(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<(StatusCode, Json<InstanceView>), Problem> {
    let found = super::find(&state, &key).await?;
    if found.status != InstanceStatus::Deleted {
        return Err(Problem::new(
            Code::NotPossible,
            "it is not deleted, or purged",
        ));
    }
    let now = state.now();
    let operation = OperationId::new(state.chance.uuid(now));
    let change = instance::undelete(&found, operation, state.limits(&found.pool));
    let instance = state
        .store
        .undelete_instance(&change, now)
        .await
        .map_err(super::refused)?;
    super::ring(&state, &instance);
    state.doorbell.ring(Ring::Pool);
    Ok((StatusCode::ACCEPTED, Json(view(&state, instance).await?)))
}

/// Ends a deleted instance's grace now: its server is destroyed, its name is free.
#[utoipa::path(post, path = "/v1/instances/{id}/purge", tag = "instances", params(("id" = String, Path, description = "Id or name")),
    responses((status = 202, body = InstanceView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn purge(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<(StatusCode, Json<InstanceView>), Problem> {
    let found = super::find(&state, &key).await?;
    let whenever = Moment(i64::MAX);
    let purged = state.store.purge_instance(found.id, whenever, state.now());
    if purged.await? == Transition::NotPossible {
        return Err(Problem::new(
            Code::NotPossible,
            "it is not deleted, or purged",
        ));
    }
    super::ring(&state, &found);
    state.doorbell.ring(Ring::Pool);
    let instance = super::find(&state, &found.id.to_string()).await?;
    Ok((StatusCode::ACCEPTED, Json(view(&state, instance).await?)))
}
