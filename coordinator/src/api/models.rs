//! The names of models over HTTP: what customers of a tier may ask for, and who serves it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ApiState,
    body::{Parsed, request_bodies},
    problem::{Code, Problem, ProblemBody},
    providers::is_name,
};
use crate::{doorbell::Ring, model::ModelAlias, store::Transition};

/// Where requests for a name go: the first is drawn by weight, the others follow when it fails.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutModel {
    #[schema(inline, min_items = 1, max_items = 16)]
    pub targets: Vec<TargetView>,
}

request_bodies!(PutModel);

/// A model of a provider.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetView {
    #[schema(min_length = 1, max_length = 32)]
    pub provider: String,
    /// As the provider calls it.
    #[schema(min_length = 1, max_length = 200)]
    pub model: String,
    /// How often it is the first, relative to the others; 0: only when others fail.
    #[schema(maximum = 1000)]
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// A name of a model.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ModelView {
    pub tier: String,
    pub alias: String,
    pub targets: Vec<TargetView>,
    pub updated_at: String,
}

/// All names of models.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Models {
    pub data: Vec<ModelView>,
}

impl From<ModelAlias> for ModelView {
    fn from(alias: ModelAlias) -> Self {
        Self {
            // What was written here was read from this type.
            targets: serde_json::from_str(&alias.targets).unwrap_or_default(),
            tier: alias.tier,
            alias: alias.alias,
            updated_at: alias.updated_at.rfc3339(),
        }
    }
}

/// Lists the names of models.
#[utoipa::path(get, path = "/v1/models", tag = "models",
    responses((status = 200, body = Models), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(State(state): State<Arc<ApiState>>) -> Result<Json<Models>, Problem> {
    let aliases = state.store.aliases().await?;
    let data = aliases.into_iter().map(Into::into).collect();
    Ok(Json(Models { data }))
}

/// Gives a name a meaning, or another one.
#[utoipa::path(put, path = "/v1/models/{tier}/{alias}", tag = "models",
    params(("tier" = String, Path), ("alias" = String, Path)), request_body = PutModel,
    responses((status = 200, body = ModelView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn put(
    State(state): State<Arc<ApiState>>,
    Path((tier, alias)): Path<(String, String)>,
    Parsed(body): Parsed<PutModel>,
) -> Result<Json<ModelView>, Problem> {
    if state.pool(Some(&tier), None).is_none() {
        return Err(Problem::new(Code::NotFound, "no such tier"));
    }
    if !is_name(&alias) {
        let detail = "a model's name is 1 to 32 of a-z, 0-9 and -";
        return Err(Problem::new(Code::InvalidParameter, detail));
    }
    let providers = state.store.providers().await?;
    for (number, target) in body.targets.iter().enumerate() {
        if !providers
            .iter()
            .any(|provider| provider.name == target.provider)
        {
            let pointer = format!("/targets/{number}/provider");
            return Err(Problem::field(&pointer, "provider", "no such provider"));
        }
    }
    let alias = ModelAlias {
        tier,
        alias,
        targets: serde_json::to_string(&body.targets).map_err(Problem::internal)?,
        updated_at: state.now(),
    };
    state.store.put_alias(&alias).await?;
    state.doorbell.ring(Ring::Events);
    Ok(Json(alias.into()))
}

/// Deletes a name.
#[utoipa::path(delete, path = "/v1/models/{tier}/{alias}", tag = "models",
    params(("tier" = String, Path), ("alias" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<Arc<ApiState>>,
    Path((tier, alias)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    match state.store.delete_alias(&tier, &alias).await? {
        Transition::Done => {
            state.doorbell.ring(Ring::Events);
            Ok(StatusCode::NO_CONTENT)
        }
        Transition::NotPossible => Err(Problem::new(Code::NotFound, "no such name")),
    }
}
