//! Deleting an instance.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use tidepool_shared::id::OperationId;

use super::view::{InstanceView, view};
use crate::{
    api::{
        ApiState,
        problem::{Problem, ProblemBody},
    },
    doorbell::Ring,
    store::Transition,
};

/// Deletes an instance: nobody reaches it from now on; its server is destroyed behind.
///
/// 200 if it was deleted before.
#[utoipa::path(delete, path = "/v1/instances/{id}", tag = "instances", params(("id" = String, Path, description = "Id or name")),
    responses(
        (status = 200, body = InstanceView), (status = 202, body = InstanceView),
        (status = "default", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(in crate::api) async fn delete(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<(StatusCode, Json<InstanceView>), Problem> {
    let found = super::find(&state, &key).await?;
    let operation = OperationId::new(state.chance.uuid(state.now()));
    let transition = state
        .store
        .delete_instance(found.id, operation, state.now())
        .await?;
    let status = match transition {
        Transition::Done => {
            // With the server as it was: a deleted instance may not know it any more.
            super::ring(&state, &found);
            state.doorbell.ring(Ring::Pool);
            StatusCode::ACCEPTED
        }
        Transition::NotPossible => StatusCode::OK,
    };
    let instance = super::find(&state, &found.id.to_string()).await?;
    Ok((status, Json(view(&state, instance).await?)))
}
