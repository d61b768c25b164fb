//! Where a sealed key is kept: the coordinator seals it for that place, and it opens for no other. Providers'
//! keys are opened by the proxy, those of domains by the edge.

use std::fmt;

/// Where something sealed is kept. Its words are what it is sealed for, so they are stored for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealedPlace {
    /// The operator's key at a provider.
    Provider(String),
    /// A customer's own.
    CustomerKey { instance: String, provider: String },
    /// Of the certificate of a customer's own host name.
    DomainKey { instance: String, name: String },
    /// Our account at the certificate authority whose directory this is.
    AcmeAccount(String),
}

impl fmt::Display for SealedPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(name) => write!(formatter, "provider/{name}"),
            Self::CustomerKey { instance, provider } => {
                write!(formatter, "instance/{instance}/provider/{provider}")
            }
            Self::DomainKey { instance, name } => {
                write!(formatter, "instance/{instance}/domain/{name}")
            }
            Self::AcmeAccount(directory) => write!(formatter, "acme/{directory}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_today_opens_tomorrow() {
        let ours = SealedPlace::Provider("openai".into());
        assert_eq!(ours.to_string(), "provider/openai");
        let theirs = SealedPlace::CustomerKey {
            instance: "inst_1".into(),
            provider: "openai".into(),
        };
        assert_eq!(theirs.to_string(), "instance/inst_1/provider/openai");
        let domain = SealedPlace::DomainKey {
            instance: "inst_1".into(),
            name: "chat.example".into(),
        };
        assert_eq!(domain.to_string(), "instance/inst_1/domain/chat.example");
        let account = SealedPlace::AcmeAccount("https://ca.example/dir".into());
        assert_eq!(account.to_string(), "acme/https://ca.example/dir");
    }
}
