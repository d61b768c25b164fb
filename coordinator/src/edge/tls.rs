//! TLS for customers' own names, ended here by their own certificates.
//!
//! A connection is of the one name that it began with: a request for another is refused, whatever the
//! certificate would cover. HTTP/1.1 only, like the rest of the edge.

use std::{net::IpAddr, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Inner,
    certificates::Certificates,
    handle::Connection,
    host,
    proxied::{self, NotProxied},
    serve::Door,
};

/// From the first byte to the last of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why a connection is closed before its first request.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotOpened {
    #[error("who connects is not known")]
    Proxied(#[from] NotProxied),
    #[error("one connection too many of one address")]
    TooMany,
    #[error("shake hands")]
    Handshake(#[source] std::io::Error),
    #[error("no handshake in time")]
    TooSlow(#[source] tokio::time::error::Elapsed),
    #[error("it names nobody")]
    Nameless,
}

/// A door that shows these certificates, each to whoever asks for its name.
pub(super) fn door(certificates: &Arc<Certificates>) -> Result<Door, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let resolver = Arc::clone(certificates);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Door::Tls(TlsAcceptor::from(Arc::new(config))))
}

/// Finds out who connects and for which name.
pub(super) async fn open(
    inner: &Inner,
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    connection: Connection,
) -> Result<(TlsStream<TcpStream>, Connection), NotOpened> {
    timeout(HANDSHAKE, shake_hands(inner, acceptor, stream, connection))
        .await
        .map_err(NotOpened::TooSlow)?
}

async fn shake_hands(
    inner: &Inner,
    acceptor: &TlsAcceptor,
    mut stream: TcpStream,
    mut connection: Connection,
) -> Result<(TlsStream<TcpStream>, Connection), NotOpened> {
    if inner.settings.trusted_hops.has(connection.peer)
        && let Some(visitor) = proxied::read(&mut stream).await?
    {
        connection = passed_on(inner, connection, visitor).ok_or(NotOpened::TooMany)?;
    }
    let stream = acceptor.accept(stream).await;
    let stream = stream.map_err(NotOpened::Handshake)?;
    let name = stream.get_ref().1.server_name();
    let name = name.and_then(host::canonical).ok_or(NotOpened::Nameless)?;
    connection.name = Some(name.into());
    Ok((stream, connection))
}

/// The visitor's, instead of the hop's, with a place of the visitor's own.
fn passed_on(inner: &Inner, connection: Connection, visitor: IpAddr) -> Option<Connection> {
    let place = Arc::into_inner(connection.place)?;
    Some(Connection {
        peer: visitor,
        place: Arc::new(inner.places.passed_on(place, visitor)?),
        ..connection
    })
}
