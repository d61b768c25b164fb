//! Accepting connections, with a ceiling on how many, how large their heads and how slow they are.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    Inner,
    handle::{Connection, handle},
    places::{ConnectionPlace, Peer},
    tls,
};

/// A head that is not there by then ends the connection; so does idling this long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Room for a head: a browser's with many cookies. It is also the read buffer of a connection.
const HEAD_MAX_BYTES: usize = 32 * 1024;
const HEADERS_MAX: usize = 100;
/// After `accept` failed, for want of file descriptors for example.
const BREATH: Duration = Duration::from_millis(50);

/// How connections come in.
#[derive(Clone)]
pub(super) enum Door {
    /// What ends TLS, if anything does, is a hop before us.
    Plain,
    /// Customers' own names: TLS ends here.
    Tls(TlsAcceptor),
}

/// Accepts until `cancel`. `cut` ends what does not end by itself after that.
pub(super) async fn accept(
    inner: &Arc<Inner>,
    listener: &TcpListener,
    door: &Door,
    cancel: &CancellationToken,
    cut: &CancellationToken,
) {
    loop {
        let (stream, peer) = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            },
        };
        let Some(place) = place(inner, door, peer.ip()) else {
            tracing::debug!(peer.address = %peer.ip(), "one connection too many refused");
            continue;
        };
        // Without it small events of a stream would wait for the visitor's acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "delay not switched off");
        }
        let connection = Connection {
            peer: peer.ip(),
            name: None,
            place: Arc::new(place),
        };
        let (inner, cut, cancel) = (Arc::clone(inner), cut.clone(), cancel.clone());
        let tasks = inner.tasks.clone();
        let serving = open(inner, door.clone(), stream, connection, cancel);
        tasks.spawn(async move { cut.run_until_cancelled(serving).await });
    }
}

async fn open(
    inner: Arc<Inner>,
    door: Door,
    stream: TcpStream,
    connection: Connection,
    cancel: CancellationToken,
) {
    match door {
        Door::Plain => serve(inner, stream, connection, cancel).await,
        Door::Tls(acceptor) => match tls::open(&inner, &acceptor, stream, connection).await {
            Ok((stream, connection)) => serve(inner, stream, connection, cancel).await,
            Err(error) => tracing::debug!(error = %crate::causes::chain(&error), "no TLS"),
        },
    }
}

/// A place for a connection, if there is one.
fn place(inner: &Inner, door: &Door, peer: IpAddr) -> Option<ConnectionPlace> {
    let peer = if inner.settings.trusted_hops.has(peer) {
        Peer::Hop
    } else {
        Peer::Visitor(peer)
    };
    match door {
        Door::Plain => inner.places.take(peer),
        Door::Tls(_) => inner.places.take_by_domains(peer),
    }
}

async fn serve(
    inner: Arc<Inner>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Connection,
    cancel: CancellationToken,
) {
    let service = service_fn(move |request| {
        let (inner, connection) = (Arc::clone(&inner), connection.clone());
        async move { Ok::<_, Infallible>(handle(inner, connection, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = cancel.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection broke off");
    }
}
