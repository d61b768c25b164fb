//! One call: what is asked, and the ways in which it can fail.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{super::Fault, code::Meaning};

/// A call to be made. Deliberately without `Debug`: a body may hold user data.
pub(super) struct Call {
    pub(super) method: Method,
    /// Below the endpoint, such as `servers/42`.
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Vec<u8>>,
}

impl Call {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::bare(Method::GET, path.into())
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::bare(Method::DELETE, path.into())
    }

    pub(super) fn post(path: impl Into<String>, body: &impl Serialize) -> Result<Self, CallFailed> {
        Self::bare(Method::POST, path.into()).with_body(body)
    }

    pub(super) fn put(path: impl Into<String>, body: &impl Serialize) -> Result<Self, CallFailed> {
        Self::bare(Method::PUT, path.into()).with_body(body)
    }

    #[must_use]
    pub(super) fn with(mut self, key: &'static str, value: &(impl ToString + ?Sized)) -> Self {
        self.query.push((key, value.to_string()));
        self
    }

    fn bare(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
        }
    }

    fn with_body(mut self, body: &impl Serialize) -> Result<Self, CallFailed> {
        self.body =
            Some(serde_json::to_vec(body).map_err(|error| CallFailed::Unsendable(error.into()))?);
        Ok(self)
    }
}

/// A good answer. Deliberately without `Debug`: the body may hold a root password.
pub(super) struct Answer {
    /// Null if the body was empty.
    pub(super) body: Value,
    pub(super) correlation: Correlation,
}

impl Answer {
    /// One member of the body, as what it should be.
    pub(super) fn part<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
    ) -> Result<T, CallFailed> {
        let value = self.body.get_mut(name).map_or(Value::Null, Value::take);
        serde_json::from_value(value).map_err(|source| CallFailed::Garbled {
            what: name,
            correlation: self.correlation.clone(),
            source,
        })
    }
}

/// By which Hetzner finds a call again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Correlation(pub(super) Option<String>);

impl std::fmt::Display for Correlation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("unknown"))
    }
}

/// Why a call has no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallFailed {
    #[error("write the request")]
    Unsendable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing was sent.
    #[error("reach the API")]
    NotReached(#[source] reqwest::Error),
    #[error("the connection was lost before the answer was whole")]
    Lost(#[source] Option<reqwest::Error>),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("refused with {status} `{code}`: {message} (correlation id {correlation})")]
    Refused {
        status: StatusCode,
        code: String,
        message: String,
        correlation: Correlation,
    },
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("`{what}` in the answer is not understood (correlation id {correlation})")]
    Garbled {
        what: &'static str,
        correlation: Correlation,
        #[source]
        source: serde_json::Error,
    },
    #[error("the list of {0} changed while it was read")]
    Shifted(&'static str),
}

impl CallFailed {
    /// By the table, if Hetzner said something.
    pub(super) fn meaning(&self) -> Option<Meaning> {
        match self {
            Self::Refused { status, code, .. } => Some(Meaning::of(*status, code)),
            Self::Unsendable(_)
            | Self::NotReached(_)
            | Self::Lost(_)
            | Self::TimedOut(_)
            | Self::TooLong(_)
            | Self::Garbled { .. }
            | Self::Shifted(_) => None,
        }
    }

    pub(super) fn means(&self, meaning: Meaning) -> bool {
        self.meaning() == Some(meaning)
    }

    /// Whether what was asked may have happened all the same.
    pub(super) fn leaves_it_open(&self) -> bool {
        match self {
            Self::Refused { .. } => self.means(Meaning::Outage),
            Self::Lost(_) | Self::TimedOut(_) | Self::TooLong(_) | Self::Garbled { .. } => true,
            Self::Unsendable(_) | Self::NotReached(_) | Self::Shifted(_) => false,
        }
    }

    /// Whether it certainly did not happen, and may the next time.
    pub(super) fn did_nothing_yet(&self) -> bool {
        match self.meaning() {
            Some(meaning) => meaning.did_nothing_yet(),
            None => matches!(self, Self::NotReached(_)),
        }
    }

    /// How many times a call that can do no harm twice is sent again.
    pub(super) fn resends(&self) -> u32 {
        match self {
            Self::Refused { status, code, .. } => Meaning::of(*status, code).resends(),
            Self::NotReached(_) | Self::Lost(_) | Self::TimedOut(_) => 5,
            Self::Unsendable(_) | Self::TooLong(_) | Self::Garbled { .. } | Self::Shifted(_) => 0,
        }
    }

    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Refused { status, code, .. } => Meaning::of(*status, code).fault(),
            Self::NotReached(_) | Self::Shifted(_) => Fault::Busy,
            Self::Lost(_) | Self::TimedOut(_) | Self::TooLong(_) | Self::Garbled { .. } => {
                Fault::Unknown
            }
            Self::Unsendable(_) => Fault::Invalid,
        }
    }
}
