//! Agents that ask for models without a rest: a loop, or a heartbeat that nobody needs, spends money while
//! nobody looks. People pause: an hour without two minutes of silence, or a day and a night without an
//! hour of it, is no conversation. Nothing is stopped, only told (`usage.restless`): budgets are what stops.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    ambient::Clock,
    causes::chain,
    doorbell::{Doorbell, Ring},
    model::Restless,
    store::{Store, StoreError},
};

const TURN_INTERVAL: Duration = Duration::from_mins(5);

const PATTERNS: [Restless; 2] = [
    Restless {
        name: "loop",
        window: Duration::from_hours(1),
        longest_pause: Duration::from_mins(2),
    },
    Restless {
        name: "heartbeat",
        window: Duration::from_hours(24),
        longest_pause: Duration::from_mins(65),
    },
];

/// The job that looks for them.
pub struct Watch {
    pub store: Arc<dyn Store>,
    pub doorbell: Doorbell,
    pub clock: Arc<dyn Clock>,
}

impl Watch {
    /// Runs until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            if let Err(error) = self.turn().await {
                tracing::error!(error = %chain(&error), "look for restless instances");
            }
            cancel.run_until_cancelled(sleep(TURN_INTERVAL)).await;
        }
    }

    async fn turn(&self) -> Result<(), StoreError> {
        for pattern in &PATTERNS {
            for id in self.store.tell_restless(pattern, self.clock.now()).await? {
                tracing::warn!(instance.id = %id, pattern = pattern.name, "an instance does not rest");
                self.doorbell.ring(Ring::Events);
            }
        }
        Ok(())
    }
}
