//! Tidepool's own certificate authority, and the TLS of both ends of the link.
//!
//! A root signs one issuing authority; that one signs the coordinator's server certificate and a leaf
//! for every agent. Agents know only the root (it comes with their user data), so the issuing authority
//! can be replaced without touching a server. Leaves live for a day and are renewed at half of it; what
//! ends an agent's right at once is the store's row, which the coordinator reads at every handshake.
//!
//! On the way from an edge to a server's nginx two more kinds meet ([`door`]): the server shows a
//! certificate that is good for nothing else, and so does the edge. No kind passes for another.
//!
//! Time is passed in wherever a certificate is made. Keys are ECDSA P-256 throughout: the one curve
//! that rustls, X.509 tools and every TLS stack agree on without asking.

pub mod authority;
pub mod door;
pub mod leaf;
pub mod pem;
pub mod release;
pub mod renewal;
pub mod request;
pub mod sealed;
pub mod secret_file;
pub mod tls;

/// The name in the coordinator's certificate. Agents dial an address but check this name, so that the
/// coordinator may move.
pub const COORDINATOR_NAME: &str = "coordinator.tidepool.internal";
