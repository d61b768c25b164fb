//! Renewal: the next certificate, asked for over the live link on a stream of its own.
//!
//! With every certificate comes a new key. Both are on disk before they count; they are used by the next
//! connection, so a renewal moves no link.

use std::time::Duration;

use quinn::Connection;
use rustls::pki_types::CertificateDer;
use tidepool_certs::{
    renewal,
    request::{AgentKey, KeyError},
};
use tidepool_shared::{
    frame::Kind,
    id::ServerId,
    message::{Issued, Refused, Renew},
};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::wire::{self, FrameReader, WireError};
use crate::identity::{Identity, IdentityError};

/// How long a renewal may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// The most certificates that a chain may have.
const MAX_CHAIN: usize = 4;

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    #[error("make a key")]
    Key(#[from] KeyError),
    #[error("open a stream")]
    Open(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("refused: {0}")]
    Refused(String),
    #[error("no answer in time")]
    Late,
    #[error("answer is of kind {0}")]
    Kind(u16),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// How long from now until renewal is due.
pub(super) fn due_in(identity: &Identity, chance: u32) -> Duration {
    let left = renewal::due(&identity.leaf, chance) - now();
    Duration::try_from(left).unwrap_or(Duration::ZERO)
}

/// Whether less than a quarter of the certificate's life is left: a person should know.
pub(super) fn is_late(identity: &Identity) -> bool {
    let leaf = &identity.leaf;
    leaf.not_after - now() < (leaf.not_after - leaf.not_before) / 4
}

/// Asks for a certificate and gives the identity with it, not saved yet.
pub(super) async fn ask(
    connection: Connection,
    server: ServerId,
    machine_id: String,
) -> Result<Identity, RenewError> {
    let key = AgentKey::generate()?;
    let csr = key.request()?;
    let exchange = async {
        let (mut send, recv) = connection.open_bi().await?;
        wire::write(&mut send, &Renew { csr }).await?;
        drop(send.finish());
        Ok::<_, RenewError>(FrameReader::new(recv).answer().await?)
    };
    let frame = timeout(DEADLINE, exchange)
        .await
        .map_err(|_| RenewError::Late)??;
    match frame.kind {
        Kind::ISSUED => {
            let issued: Issued = frame.message().map_err(WireError::from)?;
            Ok(Identity::new(server, machine_id, key, chain(issued))?)
        }
        Kind::REFUSED => {
            let refused: Refused = frame.message().map_err(WireError::from)?;
            Err(RenewError::Refused(refused.reason))
        }
        Kind(other) => Err(RenewError::Kind(other)),
    }
}

/// The certificates of an answer, bounded.
pub(crate) fn chain(issued: Issued) -> Vec<CertificateDer<'static>> {
    issued
        .chain
        .into_iter()
        .take(MAX_CHAIN)
        .map(|der| CertificateDer::from(Vec::from(der)))
        .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates are judged by the machine's own calendar"
)]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
