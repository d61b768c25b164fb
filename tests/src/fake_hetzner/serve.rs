//! Serving a router on a socket, with one thing that no framework offers: answers that are not given.

use std::io;

use axum::{Router, response::Response};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// On a response: the connection ends instead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropped;

/// Serves until `cancel`; connections end with it.
pub(super) async fn serve(listener: TcpListener, router: Router, cancel: CancellationToken) {
    let connections = TaskTracker::new();
    while let Some(accepted) = cancel.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone());
                let cancel = cancel.clone();
                connections.spawn(async move {
                    cancel.run_until_cancelled(connection).await;
                });
            }
            Err(error) => tracing::warn!(%error, "a connection to the fake was not accepted"),
        }
    }
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, router: Router) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = hyper::service::Service::call(&router, request);
        async move {
            let response: Response = answer.await.unwrap_or_else(|never| match never {});
            match response.extensions().get::<Dropped>() {
                Some(Dropped) => Err(io::Error::other("dropped by a switch")),
                None => Ok(response),
            }
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the fake broke");
    }
}
