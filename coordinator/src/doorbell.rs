//! The doorbell: tells parts of the coordinator that the store changed, and nothing more.
//!
//! A ring may be lost, repeated or late without harm: whoever hears it reads the store, and every
//! listener also looks on a timer. With SQLite the bell is in this process; PostgreSQL's
//! `NOTIFY` will ring the same one.

use tidepool_shared::id::{InstanceId, ServerId};
use tokio::sync::broadcast;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// The document, the binding or the right of a server to be served.
    Server(ServerId),
    /// The routes, the status or the access of an instance.
    Instance(InstanceId),
    /// The number of servers or of waiting customers.
    Pool,
    /// The event log grew.
    Events,
}

/// Rings kept for a listener that is slow; one that falls behind re-reads everything.
const BACKLOG: usize = 1024;

/// The bell. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Doorbell(broadcast::Sender<Ring>);

impl Default for Doorbell {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }
}

impl Doorbell {
    /// Rings. Nobody listening is fine.
    pub fn ring(&self, ring: Ring) {
        drop(self.0.send(ring));
    }

    /// Hears every ring from now on.
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

/// One listener's ear.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Ring>);

/// What a listener heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Ring(Ring),
    /// Rings were missed: look at everything.
    Missed,
    /// The bell is gone: the program ends.
    Closed,
}

impl Listener {
    /// Waits for the next ring. Cancel-safe.
    pub async fn hear(&mut self) -> Heard {
        match self.0.recv().await {
            Ok(ring) => Heard::Ring(ring),
            Err(broadcast::error::RecvError::Lagged(_)) => Heard::Missed,
            Err(broadcast::error::RecvError::Closed) => Heard::Closed,
        }
    }
}
