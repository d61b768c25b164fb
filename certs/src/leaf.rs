//! What a peer's certificate says: which server it is, and which certificate.

use rustls::pki_types::CertificateDer;
use tidepool_shared::id::ServerId;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::renewal::Life;

/// What every agent's certificate names, followed by the server's id.
pub(crate) const URI_PREFIX: &str = "tidepool://server/";

/// An agent's certificate, read. It is proved elsewhere: rustls checked the chain and the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    pub server: ServerId,
    /// Lower-case hexadecimal.
    pub serial: String,
    pub life: Life,
}

/// Why a certificate is not an agent's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAgent {
    #[error("certificate is malformed")]
    Malformed,
    #[error("certificate names no server")]
    NoServer,
}

impl Leaf {
    /// Reads the first certificate of a peer's chain.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, NotAnAgent> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| NotAnAgent::Malformed)?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|_| NotAnAgent::Malformed)?
            .ok_or(NotAnAgent::NoServer)?;
        // Exactly one name: a certificate of ours never has another, and a second would be a choice.
        let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
            return Err(NotAnAgent::NoServer);
        };
        let server = uri
            .strip_prefix(URI_PREFIX)
            .and_then(|id| id.parse().ok())
            .ok_or(NotAnAgent::NoServer)?;
        Ok(Self {
            server,
            serial: format!("{:x}", parsed.serial),
            life: life_of(&parsed),
        })
    }
}

pub(crate) fn life_of(certificate: &X509Certificate<'_>) -> Life {
    let validity = certificate.validity();
    Life {
        begins: validity.not_before.to_datetime(),
        ends: validity.not_after.to_datetime(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        let der = CertificateDer::from(b"nothing".as_slice());
        assert_eq!(Leaf::read(&der), Err(NotAnAgent::Malformed));
    }

    #[test]
    fn a_certificate_without_a_server_is_refused() {
        let made = rcgen::generate_simple_self_signed(vec!["elsewhere.example".into()]).unwrap();
        assert_eq!(Leaf::read(made.cert.der()), Err(NotAnAgent::NoServer));
    }
}
