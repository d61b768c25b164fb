//! Customers' own keys for providers: used instead of the operator's, tried when they are given, and never
//! shown again.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use tidepool_shared::sealed_place::SealedPlace;
use utoipa::ToSchema;

use super::{find, find_living};
use crate::{
    api::{
        ApiState,
        body::{Parsed, request_bodies},
        key_trial::NotTaken,
        problem::{Code, Problem, ProblemBody},
        providers::seal,
    },
    doorbell::Ring,
    model::CustomerKey,
    store::Transition,
};

/// A key of the customer's own.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutKey {
    #[schema(min_length = 1, max_length = 1024)]
    pub key: String,
}

request_bodies!(PutKey);

/// That there is a key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    pub provider: String,
    pub created_at: String,
}

/// An instance's keys.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    pub data: Vec<KeyView>,
}

impl From<CustomerKey> for KeyView {
    fn from(key: CustomerKey) -> Self {
        Self {
            provider: key.provider,
            created_at: key.created_at.rfc3339(),
        }
    }
}

/// Lists the providers for which the customer gave a key.
#[utoipa::path(get, path = "/v1/instances/{id}/keys", tag = "models", params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = Keys), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn list(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
) -> Result<Json<Keys>, Problem> {
    let instance = find(&state, &id).await?;
    let keys = state.store.customer_keys(instance.id).await?;
    let data = keys.into_iter().map(Into::into).collect();
    Ok(Json(Keys { data }))
}

/// Keeps a key, if the provider takes it. From the next request on it is used instead of the operator's.
#[utoipa::path(put, path = "/v1/instances/{id}/keys/{provider}", tag = "models", request_body = PutKey,
    params(("id" = String, Path, description = "Id or name"), ("provider" = String, Path)),
    responses((status = 200, body = KeyView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn put(
    State(state): State<Arc<ApiState>>,
    Path((id, provider)): Path<(String, String)>,
    Parsed(body): Parsed<PutKey>,
) -> Result<Json<KeyView>, Problem> {
    let instance = find_living(&state, &id).await?;
    let providers = state.store.providers().await?;
    let provider = providers
        .into_iter()
        .find(|known| known.name == provider)
        .ok_or_else(no_such_provider)?;
    let place = SealedPlace::CustomerKey {
        instance: instance.id.to_string(),
        provider: provider.name.clone(),
    };
    let sealed = seal(&state, body.key.clone(), place).await?;
    state
        .key_trial
        .try_key(&provider, &body.key)
        .await
        .map_err(not_taken)?;
    let now = state.now();
    let written = state
        .store
        .put_customer_key(instance.id, &provider, &sealed, now)
        .await?;
    if written == Transition::NotPossible {
        return Err(Problem::new(Code::Changed, "instance or provider changed"));
    }
    state.doorbell.ring(Ring::Events);
    Ok(Json(
        CustomerKey {
            provider: provider.name,
            created_at: now,
        }
        .into(),
    ))
}

/// Forgets a key. From the next request on the operator's is used, for what the operator serves.
#[utoipa::path(delete, path = "/v1/instances/{id}/keys/{provider}", tag = "models",
    params(("id" = String, Path, description = "Id or name"), ("provider" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn delete(
    State(state): State<Arc<ApiState>>,
    Path((id, provider)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let instance = find(&state, &id).await?;
    let deleted = state
        .store
        .delete_customer_key(instance.id, &provider)
        .await?;
    match deleted {
        Transition::Done => {
            state.doorbell.ring(Ring::Events);
            Ok(StatusCode::NO_CONTENT)
        }
        Transition::NotPossible => Err(Problem::new(Code::NotFound, "there is no such key")),
    }
}

fn no_such_provider() -> Problem {
    Problem::new(Code::NotFound, "no such provider")
}

fn not_taken(why: NotTaken) -> Problem {
    match why {
        NotTaken::Refused => Problem::field("/key", "refused", "the provider refuses this key"),
        NotTaken::Unknown => {
            let detail = "the provider did not say whether it takes this key; nothing was changed";
            Problem::new(Code::ProviderUnreachable, detail)
        }
    }
}
