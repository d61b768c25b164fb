//! Which version of OpenClaw an instance has.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header},
};
use serde::{Deserialize, Serialize};
use tidepool_shared::{
    id::OperationId,
    openclaw_version::{NotAVersion, OpenClawVersion},
};
use utoipa::ToSchema;

use super::view::{InstanceView, view};
use crate::{
    api::{
        ApiState,
        body::{Parsed, request_bodies},
        images,
        problem::{Code, Problem, ProblemBody},
    },
    instance,
    model::InstanceStatus,
    store::Transition,
};

/// A version of OpenClaw.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionBody {
    /// Such as `2026.9.6`.
    pub version: String,
}

request_bodies!(VersionBody);

impl VersionBody {
    fn read(&self) -> Result<OpenClawVersion, Problem> {
        read_version(&self.version)
    }
}

/// The version that a text names.
pub(in crate::api) fn read_version(text: &str) -> Result<OpenClawVersion, Problem> {
    text.parse()
        .map_err(|why: NotAVersion| Problem::field("/version", "invalid_version", why.to_string()))
}

/// What is signed, as JSON, of what brings this version to a server; `None` if some servers were made with it. Refuses one that no server
/// could have.
pub(in crate::api) async fn find_version(
    state: &ApiState,
    version: &OpenClawVersion,
) -> Result<Option<String>, Problem> {
    let signed = state.artefacts.bringing(version).await;
    let signed = signed.map_err(Problem::internal)?;
    if signed.is_some() {
        return Ok(signed);
    }
    let is_it = |named: &Option<String>| named.as_deref() == Some(version.as_str());
    let servers = state.store.servers().await?;
    let images = images::all(state).await?;
    let of_servers = servers.iter().map(|server| &server.openclaw_version);
    let of_images = images.iter().map(|image| &image.openclaw_version);
    if of_servers.chain(of_images).any(is_it) {
        return Ok(None);
    }
    let detail = format!(
        "no image has OpenClaw {version}, and this coordinator has no artefact that brings it: \
         `tidepool artefact add`"
    );
    Err(Problem::field("/version", "unknown_version", detail))
}

/// Orders a version of OpenClaw for an instance. Its gateway is stopped for the time that it takes; if the new
/// version does not prove itself, the old one is back with its state.
#[utoipa::path(post, path = "/v1/instances/{id}/upgrade", tag = "instances", request_body = VersionBody,
    params(
        ("id" = String, Path, description = "Id or name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Replays the first answer to the same request"),
    ),
    responses((status = 202, body = InstanceView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn upgrade(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
    Parsed(body): Parsed<VersionBody>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<InstanceView>), Problem> {
    let version = body.read()?;
    let found = super::find_living(&state, &key).await?;
    if found.status != InstanceStatus::Running {
        let detail = format!("it is {}, not running", found.status.word());
        return Err(Problem::new(Code::NotPossible, detail));
    }
    let operation = OperationId::new(state.chance.uuid(state.now()));
    let signed = find_version(&state, &version).await?;
    let limits = state.limits(&found.pool);
    let change = instance::upgrade(&found, version, signed, operation, limits);
    let changed = state
        .store
        .begin_upgrade(&change, None, state.now())
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

/// Pins an instance: rollouts of another version pass it by. It is not upgraded by that.
#[utoipa::path(put, path = "/v1/instances/{id}/pin", tag = "instances", request_body = VersionBody,
    params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = InstanceView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn pin(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
    Parsed(body): Parsed<VersionBody>,
) -> Result<Json<InstanceView>, Problem> {
    let version = body.read()?;
    set_pin(&state, &key, Some(&version)).await
}

/// Takes an instance's pin away.
#[utoipa::path(delete, path = "/v1/instances/{id}/pin", tag = "instances",
    params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = InstanceView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn unpin(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<Json<InstanceView>, Problem> {
    set_pin(&state, &key, None).await
}

async fn set_pin(
    state: &ApiState,
    key: &str,
    version: Option<&OpenClawVersion>,
) -> Result<Json<InstanceView>, Problem> {
    let found = super::find_living(state, key).await?;
    let now = state.now();
    if state.store.pin_instance(found.id, version, now).await? == Transition::NotPossible {
        return Err(super::gone());
    }
    let pinned = super::find_living(state, key).await?;
    Ok(Json(view(state, pinned).await?))
}
