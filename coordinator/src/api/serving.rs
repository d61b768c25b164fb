//! Serving the API on a socket: bounded in connections and in patience, drained at the end.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;

/// How long a request's head may take to arrive; also bounds an idle kept-alive connection.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// How long requests may take to end once the program does.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until `cancel`, then lets running requests end.
pub async fn serve(listener: TcpListener, router: Router, cancel: CancellationToken) {
    let connections = TaskTracker::new();
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else {
            continue;
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(router.clone()),
            );
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an API connection broke");
            }
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    if timeout(DRAIN, async {
        tokio::join!(graceful.shutdown(), connections.wait())
    })
    .await
    .is_err()
    {
        tracing::warn!("API requests were cut off at the end of their time to drain");
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

/// Waits for a free place and then for a connection.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, Place)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            set_nodelay(&stream);
            Some((stream, place))
        }
        Err(error) => {
            // Out of descriptors, most likely: others must end first.
            tracing::warn!(%error, "an API connection was not accepted");
            sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

fn set_nodelay(stream: &TcpStream) {
    let outcome: io::Result<()> = stream.set_nodelay(true);
    if let Err(error) = outcome {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
}
