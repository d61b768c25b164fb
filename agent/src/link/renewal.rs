//! Renewal: the next certificate, the link's or the door's, asked for over the live link on a stream of its own.
//!
//! With every certificate comes a new key. Both are on disk before they count; they are used by the next
//! connection, so a renewal moves no link and cuts no visitor.

use std::time::Duration;

use quinn::Connection;
use rustls::pki_types::CertificateDer;
use tidepool_certs::{
    renewal::Life,
    request::{AgentKey, KeyError},
};
use tidepool_shared::{
    frame::{Kind, Message},
    id::ServerId,
    message::{self, Issued, Refused, Renew},
};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::wire::{self, FrameReader, WireError};
use crate::{
    door::{Door, DoorError},
    identity::{Identity, IdentityError},
};

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
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error("write it down")]
    Cut,
}

/// How long from now until renewal is due.
pub(super) fn due_in(life: Life, chance: u32) -> Duration {
    Duration::try_from(life.due(chance) - now()).unwrap_or(Duration::ZERO)
}

/// Whether a person should know that there is no new one yet.
pub(super) fn is_late(life: Life) -> bool {
    life.is_late(now())
}

/// Asks for a certificate and gives the identity with it, not saved yet.
pub(super) async fn ask(
    connection: Connection,
    server: ServerId,
    machine_id: String,
) -> Result<Identity, RenewError> {
    let key = AgentKey::generate()?;
    let csr = key.request()?;
    let chain = exchange(connection, &Renew { csr }).await?;
    Ok(Identity::new(server, machine_id, key, chain)?)
}

/// Asks for the door's certificate, which is not saved yet.
pub(super) async fn ask_for_door(
    connection: Connection,
    server: ServerId,
) -> Result<Door, RenewError> {
    let key = AgentKey::generate()?;
    let csr = key.request()?;
    let chain = exchange(connection, &message::Door { csr }).await?;
    Ok(Door::new(server, &key, &chain)?)
}

async fn exchange(
    connection: Connection,
    request: &impl Message,
) -> Result<Vec<CertificateDer<'static>>, RenewError> {
    let exchange = async {
        let (mut send, recv) = connection.open_bi().await?;
        wire::write(&mut send, request).await?;
        drop(send.finish());
        Ok::<_, RenewError>(FrameReader::new(recv).answer().await?)
    };
    let frame = timeout(DEADLINE, exchange)
        .await
        .map_err(|_| RenewError::Late)??;
    match frame.kind {
        Kind::ISSUED => Ok(chain(frame.message().map_err(WireError::from)?)),
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
