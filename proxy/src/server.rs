//! The HTTP server: identity first, then the few paths there are.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::{ConnectInfo, Path, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::HeaderValue;
use serde_json::Value;
use tokio::{net::TcpListener, runtime::Handle};
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::Catalog,
    demo,
    dialect::Dialect,
    directory::{Caller, NotTrusted},
    forward::{Forwarder, forward},
    metrics, models,
    refusal::Refusal,
    serving::{self, Peer, Worker},
};

/// Serves until `cancel`, then lets answers under way end within a deadline.
pub async fn serve(listener: TcpListener, forwarder: Arc<Forwarder>, cancel: CancellationToken) {
    serve_on(listener, vec![(Handle::current(), forwarder)], cancel).await;
}

/// The same on several runtimes, each with a forwarder that has connections of its own.
pub async fn serve_on(
    listener: TcpListener,
    workers: Vec<(Handle, Arc<Forwarder>)>,
    cancel: CancellationToken,
) {
    let Some(first) = workers.first().map(|(_, first)| Arc::clone(first)) else {
        return;
    };
    let workers = workers.into_iter().map(|(runtime, forwarder)| Worker {
        runtime,
        router: router(forwarder),
    });
    let who = |address| {
        if first.hops.has(address) {
            Peer::Hop
        } else if first.directory.is_known(address) {
            Peer::Known
        } else {
            Peer::Stranger
        }
    };
    serving::serve(listener, workers.collect(), who, cancel).await;
}

fn router(forwarder: Arc<Forwarder>) -> Router {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1beta/models", get(models))
        // Calls of Gemini's dialect have such paths, too.
        .route("/v1/models/{*name}", get(model).fallback(forward))
        .route("/v1beta/models/{*name}", get(model).fallback(forward))
        .fallback(forward)
        .method_not_allowed_fallback(async || Refusal::NoSuchMethod)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&forwarder),
            identify,
        ))
        // Outside of the identity: it tells nothing, and whoever supervises has no server's address.
        .route("/healthz", get(async || "ok\n"))
        .with_state(forwarder)
}

/// Finds out who calls, before anything is read of what is said.
async fn identify(
    State(forwarder): State<Arc<Forwarder>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let forwarded = request.headers().get_all("x-forwarded-for").iter();
    let forwarded = forwarded.map(HeaderValue::as_bytes);
    let Some(address) = forwarder.hops.caller(peer.ip(), forwarded) else {
        return refused(Refusal::UnknownAddress);
    };
    match forwarder.directory.caller(address).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(NotTrusted::Unknown) => {
            tracing::debug!(peer.address = %address, "unknown address refused");
            refused(Refusal::UnknownAddress)
        }
        Err(NotTrusted::Stale) => refused(Refusal::IdentityUnavailable),
    }
}

async fn models(
    State(forwarder): State<Arc<Forwarder>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Json<Value> {
    let catalog = forwarder.directory.catalog();
    let names = names(&catalog, &caller);
    Json(models::list(dialect(&request), &names))
}

async fn model(
    State(forwarder): State<Arc<Forwarder>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let dialect = dialect(&request);
    let catalog = forwarder.directory.catalog();
    if names(&catalog, &caller).contains(&name.as_str()) {
        Json(models::one(dialect, &name)).into_response()
    } else {
        Refusal::UnknownModel.in_dialect(dialect)
    }
}

fn dialect(request: &Request) -> Dialect {
    if request.uri().path().starts_with("/v1beta/") {
        Dialect::Gemini
    } else {
        models::dialect(request.headers())
    }
}

/// What the caller may ask for.
fn names<'a>(catalog: &'a Catalog, caller: &Caller) -> Vec<&'a str> {
    match &caller.customer {
        Some(customer) if !catalog.is_empty() => catalog.names(customer),
        _ => vec![demo::MODEL],
    }
}

fn refused(refusal: Refusal) -> Response {
    metrics::refused(refusal.code());
    refusal.into_response()
}
