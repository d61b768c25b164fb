//! API tokens over HTTP.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ApiState,
    auth::{self, Caller},
    body::{Parsed, request_bodies},
    problem::{Code, Problem, ProblemBody},
};
use crate::{ambient::Moment, model::ApiToken, store::Transition};

/// A wish for a token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// For people.
    #[schema(min_length = 1, max_length = 64)]
    pub name: String,
    /// Seconds until it expires; never if absent.
    #[schema(minimum = 1, maximum = 315_360_000)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
}

request_bodies!(CreateToken);

/// A token without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    pub id: String,
    pub name: String,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
}

/// A new token. `token` is shown this once.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    pub id: String,
    pub name: String,
    pub token: String,
    pub expires_at: Option<String>,
}

/// All tokens.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    pub data: Vec<TokenView>,
}

/// Whose token it is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    pub token: TokenView,
}

impl From<ApiToken> for TokenView {
    fn from(token: ApiToken) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name,
            created_at: token.created_at.rfc3339(),
            expires_at: token.expires_at.map(Moment::rfc3339),
            revoked_at: token.revoked_at.map(Moment::rfc3339),
        }
    }
}

/// Makes a token.
#[utoipa::path(post, path = "/v1/tokens", tag = "access", request_body = CreateToken,
    responses((status = 201, body = NewToken), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(state): State<Arc<ApiState>>,
    Parsed(body): Parsed<CreateToken>,
) -> Result<(StatusCode, Json<NewToken>), Problem> {
    let now = state.now();
    let expires_at = body.ttl_s.map(|ttl_s| now.plus(Duration::from_secs(ttl_s)));
    let (token, text) = auth::issue(body.name, expires_at, now, &state.chance);
    state.store.create_api_token(&token).await?;
    let answer = NewToken {
        id: token.id.to_string(),
        name: token.name,
        token: text,
        expires_at: token.expires_at.map(Moment::rfc3339),
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Lists tokens.
#[utoipa::path(get, path = "/v1/tokens", tag = "access",
    responses((status = 200, body = Tokens), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(State(state): State<Arc<ApiState>>) -> Result<Json<Tokens>, Problem> {
    let tokens = state.store.api_tokens().await?;
    let data = tokens.into_iter().map(Into::into).collect();
    Ok(Json(Tokens { data }))
}

/// Revokes a token, the caller's own included.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "access", params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn revoke(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let unknown = || Problem::new(Code::NotFound, "no such token in force");
    let id = id.parse().map_err(|_| unknown())?;
    match state.store.revoke_api_token(id, state.now()).await? {
        Transition::Done => Ok(StatusCode::NO_CONTENT),
        Transition::NotPossible => Err(unknown()),
    }
}

/// Says whose token this is.
#[utoipa::path(get, path = "/v1/whoami", tag = "access",
    responses((status = 200, body = Whoami), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn whoami(Extension(Caller(token)): Extension<Caller>) -> Json<Whoami> {
    Json(Whoami {
        token: token.into(),
    })
}
