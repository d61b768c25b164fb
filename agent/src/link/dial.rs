//! Dialling: a fresh socket on the server's own address for every connection.
//!
//! Fresh, because a socket that outlives an address change or a network restart can be dead without
//! saying so, and a reconnect is rare enough not to count.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig},
};
use tidepool_certs::COORDINATOR_NAME;
use tokio::time::timeout;
use tracing::debug;

/// Silence after which the link is dead. The coordinator announces the same.
const IDLE_TIMEOUT_MS: u32 = 30_000;

/// Keep-alives come from this side only: one side is enough to keep both from timing out, and a
/// coordinator with ten thousand links has better things to do.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Requests that the coordinator may have under way on streams of their own.
const STREAMS: u32 = 8;

/// How long a closed connection may take to go quiet. A goodbye that gets lost costs the coordinator an
/// idle timeout and nothing else.
const FAREWELL: Duration = Duration::from_secs(1);

const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// A connection and what it lives on.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) connection: Connection,
    endpoint: Endpoint,
}

impl Dialled {
    /// Says goodbye, and gives it a moment to be said.
    pub(crate) async fn close(self, code: u32, reason: &str) {
        self.connection.close(code.into(), reason.as_bytes());
        if timeout(FAREWELL, self.endpoint.wait_idle()).await.is_err() {
            debug!("goodbye was not confirmed");
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("bind a socket to `{local}`")]
    Bind {
        local: IpAddr,
        #[source]
        source: io::Error,
    },
    #[error("set up QUIC")]
    Crypto(#[from] NoInitialCipherSuite),
    #[error("start to dial")]
    Start(#[from] quinn::ConnectError),
    #[error("connect")]
    Connect(#[from] quinn::ConnectionError),
}

/// Connects. The caller has the deadline; dropping the future abandons the attempt.
pub(crate) async fn dial(
    local: IpAddr,
    coordinator: SocketAddr,
    tls: rustls::ClientConfig,
) -> Result<Dialled, DialError> {
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport()));
    let bind = |source| DialError::Bind { local, source };
    let socket = UdpSocket::bind((local, 0)).map_err(bind)?;
    let endpoint = Endpoint::new(
        EndpointConfig::default(),
        None,
        socket,
        Arc::new(TokioRuntime),
    )
    .map_err(bind)?;
    let connection = endpoint
        .connect_with(config, coordinator, COORDINATOR_NAME)?
        .await?;
    Ok(Dialled {
        connection,
        endpoint,
    })
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS.into())
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(CONNECTION_WINDOW.into())
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT_MS).into()))
        .keep_alive_interval(Some(KEEP_ALIVE));
    transport
}
