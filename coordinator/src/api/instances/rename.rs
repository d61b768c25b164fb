//! Another name for an instance.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header},
};
use serde::{Deserialize, Serialize};
use tidepool_shared::id::OperationId;
use utoipa::ToSchema;

use super::view::{InstanceView, view};
use crate::{
    api::{
        ApiState,
        body::{Parsed, request_bodies},
        problem::{Code, Problem, ProblemBody},
    },
    instance::{self, Name},
    model::{Health, InstanceStatus},
};

/// A new name.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameInstance {
    /// The first label of its host name: a-z, 0-9 and hyphens.
    pub name: String,
}

request_bodies!(RenameInstance);

/// Renames an instance.
///
/// Its old URL leads to the new one for 30 days, and nobody else gets it meanwhile. Whoever is signed in is signed
/// out.
#[utoipa::path(post, path = "/v1/instances/{id}/rename", tag = "instances", request_body = RenameInstance,
    params(
        ("id" = String, Path, description = "Id or name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Replays the first answer to the same request"),
    ),
    responses((status = 202, body = InstanceView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn rename(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
    Parsed(body): Parsed<RenameInstance>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<InstanceView>), Problem> {
    let name = body.name.parse::<Name>();
    let name = name.map_err(|why| Problem::field("/name", "invalid_name", why.to_string()))?;
    let found = super::find_living(&state, &key).await?;
    if found.status != InstanceStatus::Running {
        let detail = format!("it is {}, not running", found.status.word());
        return Err(Problem::new(Code::NotPossible, detail));
    }
    // Else its nginx would not learn the new name, and nobody would reach it.
    if !matches!(found.health, Health::Ok | Health::Degraded) {
        let detail = format!(
            "its health is {}: it must be told its name",
            found.health.word()
        );
        return Err(Problem::new(Code::NotPossible, detail));
    }
    if found.name == name.as_str() {
        return Err(Problem::new(Code::NotPossible, "that is its name"));
    }
    let now = state.now();
    let operation = OperationId::new(state.chance.uuid(now));
    let limits = state.limits(&found.pool);
    let rename = instance::rename(&found, name, &state.names, operation, limits, now);
    let renamed = state.store.rename_instance(&rename, now).await;
    let renamed = renamed.map_err(super::refused)?;
    super::ring(&state, &renamed);
    let location = (header::LOCATION, format!("/v1/operations/{operation}"));
    Ok((
        StatusCode::ACCEPTED,
        [location],
        Json(view(&state, renamed).await?),
    ))
}
