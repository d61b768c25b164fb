//! Enrolment: the token from user data is spent, once, for a first certificate.
//!
//! The coordinator may not know this server's address yet when the first attempt arrives, or may be
//! away; both pass, so the attempt is repeated, with full jitter, until [`Settings::give_up_after`]. A plain
//! refusal ends it: the token is spent or wrong and stays so. Should the answer to a spent token get
//! lost, this server never becomes warm and is replaced; a second spending is not the remedy, because
//! that is exactly what a thief of the token would ask for.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tidepool_certs::{
    request::{AgentKey, KeyError},
    tls::{self, TlsError},
};
use tidepool_shared::{
    capability::{self, close},
    frame::Kind,
    message::{Enrol, Issued, Refused},
    user_data::UserData,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    identity::{Identity, IdentityError},
    link::{
        Backoff, DialError, chain_of, dial, error_chain,
        wire::{self, FrameReader, WireError},
    },
};

/// How enrolment goes about it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the identity is kept.
    pub identity_dir: PathBuf,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The address to dial from: the server's own, to which the token is bound.
    pub local: IpAddr,
    /// The image manifest as JSON.
    pub manifest: String,
    /// From the first packet of an attempt to its answer.
    pub deadline: Duration,
    pub backoff: Backoff,
    /// The token's life and a little more: after that no attempt can succeed.
    pub give_up_after: Duration,
}

/// Why this server has no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("coordinator refused enrolment: {0}")]
    Refused(String),
    #[error("no enrolment within {} s", .0.as_secs())]
    GaveUp(Duration),
    #[error("user data holds no readable root certificate")]
    Root,
    #[error("make a key")]
    Key(#[from] KeyError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("enrolment was cancelled")]
    Cancelled,
}

/// Why one attempt failed; another may succeed.
#[derive(Debug, thiserror::Error)]
enum Passing {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("open stream")]
    Stream(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("no answer in time")]
    Late,
    #[error("coordinator is not ready: {0}")]
    NotReady(String),
    #[error("answer is of kind {0}")]
    Kind(u16),
}

/// The root certificate in user data.
pub fn root(user_data: &UserData) -> Result<CertificateDer<'static>, EnrolError> {
    CertificateDer::from_pem_slice(user_data.ca.as_bytes()).map_err(|_| EnrolError::Root)
}

/// The identity on disk, or a new one by enrolment, which is then on disk.
pub async fn ensure(
    settings: &Settings,
    user_data: &UserData,
    cancel: &CancellationToken,
) -> Result<Identity, EnrolError> {
    let dir = &settings.identity_dir;
    if let Some(identity) = Identity::load(dir, user_data.server, &settings.machine_id)? {
        return Ok(identity);
    }
    let enrolled = async {
        timeout(settings.give_up_after, attempts(settings, user_data))
            .await
            .map_err(|_| EnrolError::GaveUp(settings.give_up_after))?
    };
    let identity = tokio::select! {
        enrolled = enrolled => enrolled?,
        () = cancel.cancelled() => return Err(EnrolError::Cancelled),
    };
    identity.save(dir)?;
    info!(server.id = %identity.server, "enrolled");
    Ok(identity)
}

async fn attempts(settings: &Settings, user_data: &UserData) -> Result<Identity, EnrolError> {
    let root = root(user_data)?;
    let key = AgentKey::generate()?;
    let request = Enrol {
        capability: capability::CURRENT,
        server: user_data.server.to_string(),
        token: user_data.enrolment_token.clone(),
        csr: key.request()?,
        manifest: settings.manifest.clone(),
    };
    let mut failures = 0;
    for coordinator in (0..).map(|attempt| user_data.coordinators.at(attempt)) {
        let tls = tls::client_enrol(&root)?;
        let attempt = timeout(
            settings.deadline,
            attempt(settings, coordinator, tls, &request),
        );
        let failure = match attempt.await {
            Ok(Ok(Answer::Issued(issued))) => {
                let machine_id = settings.machine_id.clone();
                let chain = chain_of(issued);
                return Ok(Identity::new(user_data.server, machine_id, key, chain)?);
            }
            Ok(Ok(Answer::Refused(reason))) => return Err(EnrolError::Refused(reason)),
            Ok(Err(failure)) => failure,
            Err(_) => Passing::Late,
        };
        let wait = settings.backoff.wait(failures);
        failures = failures.saturating_add(1);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        warn!(error = %error_chain(&failure), wait_ms, "not enrolled yet");
        sleep(wait).await;
    }
    Err(EnrolError::GaveUp(settings.give_up_after))
}

/// An answer that ends enrolment.
enum Answer {
    Issued(Issued),
    Refused(String),
}

async fn attempt(
    settings: &Settings,
    coordinator: SocketAddr,
    tls: rustls::ClientConfig,
    request: &Enrol,
) -> Result<Answer, Passing> {
    let dialled = dial(settings.local, coordinator, tls).await?;
    let (mut send, recv) = dialled.connection.open_bi().await?;
    wire::write(&mut send, request).await?;
    drop(send.finish());
    let frame = FrameReader::new(recv).answer().await?;
    dialled.close(close::GOODBYE, "enrolled").await;
    match frame.kind {
        Kind::ISSUED => Ok(Answer::Issued(frame.message().map_err(WireError::from)?)),
        Kind::REFUSED => {
            let Refused { reason, retry } = frame.message().map_err(WireError::from)?;
            if retry {
                Err(Passing::NotReady(reason))
            } else {
                Ok(Answer::Refused(reason))
            }
        }
        Kind(other) => Err(Passing::Kind(other)),
    }
}
