//! The pools as an operator sees them, and the operator's switch.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use axum::{
    Json,
    extract::{Path, Query, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiState, PoolOutlook,
    problem::{Code, Problem, ProblemBody},
    servers::ServerView,
};
use crate::{
    doorbell::Ring,
    model::{PoolStanding, Server, ServerState},
};

/// All pools and all servers that are not gone.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PoolsView {
    pub pools: Vec<PoolView>,
    pub servers: Vec<ServerView>,
}

/// A pool: the servers of a tier in a region.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PoolView {
    pub tier: String,
    pub region: String,
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
    /// An operator's switch: nothing is ordered or removed.
    pub paused: bool,
    /// Too many servers failed in a row: nothing is ordered until an operator resumes.
    pub halted: bool,
    /// Servers in a row that did not become warm.
    pub failures: u32,
    /// The cloud refuses every order: nothing is ordered until then.
    pub held_until: Option<String>,
    /// Since when there are fewer warm servers than wanted.
    pub below_target_since: Option<String>,
}

/// Which region, if the tier is in several.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RegionParam {
    region: Option<String>,
}

/// Shows the pools.
#[utoipa::path(get, path = "/v1/pool", tag = "pool",
    responses((status = 200, body = PoolsView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn show(State(state): State<Arc<ApiState>>) -> Result<Json<PoolsView>, Problem> {
    let servers = state.store.servers().await?;
    let mut pools = Vec::with_capacity(state.pools.len());
    for outlook in &state.pools {
        pools.push(view(&state, outlook, &servers).await?);
    }
    let mut stats = state.store.all_stats().await?;
    let with_stats = |server: Server| {
        let stats = stats.remove(&server.id);
        ServerView::of(server, stats)
    };
    let servers = servers.into_iter().map(with_stats).collect();
    Ok(Json(PoolsView { pools, servers }))
}

/// Pauses a pool: nothing is ordered or removed until it is resumed. What is warm is still given away.
#[utoipa::path(post, path = "/v1/pools/{tier}/pause", tag = "pool", params(("tier" = String, Path), RegionParam),
    responses((status = 200, body = PoolView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn pause(
    State(state): State<Arc<ApiState>>,
    Path(tier): Path<String>,
    Query(params): Query<RegionParam>,
) -> Result<Json<PoolView>, Problem> {
    let outlook = named(&state, &tier, &params)?;
    state.store.pause_pool(&outlook.pool, state.now()).await?;
    changed(&state, outlook).await
}

/// Ends a pause, a halt or a hold, and forgets the failures that led to it.
#[utoipa::path(post, path = "/v1/pools/{tier}/resume", tag = "pool", params(("tier" = String, Path), RegionParam),
    responses((status = 200, body = PoolView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn resume(
    State(state): State<Arc<ApiState>>,
    Path(tier): Path<String>,
    Query(params): Query<RegionParam>,
) -> Result<Json<PoolView>, Problem> {
    let outlook = named(&state, &tier, &params)?;
    state.store.resume_pool(&outlook.pool, state.now()).await?;
    changed(&state, outlook).await
}

fn named<'a>(
    state: &'a ApiState,
    tier: &str,
    params: &RegionParam,
) -> Result<&'a PoolOutlook, Problem> {
    state
        .pool(Some(tier), params.region.as_deref())
        .ok_or_else(|| Problem::new(Code::NotFound, "no such pool"))
}

async fn changed(state: &ApiState, outlook: &PoolOutlook) -> Result<Json<PoolView>, Problem> {
    for ring in [Ring::Pool, Ring::Events] {
        state.doorbell.ring(ring);
    }
    let servers = state.store.servers().await?;
    Ok(Json(view(state, outlook, &servers).await?))
}

async fn view(
    state: &ApiState,
    outlook: &PoolOutlook,
    servers: &[Server],
) -> Result<PoolView, Problem> {
    let pending = state.store.pending_count(&outlook.pool).await?;
    let standing = state.store.pool_standing(&outlook.pool).await?;
    Ok(shown(outlook, servers, pending, &standing))
}

fn shown(
    outlook: &PoolOutlook,
    servers: &[Server],
    pending: u32,
    standing: &PoolStanding,
) -> PoolView {
    let mut by_state = BTreeMap::new();
    for server in servers.iter().filter(|server| server.pool == outlook.pool) {
        *by_state.entry(server.state.word().to_owned()).or_insert(0) += 1;
    }
    PoolView {
        tier: outlook.pool.tier.clone(),
        region: outlook.pool.region.clone(),
        warm: by_state.get(ServerState::Warm.word()).copied().unwrap_or(0),
        target: outlook.target.load(Ordering::Relaxed),
        pending,
        boot_estimate_s: outlook.boot_estimate_s.load(Ordering::Relaxed),
        by_state,
        paused: standing.paused,
        halted: standing.halted,
        failures: standing.failures,
        held_until: standing.held_until.map(crate::ambient::Moment::rfc3339),
        below_target_since: standing.below_since.map(crate::ambient::Moment::rfc3339),
    }
}
