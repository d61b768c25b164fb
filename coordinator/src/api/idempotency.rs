//! `Idempotency-Key`: the same request twice has one effect and one answer.
//!
//! The request runs in a task of its own: were it to end with its connection, a caller that hangs up
//! while waiting would leave work done and no answer to replay. Only successes are kept; whatever was
//! refused may be sent again, corrected, under the same key. Answers that hold a secret are never
//! kept, so those routes refuse the header instead of silently doing the work twice.

use std::sync::Arc;

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidepool_shared::id::TokenId;

use super::{
    ApiState,
    auth::Caller,
    body,
    problem::{Code, Problem},
};
use crate::store::Idempotency;

/// The header.
pub const HEADER: &str = "idempotency-key";

/// Set on an answer that was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The longest key, in bytes.
const MAX_LEN: usize = 255;

/// A key as the store knows it: keys of different paths never meet.
struct Held {
    token: TokenId,
    key: String,
}

pub(super) async fn replay(
    State(state): State<Arc<ApiState>>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(key) = key(&request)? else {
        return Ok(next.run(request).await);
    };
    let (parts, body) = request.into_parts();
    let bytes = body::read(body).await?;
    let held = Held {
        token: caller.0.id,
        key: format!("{} {key}", parts.uri.path()),
    };
    let hash = request_hash(&parts, &bytes);
    let known = state
        .store
        .begin_idempotent(held.token, &held.key, hash, state.now())
        .await?;
    match known {
        Idempotency::Fresh => {
            let request = Request::from_parts(parts, Body::from(bytes));
            let running = state.tasks.spawn(run(state.clone(), held, request, next));
            running.await.map_err(Problem::internal)?
        }
        Idempotency::Replay { status, body } => Ok(again(status, body)),
        Idempotency::Mismatch => Err(Problem::new(
            Code::IdempotencyKeyReused,
            "take a new key for a new request",
        )),
        Idempotency::InProgress => {
            let problem = Problem::new(Code::IdempotencyInProgress, "its answer will be replayed");
            Err(problem.retry_after(1))
        }
    }
}

/// Refuses the header where the answer cannot be kept.
pub(super) async fn refuse_key(request: Request, next: Next) -> Result<Response, Problem> {
    if request.headers().contains_key(HEADER) {
        let detail = "answers with a secret are not kept, so `Idempotency-Key` is not taken here";
        return Err(Problem::new(Code::InvalidParameter, detail));
    }
    Ok(next.run(request).await)
}

fn key(request: &Request) -> Result<Option<String>, Problem> {
    let Some(value) = request.headers().get(HEADER) else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .filter(|key| (1..=MAX_LEN).contains(&key.len()))
        .map(|key| Some(key.to_owned()))
        .ok_or_else(|| {
            let detail = format!("`Idempotency-Key` is 1 to {MAX_LEN} visible characters");
            Problem::new(Code::InvalidParameter, detail)
        })
}

fn request_hash(parts: &Parts, body: &Bytes) -> [u8; 32] {
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    Sha256::new()
        .chain_update(parts.method.as_str())
        .chain_update([0])
        .chain_update(target)
        .chain_update([0])
        .chain_update(body)
        .finalize()
        .into()
}

async fn run(
    state: Arc<ApiState>,
    held: Held,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (parts, body) = next.run(request).await.into_parts();
    if !parts.status.is_success() {
        state
            .store
            .abandon_idempotent(held.token, &held.key)
            .await?;
        return Ok(Response::from_parts(parts, body));
    }
    let bytes = body::read(body).await?;
    let location = parts.headers.get(header::LOCATION);
    let kept = Kept {
        location: location.and_then(|at| at.to_str().ok()).map(str::to_owned),
        body: String::from_utf8_lossy(&bytes).into_owned(),
    };
    let text = serde_json::to_string(&kept).map_err(Problem::internal)?;
    state
        .store
        .finish_idempotent(
            held.token,
            &held.key,
            parts.status.as_u16(),
            &text,
            state.now(),
        )
        .await?;
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

/// An answer as the store keeps it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    location: Option<String>,
    body: String,
}

fn again(status: u16, kept: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    // One that was kept by an older version is the body alone.
    let kept = serde_json::from_str(&kept).unwrap_or(Kept {
        location: None,
        body: kept,
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (REPLAYED, HeaderValue::from_static("true")),
    ];
    let location = kept.location.and_then(|at| HeaderValue::from_str(&at).ok());
    let mut response = (status, headers, kept.body).into_response();
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
