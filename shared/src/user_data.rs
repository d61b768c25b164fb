//! What a new server is told by the cloud at its creation: enough to enrol, once, and no more.
//!
//! User data can be read by every process on a server for as long as it lives, and the cloud keeps
//! it. The token in it is single-use, lives for minutes and is bound to this server's id and address.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{admission::Admission, id::ServerId};

/// User data, as JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserData {
    pub server: ServerId,
    /// 256 bit in hexadecimal.
    pub enrolment_token: String,
    /// Where the link is dialled.
    pub coordinators: Coordinators,
    /// The root certificate that the coordinator's chain must end in, PEM.
    pub ca: String,
    /// Base URL of the LLM proxy as reached from the server, without a path.
    pub proxy: String,
    /// Who may reach this server; nobody, where it has a packet filter and is not told. The cloud's client
    /// fills it in, from what it makes the cloud's firewall of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,
}

impl fmt::Debug for UserData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserData")
            .field("server", &self.server)
            .field("coordinators", &self.coordinators)
            .finish_non_exhaustive()
    }
}

/// Where coordinators listen for links (UDP): at least one, all of one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<SocketAddr>", into = "Vec<SocketAddr>")]
pub struct Coordinators {
    first: SocketAddr,
    others: Vec<SocketAddr>,
}

/// A list of coordinators without one in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no coordinator is named")]
pub struct NoCoordinator;

impl Coordinators {
    /// The one to dial at the attempt of this number: each in turn.
    pub fn at(&self, attempt: usize) -> SocketAddr {
        match attempt % (self.others.len() + 1) {
            0 => self.first,
            other => self.others.get(other - 1).copied().unwrap_or(self.first),
        }
    }
}

impl From<SocketAddr> for Coordinators {
    fn from(only: SocketAddr) -> Self {
        Self {
            first: only,
            others: Vec::new(),
        }
    }
}

impl TryFrom<Vec<SocketAddr>> for Coordinators {
    type Error = NoCoordinator;

    fn try_from(all: Vec<SocketAddr>) -> Result<Self, NoCoordinator> {
        let mut all = all.into_iter();
        Ok(Self {
            first: all.next().ok_or(NoCoordinator)?,
            others: all.collect(),
        })
    }
}

impl From<Coordinators> for Vec<SocketAddr> {
    fn from(all: Coordinators) -> Self {
        std::iter::once(all.first).chain(all.others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinators_are_dialled_in_turn() {
        let all: Vec<SocketAddr> = vec![([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 1).into()];
        let coordinators = Coordinators::try_from(all.clone()).unwrap();
        let dialled: Vec<_> = (0..4).map(|attempt| coordinators.at(attempt)).collect();
        assert_eq!(dialled, [all[0], all[1], all[0], all[1]]);
        assert_eq!(Coordinators::try_from(Vec::new()), Err(NoCoordinator));
        assert!(serde_json::from_str::<Coordinators>("[]").is_err());
    }
}
