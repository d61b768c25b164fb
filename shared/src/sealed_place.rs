//! Where a sealed key is kept: the coordinator seals it for that place, and the proxy opens it for no other.

use std::fmt;

/// Where something sealed is kept. Its words are what it is sealed for, so they are stored for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealedPlace {
    /// The operator's key at a provider.
    Provider(String),
    /// A customer's own.
    CustomerKey { instance: String, provider: String },
}

impl fmt::Display for SealedPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(name) => write!(formatter, "provider/{name}"),
            Self::CustomerKey { instance, provider } => {
                write!(formatter, "instance/{instance}/provider/{provider}")
            }
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
    }
}
