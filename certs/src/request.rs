//! An agent's key, and the request by which it asks for a certificate.
//!
//! The key is born on the server and never leaves it. The request's only content of worth is the
//! public key and the proof that its owner holds the private one; the authority writes the rest.

use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateSigningRequestDer, PrivateKeyDer};

/// The largest request that is looked at, in bytes; one with a P-256 key has about 200.
pub const MAX_REQUEST_LEN: usize = 2048;

/// A private key and the request for its certificate.
pub struct AgentKey(KeyPair);

impl std::fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentKey(…)")
    }
}

/// Why a key could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("agent key: {doing}")]
pub struct KeyError {
    doing: &'static str,
    #[source]
    source: rcgen::Error,
}

impl AgentKey {
    /// A new key.
    pub fn generate() -> Result<Self, KeyError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|source| KeyError {
                doing: "generate",
                source,
            })
    }

    /// The key in PKCS#8 PEM, for the identity file.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// Reads [`Self::to_pem`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        KeyPair::from_pem(pem).map(Self).map_err(|source| KeyError {
            doing: "read",
            source,
        })
    }

    /// The request, PKCS#10 in DER.
    pub fn request(&self) -> Result<Vec<u8>, KeyError> {
        CertificateParams::default()
            .serialize_request(&self.0)
            .map(|request| request.der().to_vec())
            .map_err(|source| KeyError {
                doing: "write request",
                source,
            })
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.0.serialize_der().into())
    }
}

/// Why a request is not one that a certificate can be made from.
#[derive(Debug, thiserror::Error)]
pub enum BadRequest {
    #[error("certificate request has {0} bytes, over the ceiling of {MAX_REQUEST_LEN}")]
    TooLong(usize),
    #[error("read certificate request")]
    Unreadable(#[source] rcgen::Error),
    #[error("certificate request's key is not ECDSA P-256")]
    Algorithm,
}

/// A request whose signature is right. Holds nothing of it but the public key.
#[derive(Debug)]
pub struct CheckedRequest {
    pub(crate) public_key: rcgen::PublicKey,
}

impl CheckedRequest {
    /// Reads a request and checks that its sender holds the private key.
    pub fn check(der: &[u8]) -> Result<Self, BadRequest> {
        if der.len() > MAX_REQUEST_LEN {
            return Err(BadRequest::TooLong(der.len()));
        }
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
                .map_err(BadRequest::Unreadable)?;
        if *request.public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Err(BadRequest::Algorithm);
        }
        Ok(Self {
            public_key: request.public_key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_pem() {
        let key = AgentKey::generate().unwrap();
        let again = AgentKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(key.0.public_key_raw(), again.0.public_key_raw());
    }

    #[test]
    fn a_request_with_a_changed_byte_is_refused() {
        let mut request = AgentKey::generate().unwrap().request().unwrap();
        let last = request.len() - 1;
        request[last] ^= 1;
        assert!(matches!(
            CheckedRequest::check(&request),
            Err(BadRequest::Unreadable(_))
        ));
    }

    #[test]
    fn a_request_over_the_ceiling_is_not_parsed() {
        let request = vec![0; MAX_REQUEST_LEN + 1];
        assert!(matches!(
            CheckedRequest::check(&request),
            Err(BadRequest::TooLong(_))
        ));
    }

    #[test]
    fn a_request_with_another_kind_of_key_is_refused() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        assert!(matches!(
            CheckedRequest::check(request.der()),
            Err(BadRequest::Algorithm)
        ));
    }

    #[test]
    fn a_key_is_not_shown_by_debug() {
        assert_eq!(
            format!("{:?}", AgentKey::generate().unwrap()),
            "AgentKey(…)"
        );
    }
}
