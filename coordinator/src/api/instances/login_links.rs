//! Login links: a URL that signs its bearer in, once.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use tidepool_shared::document::Power;
use utoipa::ToSchema;

use crate::{
    api::{
        ApiState,
        auth::hash,
        body::{Parsed, request_bodies},
        problem::{Code, Problem, ProblemBody},
    },
    instance,
};

/// How long a link lives unless the caller says otherwise.
const DEFAULT_TTL_S: u64 = 120;

/// A wish for a link.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateLoginLink {
    /// Seconds until it is worthless; 120 if absent.
    #[schema(minimum = 1, maximum = 300)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// One of its customer's own names, to sign in there instead of at its main one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

request_bodies!(CreateLoginLink);

/// A link. Whoever opens it in a browser first is signed in; looking at it (a preview) spends nothing.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct LoginLink {
    pub url: String,
    pub expires_at: String,
}

/// Makes a single-use login link.
#[utoipa::path(post, path = "/v1/instances/{id}/login_links", tag = "access", request_body = CreateLoginLink, params(("id" = String, Path, description = "Id or name")),
    responses((status = 201, body = LoginLink), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn create(
    State(state): State<Arc<ApiState>>,
    Path(key): Path<String>,
    Parsed(body): Parsed<CreateLoginLink>,
) -> Result<(StatusCode, Json<LoginLink>), Problem> {
    let instance = super::find_living(&state, &key).await?;
    if instance.status.power() == Power::Off {
        let detail = format!("it is {}", instance.status.word());
        return Err(Problem::new(Code::NotPossible, detail));
    }
    let site = match &body.domain {
        Some(domain) => {
            let domain = super::domains::served(&state, &instance, domain).await?;
            instance::origin(&instance, &domain.name)
        }
        None => instance.url.clone(),
    };
    let secret = state.chance.secret();
    let now = state.now();
    let expires = now.plus(Duration::from_secs(body.ttl_s.unwrap_or(DEFAULT_TTL_S)));
    state
        .store
        .create_login_link(hash(&secret), instance.id, expires, now)
        .await?;
    let link = LoginLink {
        url: format!("{site}/.tidepool/login?token={secret}"),
        expires_at: expires.rfc3339(),
    };
    Ok((StatusCode::CREATED, Json(link)))
}
