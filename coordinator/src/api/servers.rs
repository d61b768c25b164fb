//! Single servers as an operator sees them.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidepool_shared::id::ServerId;
use utoipa::ToSchema;

use super::{
    ApiState,
    auth::Caller,
    problem::{Code, Problem, ProblemBody},
};
use crate::{
    ambient::Moment,
    doorbell::Ring,
    model::{Health, SagaKind, SagaStep, Server, ServerState, Stats, StepState},
};

/// A server.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ServerView {
    pub id: String,
    pub name: String,
    pub tier: String,
    pub region: String,
    /// What it was made as, and where.
    pub server_type: String,
    pub location: String,
    /// What it was made from.
    pub image: Option<String>,
    pub state: ServerState,
    pub address: Option<String>,
    pub instance_id: Option<String>,
    pub openclaw_version: Option<String>,
    pub health: Health,
    pub reasons: Vec<String>,
    pub gateway_starts: u64,
    pub failure: Option<String>,
    /// Whether its right to connect was taken away.
    pub revoked: bool,
    pub created_at: String,
    pub state_since: String,
    /// What gateway and server take, as was last said; `null` before anything was.
    pub stats: Option<StatsView>,
}

/// What a gateway and its server take.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StatsView {
    /// When it was said; agents do every minute.
    pub at: String,
    #[serde(flatten)]
    pub stats: Stats,
}

/// A step of making or unmaking a server.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    pub saga: SagaKind,
    pub step: String,
    pub state: StepState,
    pub error: Option<String>,
    pub at: String,
}

/// All that was done to a server, oldest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Steps {
    pub data: Vec<StepView>,
}

/// Shows how a server was made and unmade, step by step.
#[utoipa::path(get, path = "/v1/servers/{id}/steps", tag = "pool", params(("id" = String, Path)),
    responses((status = 200, body = Steps), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn steps(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
) -> Result<Json<Steps>, Problem> {
    let server = known(&state, &id).await?;
    let steps = state.store.steps(server.id).await?;
    let data = steps.into_iter().map(Into::into).collect();
    Ok(Json(Steps { data }))
}

/// Takes away a server's right to connect, for good: its link is closed, its certificate opens no other and
/// is not renewed; it gets no answer from the proxy, and nobody is led to it. Repeating it is done, too.
#[utoipa::path(post, path = "/v1/servers/{id}/revoke", tag = "pool", params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn revoke(
    State(state): State<Arc<ApiState>>,
    Extension(Caller(token)): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let server = known(&state, &id).await?;
    if server.state == ServerState::Gone {
        return Err(unknown());
    }
    let id = server.id;
    let now = state.now();
    state.store.revoke(id, now).await?;
    // Before the audit, whose failure must not keep the link open.
    let instance = server.instance.map(Ring::Instance);
    for ring in [Ring::Server(id), Ring::Pool].into_iter().chain(instance) {
        state.doorbell.ring(ring);
    }
    let data = json!({ "token": token.id });
    state.store.audit("revoked", Some(id), data, now).await?;
    state.doorbell.ring(Ring::Events);
    Ok(StatusCode::NO_CONTENT)
}

async fn known(state: &ApiState, id: &str) -> Result<Server, Problem> {
    let id: ServerId = id.parse().map_err(|_| unknown())?;
    state.store.server(id).await?.ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "no such server")
}

impl From<SagaStep> for StepView {
    fn from(step: SagaStep) -> Self {
        Self {
            saga: step.saga,
            step: step.step,
            state: step.state,
            error: step.error,
            at: step.at.rfc3339(),
        }
    }
}

impl From<(Moment, Stats)> for StatsView {
    fn from((at, stats): (Moment, Stats)) -> Self {
        let at = at.rfc3339();
        Self { at, stats }
    }
}

impl ServerView {
    /// A server, and what was last said of what it takes.
    pub(super) fn of(server: Server, stats: Option<(Moment, Stats)>) -> Self {
        Self {
            id: server.id.to_string(),
            name: server.name,
            tier: server.pool.tier,
            region: server.pool.region,
            server_type: server.placement.server_type,
            location: server.placement.location,
            image: server.image,
            state: server.state,
            address: server.address.map(|address| address.to_string()),
            instance_id: server.instance.map(|id| id.to_string()),
            openclaw_version: server.openclaw_version,
            health: server.health,
            reasons: server.reasons,
            gateway_starts: server.gateway_starts,
            failure: server.failure,
            revoked: server.revoked,
            created_at: server.created_at.rfc3339(),
            state_since: server.state_since.rfc3339(),
            stats: stats.map(Into::into),
        }
    }
}
