//! Purge: what was deleted and not asked back within its grace goes for good.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    ambient::Clock,
    causes::chain,
    doorbell::{Doorbell, Ring},
    store::{Store, StoreError, Transition},
};

const TURN_INTERVAL: Duration = Duration::from_secs(5);

/// The purge job.
pub struct Purge {
    pub store: Arc<dyn Store>,
    pub doorbell: Doorbell,
    pub clock: Arc<dyn Clock>,
}

impl Purge {
    /// Runs until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            if let Err(error) = self.turn().await {
                tracing::error!(error = %chain(&error), "purge deleted instances");
            }
            cancel.run_until_cancelled(sleep(TURN_INTERVAL)).await;
        }
    }

    async fn turn(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        for id in self.store.to_be_purged(now).await? {
            // Asked again: it may have been brought back, and deleted with another grace, meanwhile.
            if self.store.purge_instance(id, now, now).await? == Transition::Done {
                tracing::info!(instance.id = %id, "instance is purged");
                for ring in [Ring::Instance(id), Ring::Pool, Ring::Events] {
                    self.doorbell.ring(ring);
                }
            }
        }
        Ok(())
    }
}
