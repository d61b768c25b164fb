//! The QUIC endpoint: its limits, its keys, and what a finished handshake proved.
//!
//! The limits are small on purpose. quinn keeps a slot for every stream that a peer is *permitted*, and
//! ten thousand idle links pay for it.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use aws_lc_rs::{hkdf, hmac};
use quinn::{
    Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{HandshakeData, QuicServerConfig},
};
use rustls::pki_types::CertificateDer;
use tidepool_certs::{authority::Authority, leaf::Leaf, tls};
use time::OffsetDateTime;
use tracing::debug;

use super::{BindError, Settings, connection_id::MarkedIds, keys::Keys};
use crate::ambient::Chance;

/// Streams an agent may have open: one for control, the rest for requests.
const STREAMS: u32 = 8;

const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Silence after which a link is dead; agents keep alive every 10 s, so three in a row were lost.
const IDLE_TIMEOUT_MS: u32 = 30_000;

/// Every packet of a connection that a restart ended is told so. quinn takes the time once for all the
/// packets that it finds at its socket, so with any interval only one of them would be answered, and the
/// other agents would go on talking to nobody: with 100 µs the last of ten thousand heard after 30 s.
/// A reset needs no such brake here: it is smaller than what it answers, and it answers only to
/// connection ids that bear our key's mark.
const MIN_RESET_INTERVAL: Duration = Duration::ZERO;

/// Handshakes that wait to be looked at, and what may be buffered for one and for all of them.
const MAX_INCOMING: usize = 4096;
const INCOMING_BUFFER: u64 = 16 * 1024;
const INCOMING_BUFFER_TOTAL: u64 = 16 * 1024 * 1024;

/// Room in the kernel for the packets of a fleet that comes back at once.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Binds the endpoint.
pub(super) fn bind(
    settings: &Settings,
    keys: &Keys,
    authority: &Authority,
    now: OffsetDateTime,
    chance: &Arc<Chance>,
) -> Result<Endpoint, BindError> {
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &keys.reset);
    let ids = MarkedIds::new(keys.connection_id, Arc::clone(chance));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config
        .cid_generator(move || Box::new(ids.clone()))
        .min_reset_interval(MIN_RESET_INTERVAL);
    let server = server_config(settings, keys, authority, now)?;
    let socket = |source| BindError::Socket {
        address: settings.listen,
        source,
    };
    let udp = UdpSocket::bind(settings.listen).map_err(socket)?;
    widen(&udp);
    Endpoint::new(config, Some(server), udp, Arc::new(TokioRuntime)).map_err(socket)
}

/// The server's side of a handshake, with a certificate made now.
pub(super) fn server_config(
    settings: &Settings,
    keys: &Keys,
    authority: &Authority,
    now: OffsetDateTime,
) -> Result<ServerConfig, BindError> {
    let crypto = QuicServerConfig::try_from(tls::server(authority, now)?)?;
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&keys.token);
    let mut config = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
    config
        .transport_config(Arc::new(transport()))
        // An agent's address is part of who it is; it has no reason to move in the middle of a link.
        .migration(false)
        .max_incoming(MAX_INCOMING.min(settings.refuse_above))
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
    Ok(config)
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
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT_MS).into()));
    transport
}

/// Asks for larger buffers. A kernel that gives less is no reason not to start.
fn widen(socket: &UdpSocket) {
    use nix::sys::socket::{setsockopt, sockopt};
    let widened = setsockopt(socket, sockopt::RcvBuf, &SOCKET_BUFFER)
        .and_then(|()| setsockopt(socket, sockopt::SndBuf, &SOCKET_BUFFER));
    if let Err(failure) = widened {
        debug!(error = %failure, "the link socket keeps its usual buffers");
    }
}

/// The protocol that the handshake chose.
pub(super) fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data()?;
    data.downcast::<HandshakeData>().ok()?.protocol
}

/// Whom the handshake proved the peer to be, if it showed a certificate.
pub(super) fn leaf(connection: &Connection) -> Option<Leaf> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Leaf::read(chain.first()?).ok()
}
