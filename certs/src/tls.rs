//! The rustls configurations of both ends: TLS 1.3 only, one provider, our root and no other.
//!
//! One endpoint of the coordinator serves two protocols: enrolment, whose peers have no certificate yet,
//! and the link, whose peers must have one. TLS chooses the certificate rule before it knows the protocol,
//! so the certificate is optional here and *whoever accepts a connection must refuse a link peer without
//! one before it reads a stream*; a certificate that is shown is always verified, on either protocol.
//!
//! There are no session tickets: a resumed session would carry an old certificate past its end, and
//! ten thousand full handshakes cost seconds.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::CertificateDer,
    server::NoServerSessionStorage,
    version::TLS13,
};
use tidepool_shared::capability::{ALPN_ENROL, ALPN_LINK};
use time::OffsetDateTime;

use crate::{
    authority::{Authority, Chain, IssueError},
    request::AgentKey,
};

mod grace;

pub use grace::GRACE;

/// Why a TLS configuration was not made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("make the coordinator's certificate")]
    Certificate(#[from] IssueError),
    #[error("set up TLS")]
    Setup(#[source] rustls::Error),
    #[error("set up the check of agents' certificates")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// The coordinator's end, for both protocols, with a certificate made now.
pub fn server(authority: &Authority, now: OffsetDateTime) -> Result<ServerConfig, TlsError> {
    let (chain, key) = authority.coordinator(now)?;
    let verifier = grace::verifier(roots(authority.root())?, provider())?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::Setup)?;
    config.alpn_protocols = vec![ALPN_LINK.to_vec(), ALPN_ENROL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// An agent's end of the link.
pub fn client_link(
    root: &CertificateDer<'static>,
    chain: Chain,
    key: &AgentKey,
) -> Result<ClientConfig, TlsError> {
    let config = client(root)?
        .with_client_auth_cert(chain, key.private_key())
        .map_err(TlsError::Setup)?;
    Ok(speaking(config, ALPN_LINK))
}

/// A server's end of enrolment.
pub fn client_enrol(root: &CertificateDer<'static>) -> Result<ClientConfig, TlsError> {
    Ok(speaking(client(root)?.with_no_client_auth(), ALPN_ENROL))
}

fn client(
    root: &CertificateDer<'static>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots(root)?))
}

fn speaking(mut config: ClientConfig, protocol: &[u8]) -> ClientConfig {
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

pub(crate) fn roots(root: &CertificateDer<'static>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).map_err(TlsError::Setup)?;
    Ok(roots)
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
