//! A server's door: what its nginx shows to edges, and what edges show to it.
//!
//! Both are of the one authority, so what tells them from its other certificates is what they are for. A
//! door's is for a server's end of TLS, and names all doors' common name, which is enough for a Traefik, and
//! its own, by which an edge of ours knows this very server from another one's stolen key. An edge's has a
//! subject that no server's certificate can have (the authority writes it), and names nothing.
//!
//! Way not taken: the agent's own certificate with one more name and use. An agent of before refuses a
//! certificate with a second name, and then the fleet's links end; nginx would hold the key of the link.

use std::sync::{Arc, PoisonError, RwLock};

use rcgen::KeyPair;
use rustls::{
    ClientConfig, SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
    version::TLS13,
};
use tidepool_shared::id::ServerId;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::{
    authority::{Authority, Chain, IssueError},
    leaf::life_of,
    pem,
    renewal::Life,
    tls::{self, TlsError},
};

/// The name in the certificate of every server's door.
pub const SERVERS_NAME: &str = "server.tidepool.internal";

/// The subject of an edge's certificate, by which nginx knows it.
pub const EDGE: &str = "Tidepool edge";

/// The name that only this server's door has.
pub fn name_of(server: ServerId) -> String {
    let id = server.to_string();
    let id = id.rsplit('_').next().unwrap_or_default();
    format!("s{id}.{SERVERS_NAME}")
}

/// A door's certificate, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorLeaf {
    /// Lower-case hexadecimal.
    pub serial: String,
    pub life: Life,
}

/// A certificate is not that of this server's door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("certificate is not for this server's door")]
pub struct NotThisDoor;

impl DoorLeaf {
    /// Reads the first certificate of a chain.
    pub fn read(certificate: &CertificateDer<'_>, server: ServerId) -> Result<Self, NotThisDoor> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| NotThisDoor)?;
        let own = name_of(server);
        let names = parsed.subject_alternative_name().map_err(|_| NotThisDoor)?;
        let is_own =
            |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(name) if *name == own);
        let names = names.ok_or(NotThisDoor)?;
        if !names.value.general_names.iter().any(is_own) {
            return Err(NotThisDoor);
        }
        Ok(Self {
            serial: format!("{:x}", parsed.serial),
            life: life_of(&parsed),
        })
    }
}

/// An edge's certificate and key.
pub struct Edge {
    pub(crate) chain: Chain,
    pub(crate) key: KeyPair,
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Edge(…)")
    }
}

impl Edge {
    /// Leaf first, then the issuing authority.
    pub fn chain_pem(&self) -> String {
        pem::of_chain(&self.chain)
    }

    /// PKCS#8; a secret.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    fn certified(self) -> Result<CertifiedKey, TlsError> {
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        CertifiedKey::from_der(self.chain, key, &tls::provider()).map_err(TlsError::Setup)
    }
}

/// How long the certificate of an edge in the coordinator's process lives. It is made anew every day.
const CREDENTIAL_LIFE: std::time::Duration = std::time::Duration::from_hours(30 * 24);

/// What an edge in this process shows: made from the authority, and replaced while connections are made.
#[derive(Debug)]
pub struct Credential {
    authority: Arc<Authority>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Credential {
    pub fn new(authority: Arc<Authority>, now: OffsetDateTime) -> Result<Arc<Self>, TlsError> {
        let made = Self::make(&authority, now)?;
        Ok(Arc::new(Self {
            authority,
            current: RwLock::new(made),
        }))
    }

    /// Makes another one, for connections from now on.
    pub fn renew(&self, now: OffsetDateTime) -> Result<(), TlsError> {
        let made = Self::make(&self.authority, now)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(())
    }

    /// An edge's end of its way to servers. The name to check is the connection's ([`name_of`]).
    ///
    /// No session is resumed: it would carry a certificate past its end, and connections are kept.
    pub fn client(self: &Arc<Self>) -> Result<ClientConfig, TlsError> {
        let mut config = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Setup)?
            .with_root_certificates(tls::roots(self.authority.root())?)
            .with_client_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesClientCert>);
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    fn make(authority: &Authority, now: OffsetDateTime) -> Result<Arc<CertifiedKey>, TlsError> {
        let edge: Result<Edge, IssueError> = authority.edge(CREDENTIAL_LIFE, now);
        Ok(Arc::new(edge?.certified()?))
    }
}

impl ResolvesClientCert for Credential {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let current = Arc::clone(&current);
        current.key.choose_scheme(schemes)?;
        Some(current)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[path = "door/tests.rs"]
mod tests;
