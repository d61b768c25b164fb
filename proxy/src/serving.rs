//! Serving on a socket: bounded in connections, in all and for each source address, and in patience.
//!
//! The proxy is the one thing that all servers reach, and a server may be in its customer's hands.
//! Whoever is over a bound is refused at once and does not hold up those behind.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
};
use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};
use tidepool_shared::quota::{Quota, neighbourhood};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// Connections at once: ten thousand streams, and gateways' idle ones.
const CONNECTIONS: usize = 16_384;
/// Of these for one source address; a gateway opens one for each answer under way.
const CONNECTIONS_OF_ONE: usize = 64;
/// Of those whose address is not known, beside the others': they are refused, which takes no time.
const CONNECTIONS_OF_STRANGERS: usize = 512;
/// Milliseconds for which a client may read nothing of an answer. A client that is at a stand holds two
/// connections and, at the provider, a model.
const UNREAD_MS: u32 = 300_000;
/// How long a request's head may take to arrive; also bounds an idle kept-alive connection.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// What is read at a time, and the most that a head may have. By default a connection keeps a buffer as
/// large as its request was, for as long as the answer takes.
const BUFFER_BYTES: usize = 8 * 1024;
/// For answers under way at shutdown.
const DRAIN: Duration = Duration::from_secs(20);
/// After `accept` failed, for want of file descriptors most likely.
const BREATH: Duration = Duration::from_millis(50);

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Known,
    Stranger,
    /// For many others, so it has no bound of its own.
    Hop,
}

/// Who serves: a runtime, and what answers on it.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) runtime: Handle,
    pub(crate) router: Router,
}

/// Serves until `cancel`, then lets answers under way end within a deadline. Workers take connections in turns.
pub(crate) async fn serve(
    listener: TcpListener,
    workers: Vec<Worker>,
    who: impl Fn(IpAddr) -> Peer,
    cancel: CancellationToken,
) {
    let connections = TaskTracker::new();
    let graceful = GracefulShutdown::new();
    let all = Arc::new(Semaphore::new(CONNECTIONS));
    let strangers = Arc::new(Semaphore::new(CONNECTIONS_OF_STRANGERS));
    let each = Quota::new(CONNECTIONS_OF_ONE);
    let cut = CancellationToken::new();
    let mut workers = workers.iter().cycle();
    while let Some(accepted) = cancel.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                sleep(BREATH).await;
                continue;
            }
        };
        // A server that is new may be a stranger for a moment.
        let who = who(peer.ip());
        let pool = if who == Peer::Stranger {
            &strangers
        } else {
            &all
        };
        let own = (who != Peer::Hop).then(|| each.take(neighbourhood(peer.ip())));
        let place = match own {
            Some(None) => None,
            own => Some(own).zip(Arc::clone(pool).try_acquire_owned().ok()),
        };
        let (Some(place), Some(worker)) = (place, workers.next()) else {
            tracing::debug!(peer.address = %peer.ip(), "one connection too many refused");
            continue;
        };
        let Ok(stream) = stream.into_std() else {
            continue;
        };
        let (cut, watcher, router) = (cut.clone(), graceful.watcher(), worker.router.clone());
        let serving = async move {
            // Of the worker's own from here on.
            match TcpStream::from_std(stream) {
                Ok(stream) => {
                    let connection = watcher.watch(connection(stream, peer, router));
                    if let Some(Err(error)) = cut.run_until_cancelled(connection).await {
                        tracing::debug!(%error, "a connection broke");
                    }
                }
                Err(error) => tracing::warn!(%error, "a connection was not taken over"),
            }
            drop(place);
        };
        connections.spawn_on(serving, &worker.runtime);
    }
    drop(listener);
    connections.close();
    let ending = async { tokio::join!(graceful.shutdown(), connections.wait()) };
    if timeout(DRAIN, ending).await.is_err() {
        tracing::warn!("cut answers that did not end in time");
        cut.cancel();
        connections.wait().await;
    }
}

/// HTTP on one connection; every request is told where it comes from.
fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
) -> impl GracefulConnection<Error = hyper::Error> {
    // Without it the small pieces of a stream would wait for the reader's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "delay not switched off");
    }
    if let Err(error) = setsockopt(&stream, TcpUserTimeout, &UNREAD_MS) {
        tracing::debug!(%error, "no limit to how long nothing is read");
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    http1::Builder::new()
        .max_buf_size(BUFFER_BYTES)
        // What is written is small: to gather it costs the kernel more than to copy it costs us.
        .writev(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
}
