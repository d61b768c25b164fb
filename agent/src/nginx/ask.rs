//! One question to nginx, by a new connection: which configuration it runs.
//!
//! The door is for edges only, so this goes to the model relay, whose path is a secret. All of nginx's ports
//! belong to the same worker: what answers here answers there.

use std::{io, time::Duration};

use super::Site;
use crate::plain_http::{self, Answer, Bounds};

/// A question on the same machine that takes longer is asked again.
const BOUNDS: Bounds = Bounds {
    patience: Duration::from_secs(1),
    bytes: 8 * 1024,
};

/// Asks which configuration answers.
pub(super) async fn serving(site: &Site) -> io::Result<Answer> {
    plain_http::get(site.relay, &site.serving_path(), "", BOUNDS).await
}
