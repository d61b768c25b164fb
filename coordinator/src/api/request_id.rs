//! The outermost layer: gives every request an id, writes problem bodies, logs internal errors.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{ApiState, problem::Problem};
use crate::causes::chain;

/// The header that carries the id both ways.
pub const HEADER: &str = "x-request-id";

/// The longest id taken from a caller.
const MAX_LEN: usize = 64;

pub(super) async fn carry(
    State(state): State<Arc<ApiState>>,
    request: Request,
    next: Next,
) -> Response {
    let id = given(&request).unwrap_or_else(|| fresh(&state));
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        if let Some(cause) = problem.cause() {
            let cause = chain(cause);
            tracing::error!(request.id = id, %method, path, cause, "a request failed");
        }
        response = written(&problem, &id);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

/// The caller's own id, if it is short and harmless in a log.
fn given(request: &Request) -> Option<String> {
    let id = request.headers().get(HEADER)?.to_str().ok()?;
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    ((1..=MAX_LEN).contains(&id.len()) && id.bytes().all(harmless)).then(|| id.to_owned())
}

fn fresh(state: &ApiState) -> String {
    format!("req_{}", state.chance.uuid(state.now()).simple())
}

fn written(problem: &Problem, id: &str) -> Response {
    let body = problem.body(id);
    let mut response = (problem.code.status(), Json(&body)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if let Some(seconds) = body.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if body.status == 401 {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
