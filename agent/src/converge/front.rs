//! The loop that keeps nginx to the document's names, and the packet filter to its networks.

use std::{sync::Arc, time::Duration};

use tidepool_shared::{
    document::{DesiredDocument, Generation},
    message::{Health, Phase},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    backoff,
    board::{Board, Part},
    chain,
};
use crate::{
    networks::NetworksFile,
    nginx::{Nginx, Served},
};

/// nginx is looked at even if nobody says that it changed.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// nginx and what it must be kept to.
pub struct Front {
    pub nginx: Arc<Nginx>,
    /// Where there is a packet filter of ours.
    pub networks: Option<NetworksFile>,
    pub documents: watch::Receiver<Option<Arc<DesiredDocument>>>,
    pub board: Arc<Board>,
    /// Rung when nginx was seen to be gone.
    pub wake: Arc<Notify>,
}

impl Front {
    /// Runs until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0u32;
        loop {
            let turned = tokio::select! {
                () = stop.cancelled() => return,
                turned = self.turn() => turned,
            };
            failures = if turned {
                0
            } else {
                failures.saturating_add(1)
            };
            let pause = if turned {
                LOOK_EVERY
            } else {
                backoff(failures)
            };
            let wait = self.wait(pause);
            tokio::select! {
                () = stop.cancelled() => return,
                more = wait => if !more { return },
            }
        }
    }

    /// Makes the newest document true at nginx; says whether that worked.
    ///
    /// Cancelled in mid-way it leaves a state that the next turn recognises: see [`Nginx::serve`].
    pub async fn turn(&mut self) -> bool {
        let document = self.documents.borrow_and_update().clone();
        let generation = document.as_ref().map_or(Generation(0), |d| d.generation);
        let begun = Instant::now();
        let outcome = self.nginx.serve(document.as_deref()).await;
        if document.is_some() {
            self.board.phase(Phase::Claimed);
        }
        // Beside nginx, which is not kept from serving by it; but what a document takes away is not said to be gone
        // before it is.
        let allowed = self.allow_networks(document.as_deref());
        match outcome {
            Ok(served) => {
                self.board.well(Part::Nginx);
                if allowed {
                    self.told(generation, served, begun.elapsed());
                }
                allowed
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(%generation, error = reason, "nginx does not serve the document");
                self.board.trouble(Part::Nginx, Health::Down, &reason);
                false
            }
        }
    }

    /// Tells the packet filter which networks the gateway may reach; says whether that worked.
    fn allow_networks(&self, document: Option<&DesiredDocument>) -> bool {
        let Some(file) = &self.networks else {
            return true;
        };
        let networks = document.map(|document| document.networks.clone());
        match file.allow(&networks.unwrap_or_default()) {
            Ok(()) => {
                self.board.well(Part::Networks);
                true
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(error = reason, "the packet filter is not told its networks");
                self.board
                    .trouble(Part::Networks, Health::Degraded, &reason);
                false
            }
        }
    }

    fn told(&self, generation: Generation, served: Served, took: Duration) {
        let is_new = self.board.served() < generation;
        if is_new {
            self.board.change(|view| view.steps.clear());
        }
        if is_new || served != Served::Already {
            self.board.step("nginx", took);
            let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(%generation, ?served, duration_ms, "nginx serves");
        }
        self.board.change(|view| view.served = generation);
    }

    /// Waits for a reason to look again; `false` when nobody can give one any more.
    async fn wait(&mut self, pause: Duration) -> bool {
        tokio::select! {
            changed = self.documents.changed() => changed.is_ok(),
            () = self.wake.notified() => true,
            () = sleep(pause) => true,
        }
    }
}
