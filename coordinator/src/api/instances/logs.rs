//! The end of an instance's log.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderMap,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{
    ApiState,
    params::Params,
    problem::{Code, Problem, ProblemBody},
};

/// Lines unless the caller says otherwise.
const DEFAULT_LINES: u32 = 200;

/// The most lines.
const MAX_LINES: u32 = 1000;

/// How much of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogParams {
    /// 1 to 1000; 200 if absent.
    lines: Option<u32>,
}

/// The end of a log, oldest line first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Log {
    pub lines: Vec<String>,
}

/// Shows the end of the gateway's log.
#[utoipa::path(get, path = "/v1/instances/{id}/logs", tag = "instances", params(("id" = String, Path, description = "Id or name"), LogParams),
    responses((status = 200, body = Log), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn tail(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
    Params(params): Params<LogParams>,
    headers: HeaderMap,
) -> Result<Json<Log>, Problem> {
    let lines = params.lines.unwrap_or(DEFAULT_LINES);
    if !(1..=MAX_LINES).contains(&lines) {
        return Err(Problem::new(Code::InvalidParameter, "`lines` is 1 to 1000"));
    }
    let instance = super::find_living(&state, &key).await?;
    let Some(server) = instance.server else {
        return Err(Problem::new(Code::NotPossible, "it has no server yet"));
    };
    if let Ok(lines) = state.logs.logs(server, lines).await {
        return Ok(Json(Log { lines }));
    }
    let unreachable =
        || Problem::new(Code::ServerUnreachable, "its log cannot be read now").retry_after(5);
    let server = state.store.server(server).await?.ok_or_else(unreachable)?;
    let path = format!("/v1/instances/{}/logs?lines={lines}", instance.id);
    let elsewhere = state.neighbours.ask(&state, &server, &path, &headers);
    elsewhere.await.map(Json).ok_or_else(unreachable)
}
