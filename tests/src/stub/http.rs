//! The stub's HTTP side: health, who is let in, the page, and the upgrade to a session.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};
use tokio_util::sync::CancellationToken;

use super::{Shared, config::Config, session};

const PAGE: &str = "<!doctype html>\n<html><head><title>OpenClaw</title></head>\
    <body><openclaw-app></openclaw-app></body></html>\n";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Serves until it is stopped. Connections end with it.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, peer)) = accepted else {
            continue;
        };
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, peer, shared.clone()));
            let connection = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // A client that goes away is its own affair.
            drop(connection.await);
        });
    }
}

/// Who asks, as OpenClaw's trusted-proxy mode judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Owner,
    Unknown,
    /// Looks like a proxy, and is none.
    Unattributable,
}

impl Caller {
    fn of(headers: &HeaderMap, peer: IpAddr, config: &Config) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let forwarded = [
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "forwarded",
        ]
        .iter()
        .any(|name| headers.contains_key(*name));
        if !config.is_trusted_proxy(peer) {
            return if forwarded {
                Self::Unattributable
            } else {
                Self::Unknown
            };
        }
        let client = text("x-forwarded-for").and_then(|list| list.parse::<IpAddr>().ok());
        if forwarded && client.is_none_or(|client| client.is_loopback()) {
            return Self::Unattributable;
        }
        let complete = text("x-forwarded-proto").is_some() && text("x-forwarded-host").is_some();
        match text("x-forwarded-user") {
            Some(user) if complete && config.admits_user(user) => Self::Owner,
            Some(_) | None => Self::Unknown,
        }
    }
}

async fn answer(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    let config = shared.config.read().await.clone();
    let caller = Caller::of(request.headers(), peer.ip(), &config);
    let path = request.uri().path();
    if matches!(path, "/healthz" | "/health") {
        return Ok(reply(
            StatusCode::OK,
            &json!({"ok": true, "status": "live"}),
        ));
    }
    if caller == Caller::Unattributable {
        return Ok(reply(
            StatusCode::FORBIDDEN,
            &json!({"error": {"message": "Proxy client attribution is required.",
                "type": "proxy_attribution_required"}}),
        ));
    }
    if request.headers().contains_key(header::UPGRADE) {
        return Ok(upgrade(&mut request, caller, shared));
    }
    let started = shared.started.load(Ordering::SeqCst);
    Ok(match path {
        "/startupz" | "/startup" if started => {
            reply(StatusCode::OK, &json!({"ok": true, "status": "started"}))
        }
        "/startupz" | "/startup" => reply(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"ok": false, "status": "starting"}),
        ),
        "/readyz" | "/ready" if started => reply(StatusCode::OK, &json!({"ready": true})),
        "/readyz" | "/ready" => reply(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"ready": false, "failing": ["startup-sidecars"]}),
        ),
        "/control-ui-config.json" if caller == Caller::Owner => reply(
            StatusCode::OK,
            &json!({"basePath": "", "assistantName": config.assistant(),
                "assistantAgentId": "main", "serverVersion": shared.switches.version}),
        ),
        "/control-ui-config.json" => reply(
            StatusCode::UNAUTHORIZED,
            &json!({"error": {"message": "Unauthorized", "type": "unauthorized"}}),
        ),
        "/download" if caller == Caller::Owner => download(),
        // Like the real one: any unknown path, for anybody.
        _ => page(),
    })
}

/// Accepts the upgrade from anybody; who it is and where from is judged at `connect`.
fn upgrade(request: &mut Request<Incoming>, caller: Caller, shared: Arc<Shared>) -> Response<Body> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return reply(
            StatusCode::BAD_REQUEST,
            &json!({"error": {"type": "bad_request"}}),
        );
    };
    let accept = derive_accept_key(key.as_bytes());
    let origin = request.headers().get(header::ORIGIN);
    let origin = origin
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let coming = hyper::upgrade::on(request);
    #[expect(
        clippy::disallowed_methods,
        reason = "a session ends with its socket, and the stub with its process"
    )]
    tokio::spawn(async move {
        if let Ok(upgraded) = coming.await {
            let io = TokioIo::new(upgraded);
            let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
            // A client that goes away is its own affair.
            drop(session::hold(socket, caller, origin.as_deref(), &shared).await);
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .body(whole(""))
        .unwrap_or_else(|_| Response::new(whole("")))
}

fn reply(status: StatusCode, body: &Value) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .body(whole(body.to_string()))
        .unwrap_or_else(|_| Response::new(whole("")))
}

/// A plain answer that never ends, for those who want to see it cut.
fn download() -> Response<Body> {
    let drops = stream::unfold((), async |()| {
        sleep(Duration::from_millis(50)).await;
        Some((Ok(Frame::data(Bytes::from_static(b"drop\n"))), ()))
    });
    Response::new(StreamBody::new(drops).boxed_unsync())
}

fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

fn page() -> Response<Body> {
    Response::builder()
        .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
        .body(whole(PAGE))
        .unwrap_or_else(|_| Response::new(whole("")))
}
