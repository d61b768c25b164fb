//! Retention: what is over is forgotten, so that the store does not grow with time alone.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{ambient::Clock, store::Store};

const TURN_INTERVAL: Duration = Duration::from_mins(10);

/// The retention job.
pub struct Retention {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
}

impl Retention {
    /// Runs until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        loop {
            match self.store.forget_expired(self.clock.now()).await {
                Ok(0) => {}
                Ok(rows) => tracing::debug!(rows, "forgot what has expired"),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "forget what has expired"
                    );
                }
            }
            if cancel
                .run_until_cancelled(sleep(TURN_INTERVAL))
                .await
                .is_none()
            {
                return;
            }
        }
    }
}
