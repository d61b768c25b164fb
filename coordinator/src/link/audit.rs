//! Audit events of the link: durable, so each kind is written at most once a minute about a server. A peer
//! with a good certificate could fill the disk otherwise.

use std::{net::IpAddr, time::Duration};

use serde_json::Value;
use tidepool_shared::id::ServerId;
use tokio::time::Instant;
use tracing::error;

use super::{
    Context,
    recent::{Brake, Recent},
};
use crate::causes::chain;
use crate::doorbell::Ring;

const PAUSE: Duration = Duration::from_mins(1);

/// Kinds and servers, and pairs of servers and addresses, that are remembered.
const REMEMBERED: usize = 4096;

/// One line about strangers in so much time.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// What was written or refused a short while ago.
pub(super) struct Audit {
    written: Recent<(&'static str, ServerId)>,
    /// Whose spent, late or stolen token was refused, and where it came from.
    pub(super) refused: Recent<(ServerId, IpAddr)>,
    /// For lines about peers that have nothing of ours.
    pub(super) strangers: Brake,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            written: Recent::new(PAUSE, REMEMBERED),
            refused: Recent::new(PAUSE, REMEMBERED),
            strangers: Brake::new(LOG_PAUSE),
        }
    }
}

impl Context {
    /// Writes `security.<what>` about a server, unless that was written within the last minute. A failure is
    /// logged and stops nothing: a refusal stands whether or not it could be written down.
    pub(super) async fn audit(&self, what: &'static str, server: ServerId, data: Value) {
        if !self.audit.written.take((what, server), Instant::now()) {
            return;
        }
        let now = self.clock.now();
        match self.store.audit(what, Some(server), data, now).await {
            Ok(()) => self.doorbell.ring(Ring::Events),
            Err(failure) => {
                self.audit.written.give_back(&(what, server));
                error!(server.id = %server, audit = what, error = %chain(&failure), "audit event not written");
            }
        }
    }
}
