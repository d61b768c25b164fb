//! One question to nginx, by the path that a request takes: a new connection, the instance's name.

use std::{io, net::SocketAddr, time::Duration};

use crate::plain_http::{self, Answer, Bounds};

/// Where nginx says which configuration it runs.
const PATH: &str = "/.well-known/tidepool/serving";
/// A question on the same machine that takes longer is asked again.
const BOUNDS: Bounds = Bounds {
    patience: Duration::from_secs(1),
    bytes: 8 * 1024,
};

/// Asks which configuration answers to this name.
pub(super) async fn serving(at: SocketAddr, host: &str, proof: Option<&str>) -> io::Result<Answer> {
    let proof = proof.map_or_else(String::new, |proof| {
        format!("X-Tidepool-Proof: {proof}\r\n")
    });
    plain_http::get(at, PATH, &format!("Host: {host}\r\n{proof}"), BOUNDS).await
}
