//! HTTP basic auth in front of an instance, checked by the edge.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api::{
        ApiState,
        body::{Parsed, request_bodies},
        problem::{Problem, ProblemBody},
    },
    store::Transition,
};

/// For a password that a person chose, and could be guessed from the stored hash. The edge remembers
/// right answers and counts wrong ones, so it seldom pays these 60 ms.
const COST_CHOSEN: u32 = 10;
/// For one that was made here: nobody guesses 256 bits, at whatever cost.
const COST_MADE: u32 = 5;

/// bcrypt reads no further.
const MAX_PASSWORD_BYTES: usize = 72;

/// Credentials to ask for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetBasicAuth {
    #[schema(min_length = 1, max_length = 64, pattern = "^[^:\\x00-\\x1f\\x7f]+$")]
    username: String,
    /// At least 12 characters; made, and shown once in the answer, if absent.
    #[schema(min_length = 12)]
    #[serde(default)]
    password: Option<String>,
}

request_bodies!(SetBasicAuth);

/// What is asked for now.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct BasicAuthView {
    pub username: String,
    /// Only if it was made here; it is not kept.
    pub password: Option<String>,
}

/// Turns basic auth on, or changes its credentials.
#[utoipa::path(put, path = "/v1/instances/{id}/basic_auth", tag = "access", request_body = SetBasicAuth, params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = BasicAuthView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn set(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
    Parsed(body): Parsed<SetBasicAuth>,
) -> Result<Json<BasicAuthView>, Problem> {
    let made = body.password.is_none().then(|| state.chance.secret());
    let Some(password) = body.password.or_else(|| made.clone()) else {
        return Err(Problem::field(
            "/password",
            "required",
            "this field is needed",
        ));
    };
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(Problem::field("/password", "too_long", "at most 72 bytes"));
    }
    // The edge takes none: bcrypt has several passwords with such a byte for one.
    if password.contains('\0') {
        return Err(Problem::field("/password", "invalid", "no zero bytes"));
    }
    let cost = if made.is_some() {
        COST_MADE
    } else {
        COST_CHOSEN
    };
    let hash = tokio::task::spawn_blocking(move || bcrypt::hash(password, cost))
        .await
        .map_err(Problem::internal)?
        .map_err(Problem::internal)?;
    change(&state, &key, Some(format!("{}:{hash}", body.username))).await?;
    Ok(Json(BasicAuthView {
        username: body.username,
        password: made,
    }))
}

/// Turns basic auth off.
#[utoipa::path(delete, path = "/v1/instances/{id}/basic_auth", tag = "access", params(("id" = String, Path, description = "Id or name")),
    responses((status = 204), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn remove(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
) -> Result<StatusCode, Problem> {
    change(&state, &key, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn change(state: &ApiState, key: &str, credentials: Option<String>) -> Result<(), Problem> {
    let instance = super::find_living(state, key).await?;
    let transition = state
        .store
        .set_basic_auth(instance.id, credentials.as_deref(), state.now())
        .await?;
    match transition {
        Transition::Done => {
            super::ring(state, &instance);
            Ok(())
        }
        Transition::NotPossible => Err(super::gone()),
    }
}
