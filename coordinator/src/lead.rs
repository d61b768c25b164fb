//! Leadership: of all coordinators on one store, one at a time runs what must not run twice.
//!
//! The lease is a row, timed by the database. Whoever holds it renews it well before its end, and stops
//! its work when it could not for so long that another may have it soon: the clock that counts is the
//! database's, but the one that stops us is our own, started *before* the renewal was asked for, so it
//! runs out first. Work that overlaps all the same, for the length of a call that was under way, is
//! harmless: every step names the state that it may come from, and names are keys in the cloud.

use std::{sync::Arc, time::Duration};

use tidepool_shared::id::CoordinatorId;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{ambient::Clock, causes::chain, store::Store};

/// What the lease is called.
const LEASE: &str = "leader";

/// How long a lease lasts that nobody renews: a killed leader's work goes on elsewhere this much later,
/// and a look.
const TERM: Duration = Duration::from_secs(6);

/// How often it is renewed, or looked for.
const LOOK: Duration = Duration::from_secs(2);

/// How long after its last renewal a leader goes on.
const TRUSTED_FOR: Duration = Duration::from_secs(4);

/// One coordinator's claim to lead.
pub struct Leadership {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub coordinator: CoordinatorId,
}

impl Leadership {
    /// Runs `work` for as long as this coordinator leads, again and again, until cancelled. `work` ends
    /// when its token is cancelled.
    pub async fn run<F>(self, cancel: CancellationToken, work: impl Fn(CancellationToken) -> F)
    where
        F: Future<Output = ()>,
    {
        while !cancel.is_cancelled() {
            if let Some(asked) = self.renew().await {
                tracing::info!(coordinator.id = %self.coordinator, "leads");
                self.lead(asked, &cancel, &work).await;
                tracing::info!(coordinator.id = %self.coordinator, "does not lead any more");
            }
            cancel.run_until_cancelled(sleep(LOOK)).await;
        }
        if let Err(error) = self.store.release_lease(LEASE, self.coordinator).await {
            tracing::warn!(error = %chain(&error), "the lease was not given back");
        }
    }

    async fn lead<F>(
        &self,
        mut renewed: Instant,
        cancel: &CancellationToken,
        work: &impl Fn(CancellationToken) -> F,
    ) where
        F: Future<Output = ()>,
    {
        let token = cancel.child_token();
        let renewals = async {
            while !token.is_cancelled() {
                token.run_until_cancelled(sleep(LOOK)).await;
                match timeout(LOOK, self.renew()).await {
                    Ok(Some(asked)) => renewed = asked,
                    Ok(None) | Err(_) if renewed.elapsed() < TRUSTED_FOR => {}
                    Ok(None) | Err(_) => token.cancel(),
                }
            }
        };
        tokio::join!(renewals, work(token.clone()));
    }

    /// Takes or keeps the lease; the moment before it was asked for.
    async fn renew(&self) -> Option<Instant> {
        let asked = Instant::now();
        let now = self.clock.now();
        match self
            .store
            .acquire_lease(LEASE, self.coordinator, TERM, now)
            .await
        {
            Ok(held) => held.is_some().then_some(asked),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the lease was not renewed");
                None
            }
        }
    }
}
