//! Customers' own host names.

use tidepool_shared::id::InstanceId;

use super::DomainState;
use crate::ambient::Moment;

/// A name that a customer says is theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// In the form that DNS knows, lower case.
    pub name: String,
    pub instance: InstanceId,
    /// What a TXT record must say; no secret.
    pub token: String,
    pub state: DomainState,
    /// Why it is no further, for people.
    pub problem: Option<String>,
    /// Looks in a row that brought nothing.
    pub attempts: u32,
    pub created_at: Moment,
    pub state_since: Moment,
    /// Since when it does not lead here although it did.
    pub failing_since: Option<Moment>,
    /// `None`: nobody looks any more.
    pub next_check_at: Option<Moment>,
    pub certificate: Option<Validity>,
}

/// From when until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub issued_at: Moment,
    pub expires_at: Moment,
}

/// A domain's next state, from the one that it was seen in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainStep {
    pub name: String,
    pub instance: InstanceId,
    pub from: DomainState,
    pub to: DomainState,
    pub problem: Option<String>,
    pub attempts: u32,
    pub failing_since: Option<Moment>,
    pub next_check_at: Option<Moment>,
    /// Kinds, such as `domain.active`.
    pub events: Vec<&'static str>,
}

/// A certificate and its key. `Debug` does not show the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    pub name: String,
    pub instance: InstanceId,
    /// Its own first, PEM.
    pub chain: String,
    pub sealed_key: Vec<u8>,
    pub validity: Validity,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("name", &self.name)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// Which certificate of a name is the present one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateMark {
    pub name: String,
    pub instance: InstanceId,
    pub issued_at: Moment,
}
