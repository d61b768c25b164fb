//! Switching an instance off and on, as its customer may.

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
    doorbell::Ring,
    model::Instance,
    store::{Stored, Transition},
};

pub(super) type Answer = (StatusCode, [(HeaderName, String); 1], Json<InstanceView>);

/// Stops the gateway. Its server and all that is on it are kept, and whoever comes to its URL is told.
///
/// What is under way is canceled.
#[utoipa::path(post, path = "/v1/instances/{id}/stop", tag = "instances",
    params(
        ("id" = String, Path, description = "Id or name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Replays the first answer to the same request"),
    ),
    responses((status = 202, body = InstanceView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn stop(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<Answer, Problem> {
    let found = super::find_living(&state, &key).await?;
    let (now, operation) = begin(&state);
    let stopped = state.store.stop_instance(found.id, operation, now).await;
    answer(&state, &found, operation, stopped).await
}

/// Starts a stopped one again.
#[utoipa::path(post, path = "/v1/instances/{id}/start", tag = "instances",
    params(
        ("id" = String, Path, description = "Id or name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Replays the first answer to the same request"),
    ),
    responses((status = 202, body = InstanceView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn start(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<Answer, Problem> {
    let found = super::find_living(&state, &key).await?;
    let (now, operation) = begin(&state);
    let started = state.store.start_instance(found.id, operation, now).await;
    answer(&state, &found, operation, started).await
}

/// Now, and the operation of a change that begins now.
pub(super) fn begin(state: &ApiState) -> (crate::ambient::Moment, OperationId) {
    let now = state.now();
    (now, OperationId::new(state.chance.uuid(now)))
}

/// Tells whom it concerns, and the caller what has become of it.
pub(super) async fn answer(
    state: &ApiState,
    found: &Instance,
    operation: OperationId,
    changed: Stored<Transition>,
) -> Result<Answer, Problem> {
    let changed = changed?;
    let present = super::find_living(state, &found.id.to_string()).await?;
    if changed == Transition::NotPossible {
        let detail = format!("it is {}", present.status.word());
        return Err(Problem::new(Code::NotPossible, detail));
    }
    super::ring(state, &present);
    state.doorbell.ring(Ring::Pool);
    let location = (header::LOCATION, format!("/v1/operations/{operation}"));
    let view = view(state, present).await?;
    Ok((StatusCode::ACCEPTED, [location], Json(view)))
}
