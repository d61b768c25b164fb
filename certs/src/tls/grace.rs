//! How an agent's certificate is verified: by the root, and with patience about its end.
//!
//! Certificates live for a day and are renewed over the link. If the coordinator is down for longer than
//! that, every certificate has ended by the time it is back, and a strict check would lock out every
//! server at once, for ever. So a certificate that ended less than [`GRACE`] ago still opens a link: what
//! decides about a server's right is its row in the store, read at each handshake, and the agent's first
//! act on the link is to renew.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::TlsError;
use crate::leaf::Leaf;

/// How long after its end a certificate still opens a link.
pub const GRACE: Duration = Duration::from_hours(7 * 24);

/// A verifier to which a certificate is optional, but right if it is shown.
pub(super) fn verifier(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let strict = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)?;
    Ok(Arc::new(Patient(strict)))
}

#[derive(Debug)]
struct Patient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Patient {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verdict = self.0.verify_client_cert(end_entity, intermediates, now);
        let Err(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) = verdict
        else {
            return verdict;
        };
        // Everything is checked again, as of the certificate's last second.
        match last_second(end_entity) {
            Some(end) if now.as_secs().saturating_sub(end.as_secs()) <= GRACE.as_secs() => {
                self.0.verify_client_cert(end_entity, intermediates, end)
            }
            _ => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn last_second(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let end = Leaf::read(certificate).ok()?.life.ends.unix_timestamp();
    let end = u64::try_from(end).ok()?.checked_sub(1)?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(end)))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
