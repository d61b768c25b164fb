//! What a new server is told by the cloud at its creation: enough to enrol, once, and no more.
//!
//! User data can be read by every process on a server for as long as it lives, and the cloud keeps
//! it. The token in it is single-use, lives for minutes and is bound to this server's id and address.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::id::ServerId;

/// User data, as JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserData {
    pub server: ServerId,
    /// 256 bit in hexadecimal.
    pub enrolment_token: String,
    /// Where the link is dialled (UDP).
    pub coordinator: SocketAddr,
    /// The root certificate that the coordinator's chain must end in, PEM.
    pub ca: String,
    /// Base URL of the LLM proxy as reached from the server, without a path.
    pub proxy: String,
}

impl fmt::Debug for UserData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserData")
            .field("server", &self.server)
            .field("coordinator", &self.coordinator)
            .finish_non_exhaustive()
    }
}
