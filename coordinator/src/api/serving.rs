//! Serving the API on a socket: bounded in connections and in patience, drained at the end.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tidepool_shared::quota::{self, Quota, neighbourhood};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How many connections are served at once.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// More wait in the kernel's queue.
    all: usize,
    /// From one address; more are refused, as others would wait behind. A web app, and whatever stands in
    /// front of this port, is one address.
    of_one: usize,
}

const BOUNDS: Bounds = Bounds {
    all: 4096,
    of_one: 1024,
};

/// How long a request's head may take to arrive; also bounds an idle kept-alive connection.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// How long requests may take to end once the program does.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until `cancel`, then lets running requests end.
pub async fn serve(listener: TcpListener, router: Router, cancel: CancellationToken) {
    serve_within(BOUNDS, listener, router, cancel).await;
}

async fn serve_within(
    bounds: Bounds,
    listener: TcpListener,
    router: Router,
    cancel: CancellationToken,
) {
    let connections = TaskTracker::new();
    let graceful = GracefulShutdown::new();
    let places = Places {
        all: Arc::new(Semaphore::new(bounds.all)),
        of_one: Quota::new(bounds.of_one),
    };
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

/// The places that connections take.
struct Places {
    all: Arc<Semaphore>,
    of_one: Arc<Quota<IpAddr>>,
}

/// A connection's: one of all and one of its peer's.
type Place = (OwnedSemaphorePermit, quota::Place<IpAddr>);

/// Waits for a free place and then for a connection.
async fn accept(listener: &TcpListener, places: &Places) -> Option<(TcpStream, Place)> {
    let shared = places.all.clone().acquire_owned().await.ok()?;
    let (stream, peer): (TcpStream, SocketAddr) = match listener.accept().await {
        Ok(accepted) => accepted,
        Err(error) => {
            // Out of descriptors, most likely: others must end first.
            tracing::warn!(%error, "an API connection was not accepted");
            sleep(Duration::from_millis(50)).await;
            return None;
        }
    };
    let Some(own) = places.of_one.take(neighbourhood(peer.ip())) else {
        tracing::debug!(peer.address = %peer.ip(), "one API connection too many refused");
        return None;
    };
    set_nodelay(&stream);
    Some((stream, (shared, own)))
}

fn set_nodelay(stream: &TcpStream) {
    let outcome: io::Result<()> = stream.set_nodelay(true);
    if let Err(error) = outcome {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpSocket,
    };

    use super::*;

    /// Asks from an address; the connection, if it was answered.
    async fn ask(from: [u8; 4], server: SocketAddr) -> io::Result<Option<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let mut stream = socket.connect(server).await?;
        let mut answer = [0; 15];
        let asked = async {
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                .await?;
            stream.read_exact(&mut answer).await
        };
        Ok(match asked.await {
            Ok(_) => Some(stream),
            Err(_) => None,
        })
    }

    #[tokio::test]
    async fn one_address_takes_its_places_and_no_others() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = listener.local_addr()?;
        let cancel = CancellationToken::new();
        let bounds = Bounds { all: 8, of_one: 2 };
        let router = Router::new().route("/", get(async || "here"));
        let asking = async {
            let first = ask([127, 0, 0, 1], server).await?;
            let second = ask([127, 0, 0, 1], server).await?;
            assert!(first.is_some() && second.is_some());
            assert!(ask([127, 0, 0, 1], server).await?.is_none());
            assert!(ask([127, 0, 0, 2], server).await?.is_some());
            drop((first, second));
            // Its places are free once the server has seen the ends.
            while ask([127, 0, 0, 1], server).await?.is_none() {}
            cancel.cancel();
            io::Result::Ok(())
        };
        let serving = serve_within(bounds, listener, router, cancel.clone());
        let (asked, ()) = tokio::join!(asking, serving);
        asked
    }
}
