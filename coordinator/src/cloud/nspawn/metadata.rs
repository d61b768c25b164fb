//! The metadata service: tells a server, known by its address, what a cloud would tell it.
//!
//! It answers on the well-known link-local address of either family, as Hetzner does. What it says is its
//! owner's: the machines of a cloud here, or the tests' whole ones. Its sockets are of the switch's namespace. A
//! thread goes there to open them and ends: a socket belongs for ever to the namespace in which it was made.

use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener as StdListener},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Router,
    extract::{ConnectInfo, Path as UrlPath, State},
    http::StatusCode,
    routing::get,
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    super::disk,
    ServerRecord,
    switch::{self, BRIDGE, METADATA, METADATA_V6, Switch},
};

const PORT: u16 = 80;

/// What is answered to the server of this address that asks for this path below `/hetzner/v1/`.
pub type Answer = dyn Fn(IpAddr, &str) -> Result<String, StatusCode> + Send + Sync;

/// Answers until cancelled.
pub async fn serve(
    switch: &Switch,
    answer: Arc<Answer>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/hetzner/v1/{*path}", get(told))
        .with_state(answer);
    let mut served = Vec::new();
    for listener in listen_in(switch.namespace_file()).await? {
        let service = router
            .clone()
            .into_make_service_with_connect_info::<SocketAddr>();
        let until = cancel.clone().cancelled_owned();
        served.push(
            axum::serve(TcpListener::from_std(listener)?, service)
                .with_graceful_shutdown(until)
                .into_future(),
        );
    }
    futures_util::future::try_join_all(served).await.map(drop)
}

async fn listen_in(namespace: PathBuf) -> io::Result<Vec<StdListener>> {
    let (send, receive) = tokio::sync::oneshot::channel();
    // A thread of its own, and none of the runtime's: it does not come back from there.
    std::thread::Builder::new()
        .name("metadata".to_owned())
        .spawn(move || {
            // Nobody waits any more: then nobody needs the sockets.
            drop(send.send(open(&namespace)));
        })?;
    receive.await.map_err(io::Error::other)?
}

fn open(namespace: &Path) -> io::Result<Vec<StdListener>> {
    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
    let mut listeners = vec![StdListener::bind((METADATA, PORT))?];
    if switch::has_v6() {
        let link = if_nametoindex(BRIDGE)?;
        let address = SocketAddrV6::new(METADATA_V6, PORT, 0, link);
        listeners.push(StdListener::bind(address)?);
    }
    for listener in &listeners {
        listener.set_nonblocking(true)?;
    }
    Ok(listeners)
}

async fn told(
    State(answer): State<Arc<Answer>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    UrlPath(path): UrlPath<String>,
) -> Result<String, StatusCode> {
    answer(from.ip(), &path)
}

/// What the servers in this directory are told.
pub(super) fn of_servers(servers: PathBuf) -> Arc<Answer> {
    Arc::new(move |from, path| {
        let server = asking(&servers, from)?;
        match path {
            "userdata" => {
                let path = servers.join(&server.name).join("user-data.json");
                std::fs::read_to_string(path).map_err(|_| StatusCode::NO_CONTENT)
            }
            "metadata/hostname" | "metadata/instance-id" => Ok(server.name),
            "metadata/public-ipv4" => Ok(server.address.to_string()),
            _ => Err(StatusCode::NOT_FOUND),
        }
    })
}

/// The server of this address.
fn asking(servers: &Path, from: IpAddr) -> Result<ServerRecord, StatusCode> {
    let records = disk::servers::<ServerRecord>(servers).map_err(|error| {
        tracing::error!(%error, "servers cannot be read");
        StatusCode::INTERNAL_SERVER_ERROR
    })?;
    records
        .into_iter()
        .find(|record| match from {
            IpAddr::V4(from) => record.address == from,
            IpAddr::V6(from) => switch::link_local(record.number) == from,
        })
        .ok_or(StatusCode::NOT_FOUND)
}
