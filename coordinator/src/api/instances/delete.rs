//! Deleting an instance.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use tidepool_shared::id::OperationId;
use utoipa::IntoParams;

use super::view::{InstanceView, view};
use crate::{
    api::{
        ApiState,
        params::Params,
        problem::{Code, Problem, ProblemBody},
    },
    doorbell::Ring,
    store::Transition,
};

/// The longest grace: a server is kept and paid for meanwhile.
const MAX_GRACE_S: u64 = 90 * 24 * 3600;

/// How to delete.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteParams {
    /// Seconds in which it may be asked back, 0 to 7776000; the operator's default if absent.
    grace_s: Option<u64>,
}

/// Deletes an instance: nobody reaches it from now on. It may be asked back within its grace; after that
/// its server is destroyed.
///
/// 200 if it was deleted before.
#[utoipa::path(delete, path = "/v1/instances/{id}", tag = "instances", params(("id" = String, Path, description = "Id or name"), DeleteParams),
    responses(
        (status = 200, body = InstanceView), (status = 202, body = InstanceView),
        (status = "default", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(in crate::api) async fn delete(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
    Params(params): Params<DeleteParams>,
) -> Result<(StatusCode, Json<InstanceView>), Problem> {
    let grace = match params.grace_s {
        None => state.deletion_grace,
        Some(seconds) if seconds <= MAX_GRACE_S => Duration::from_secs(seconds),
        Some(_) => {
            let detail = format!("`grace_s` is 0 to {MAX_GRACE_S}");
            return Err(Problem::new(Code::InvalidParameter, detail));
        }
    };
    let found = super::find(&state, &key).await?;
    let now = state.now();
    let operation = OperationId::new(state.chance.uuid(now));
    let transition = state
        .store
        .delete_instance(found.id, operation, now.plus(grace), now)
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
