//! Suspending an instance, as the operator may.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    stop::{Answer, answer, begin},
    view::InstanceView,
};
use crate::{
    api::{
        ApiState,
        body::{Parsed, request_bodies},
        problem::{Problem, ProblemBody},
    },
    model::SuspensionReason,
};

/// It is one paragraph of a page.
const MAX_MESSAGE_CHARS: usize = 500;

/// Why, and what its visitors are told.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SuspendInstance {
    #[schema(inline)]
    pub reason: SuspensionReason,
    /// Shown to whoever comes to its URL, the reason is not; a sentence of ours if absent.
    #[schema(max_length = 500)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

request_bodies!(SuspendInstance);

/// Suspends an instance: its gateway stops, open connections are cut, nobody gets in, and no models are served.
///
/// Its server and all that is on it are kept. Whoever comes to its URL, web hooks too, is told by 503. What is
/// under way is canceled.
#[utoipa::path(post, path = "/v1/instances/{id}/suspend", tag = "instances", request_body = SuspendInstance,
    params(
        ("id" = String, Path, description = "Id or name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Replays the first answer to the same request"),
    ),
    responses((status = 202, body = InstanceView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn suspend(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
    Parsed(body): Parsed<SuspendInstance>,
) -> Result<Answer, Problem> {
    let message = body.message.as_deref().map(str::trim);
    let message = message.filter(|message| !message.is_empty());
    if let Some(message) = message {
        let refused = |code, detail| Problem::field("/message", code, detail);
        if message.chars().count() > MAX_MESSAGE_CHARS {
            return Err(refused("too_long", "at most 500 characters"));
        }
        if message.contains(char::is_control) {
            return Err(refused("invalid", "one line of text"));
        }
    }
    let found = super::find_living(&state, &key).await?;
    let (now, operation) = begin(&state);
    let why = (body.reason, message);
    let suspended = state.store.suspend_instance(found.id, operation, why, now);
    answer(&state, &found, operation, suspended.await).await
}

/// Ends a suspension: it is started again, or stopped if it was that before.
#[utoipa::path(post, path = "/v1/instances/{id}/unsuspend", tag = "instances",
    params(
        ("id" = String, Path, description = "Id or name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Replays the first answer to the same request"),
    ),
    responses((status = 202, body = InstanceView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn unsuspend(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<Answer, Problem> {
    let found = super::find_living(&state, &key).await?;
    let (now, operation) = begin(&state);
    let ended = state
        .store
        .unsuspend_instance(found.id, operation, now)
        .await;
    answer(&state, &found, operation, ended).await
}
