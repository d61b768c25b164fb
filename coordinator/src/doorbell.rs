//! The doorbell: tells parts of the coordinator that the store changed, and nothing more.
//!
//! A ring may be lost, repeated or late without harm: whoever hears it reads the store, and every
//! listener also looks on a timer. With SQLite the bell is in this process; with PostgreSQL every ring
//! also goes to the bells of all other processes ([`postgres`]). Who rings has committed before.

use std::sync::Arc;

use tidepool_shared::id::{InstanceId, ServerId};
use tokio::sync::broadcast;

mod outbox;
mod payload;
pub mod postgres;

use outbox::Outbox;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ring {
    /// The document, the binding or the right of a server to be served.
    Server(ServerId),
    /// The routes, the status or the access of an instance.
    Instance(InstanceId),
    /// The number of servers or of waiting customers.
    Pool,
    /// What new servers are made from.
    Images,
    /// The event log grew.
    Events,
}

/// Rings kept for a listener that is slow; one that falls behind re-reads everything.
const BACKLOG: usize = 1024;

/// The bell. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Doorbell {
    here: broadcast::Sender<Heard>,
    /// What other processes are still to be told, if there are any.
    elsewhere: Option<Arc<Outbox>>,
}

impl Default for Doorbell {
    fn default() -> Self {
        Self {
            here: broadcast::channel(BACKLOG).0,
            elsewhere: None,
        }
    }
}

impl Doorbell {
    /// Rings. Nobody listening is fine.
    pub fn ring(&self, ring: Ring) {
        self.tell(Heard::Ring(ring));
        if let Some(outbox) = &self.elsewhere {
            outbox.add(ring);
        }
    }

    /// Tells who listens in this process only.
    fn tell(&self, heard: Heard) {
        drop(self.here.send(heard));
    }

    /// Hears every ring from now on.
    pub fn listen(&self) -> Listener {
        Listener(self.here.subscribe())
    }
}

/// One listener's ear.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Heard>);

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
            Ok(heard) => heard,
            Err(broadcast::error::RecvError::Lagged(_)) => Heard::Missed,
            Err(broadcast::error::RecvError::Closed) => Heard::Closed,
        }
    }
}
