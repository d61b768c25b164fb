//! Whether this program can serve.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ApiState,
    problem::{Problem, ProblemBody},
};

/// The answer of a program that can serve.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Healthy {
    pub status: String,
}

/// Answers if the store does. Needs no token.
#[utoipa::path(get, path = "/healthz", tag = "service", security(()),
    responses((status = 200, body = Healthy), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn healthz(State(state): State<Arc<ApiState>>) -> Result<Json<Healthy>, Problem> {
    state.store.last_sequence().await?;
    Ok(Json(Healthy {
        status: "ok".to_owned(),
    }))
}
