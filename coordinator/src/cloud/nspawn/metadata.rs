//! The metadata service: tells a server, known by its address, what a cloud would tell it.
//!
//! Its socket is of the switch's namespace. A thread goes there to open it and ends: a socket belongs for ever
//! to the namespace in which it was made.

use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Router,
    extract::{ConnectInfo, Path as UrlPath, State},
    http::StatusCode,
    routing::get,
};
use nix::sched::{CloneFlags, setns};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    super::disk,
    ServerRecord,
    switch::{METADATA, Switch},
};

const PORT: u16 = 80;

/// Answers until cancelled.
pub(super) async fn serve(
    servers: PathBuf,
    switch: &Switch,
    cancel: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listen_in(switch.namespace_file()).await?)?;
    let router = Router::new()
        .route("/hetzner/v1/userdata", get(user_data))
        .route("/hetzner/v1/metadata/{what}", get(metadata))
        .with_state(Arc::new(servers));
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await
}

async fn listen_in(namespace: PathBuf) -> io::Result<StdListener> {
    let (send, receive) = tokio::sync::oneshot::channel();
    // A thread of its own, and none of the runtime's: it does not come back from there.
    std::thread::Builder::new()
        .name("metadata".to_owned())
        .spawn(move || {
            // Nobody waits any more: then nobody needs the socket.
            drop(send.send(open(&namespace)));
        })?;
    receive.await.map_err(io::Error::other)?
}

fn open(namespace: &Path) -> io::Result<StdListener> {
    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
    let listener = StdListener::bind((METADATA, PORT))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn user_data(
    State(servers): State<Arc<PathBuf>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
) -> Result<String, StatusCode> {
    let server = asking(&servers, from.ip())?;
    let path = servers.join(&server.name).join("user-data.json");
    std::fs::read_to_string(path).map_err(|_| StatusCode::NO_CONTENT)
}

async fn metadata(
    State(servers): State<Arc<PathBuf>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    UrlPath(what): UrlPath<String>,
) -> Result<String, StatusCode> {
    let server = asking(&servers, from.ip())?;
    match what.as_str() {
        "hostname" | "instance-id" => Ok(server.name),
        "public-ipv4" => Ok(server.address.to_string()),
        _ => Err(StatusCode::NOT_FOUND),
    }
}

/// The server of this address.
fn asking(servers: &Path, from: IpAddr) -> Result<ServerRecord, StatusCode> {
    let records = disk::servers::<ServerRecord>(servers).map_err(|error| {
        tracing::error!(%error, "servers cannot be read");
        StatusCode::INTERNAL_SERVER_ERROR
    })?;
    records
        .into_iter()
        .find(|record| IpAddr::V4(record.address) == from)
        .ok_or(StatusCode::NOT_FOUND)
}
