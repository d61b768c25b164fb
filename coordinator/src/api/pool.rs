//! The pool as an operator sees it.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{
    ApiState, TierOutlook,
    auth::Caller,
    problem::{Code, Problem, ProblemBody},
};
use crate::{
    doorbell::Ring,
    model::{Health, Server, ServerState},
};

/// All tiers and all servers that are not gone.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PoolView {
    pub tiers: Vec<TierView>,
    pub servers: Vec<ServerView>,
}

/// A tier's part of the pool.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TierView {
    pub name: String,
    /// Servers that may be claimed now.
    pub warm: u64,
    /// Warm servers wanted.
    pub target: u64,
    /// Instances that wait for a server.
    pub pending: u32,
    /// How long a server takes to become warm.
    pub boot_estimate_s: u64,
    /// Number of servers by state.
    pub by_state: BTreeMap<String, u64>,
}

/// A server.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ServerView {
    pub id: String,
    pub name: String,
    pub tier: String,
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
}

/// Shows the pool.
#[utoipa::path(get, path = "/v1/pool", tag = "pool",
    responses((status = 200, body = PoolView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn show(State(state): State<Arc<ApiState>>) -> Result<Json<PoolView>, Problem> {
    let servers = state.store.servers().await?;
    let mut tiers = Vec::with_capacity(state.tiers.len());
    for tier in &state.tiers {
        let pending = state.store.pending_count(&tier.name).await?;
        tiers.push(tier_view(tier, &servers, pending));
    }
    let servers = servers.into_iter().map(Into::into).collect();
    Ok(Json(PoolView { tiers, servers }))
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
    let unknown = || Problem::new(Code::NotFound, "no such server");
    let id = id.parse().map_err(|_| unknown())?;
    let server = state.store.server(id).await?.ok_or_else(unknown)?;
    if server.state == ServerState::Gone {
        return Err(unknown());
    }
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

fn tier_view(tier: &TierOutlook, servers: &[Server], pending: u32) -> TierView {
    let mut by_state = BTreeMap::new();
    for server in servers.iter().filter(|server| server.tier == tier.name) {
        *by_state.entry(server.state.word().to_owned()).or_insert(0) += 1;
    }
    TierView {
        name: tier.name.clone(),
        warm: by_state.get(ServerState::Warm.word()).copied().unwrap_or(0),
        target: tier.target.load(Ordering::Relaxed),
        pending,
        boot_estimate_s: tier.boot_estimate_s.load(Ordering::Relaxed),
        by_state,
    }
}

impl From<Server> for ServerView {
    fn from(server: Server) -> Self {
        Self {
            id: server.id.to_string(),
            name: server.name,
            tier: server.tier,
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
        }
    }
}
