//! The HTTP server: identity first, then the few paths there are.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{Answer, Usage},
    bodies::Bodies,
    demo,
    prompt::ChatRequest,
    refusal::Refusal,
    serving,
    trust::{Caller, NotTrusted, Trust},
};

/// Images in a conversation make requests large.
const BODY_MAX_BYTES: usize = 20 * 1024 * 1024;
/// For a whole request to arrive.
const BODY_DEADLINE: Duration = Duration::from_mins(1);

/// What every request shares.
#[derive(Clone)]
struct Shared {
    trust: Trust,
    bodies: Arc<Bodies>,
}

/// Serves until `cancel`, then lets answers under way end within a deadline.
pub async fn serve(listener: TcpListener, trust: Trust, cancel: CancellationToken) {
    serving::serve(listener, router(trust), cancel).await;
}

fn router(trust: Trust) -> Router {
    let shared = Shared {
        trust,
        bodies: Arc::default(),
    };
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .fallback(async || Refusal::NoSuchPath)
        .method_not_allowed_fallback(async || Refusal::NoSuchMethod)
        .layer(middleware::from_fn_with_state(shared.clone(), identify))
        // Outside of the identity: it tells nothing, and whoever supervises has no server's address.
        .route("/healthz", get(async || "ok\n"))
        .with_state(shared)
}

/// Finds out who calls, before anything is read of what is said.
async fn identify(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    match shared.trust.caller(peer.ip()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(NotTrusted::Unknown) => {
            tracing::debug!(peer.address = %peer.ip(), "unknown address refused");
            Refusal::UnknownAddress.into_response()
        }
        Err(error @ (NotTrusted::Database(_) | NotTrusted::Corrupt(_))) => {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "caller not identified"
            );
            Refusal::IdentityUnavailable.into_response()
        }
    }
}

async fn models(Extension(_): Extension<Caller>) -> Json<Value> {
    Json(json!({
        "object": "list",
        "data": [{"id": demo::MODEL, "object": "model", "created": 0, "owned_by": "tidepool"}],
    }))
}

async fn chat(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response, Refusal> {
    let answer = {
        let place = shared.bodies.place(caller.server).await;
        let _place = place.ok_or(Refusal::Busy)?;
        let request = read(body).await?;
        let form = (request.wants_stream(), request.wants_usage());
        (Answer::new(&request, demo::reply(caller, &request)), form)
    };
    tracing::debug!(server.id = %caller.server, "demo model answers");
    Ok(match answer {
        (answer, (true, true)) => answer.streamed(Usage::Wanted),
        (answer, (true, false)) => answer.streamed(Usage::Unwanted),
        (answer, (false, _)) => answer.whole(),
    })
}

async fn read(body: Body) -> Result<ChatRequest, Refusal> {
    let bytes = tokio::time::timeout(BODY_DEADLINE, to_bytes(body, BODY_MAX_BYTES))
        .await
        .map_err(|_| Refusal::TooSlow)?
        .map_err(|_| Refusal::TooLarge)?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::Unreadable)
}
