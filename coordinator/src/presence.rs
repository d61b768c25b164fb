//! Presence: a server whose link stays away is not warm any more, and its health is not known.
//!
//! A link that breaks comes back within the spread that the coordinator dictates; only one that does
//! not is news. What this process remembers is since when it misses whom; a restart begins anew, which
//! gives every agent its time to come back.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tidepool_shared::id::ServerId;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    ambient::Clock,
    doorbell::{Doorbell, Ring},
    link::Links,
    model::{Health, Server, ServerState},
    store::{Store, StoreError, Transition},
};

const TURN_INTERVAL: Duration = Duration::from_secs(2);

/// How long a link may be away: longer than any spread, and than an agent takes to be started again.
const PATIENCE: Duration = Duration::from_secs(30);

/// The presence reconciler.
pub struct Presence {
    pub store: Arc<dyn Store>,
    pub links: Links,
    pub doorbell: Doorbell,
    pub clock: Arc<dyn Clock>,
}

impl Presence {
    /// Runs until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut missed = HashMap::new();
        while cancel
            .run_until_cancelled(sleep(TURN_INTERVAL))
            .await
            .is_some()
        {
            if let Err(error) = self.turn(&mut missed).await {
                tracing::error!(error = &error as &dyn std::error::Error, "look for servers");
            }
        }
    }

    async fn turn(&self, missed: &mut HashMap<ServerId, Instant>) -> Result<(), StoreError> {
        let away: HashSet<_> = self
            .store
            .servers()
            .await?
            .iter()
            .filter(|server| is_expected(server) && !self.links.is_connected(server.id))
            .map(|server| server.id)
            .collect();
        missed.retain(|id, _| away.contains(id));
        for id in away {
            if missed.entry(id).or_insert_with(Instant::now).elapsed() >= PATIENCE {
                self.give_up(id).await?;
            }
        }
        Ok(())
    }

    async fn give_up(&self, id: ServerId) -> Result<(), StoreError> {
        let why = "nothing is heard of the server";
        if self.store.mark_unheard(id, why, self.clock.now()).await? == Transition::Done {
            tracing::warn!(server.id = %id, "a server's link stays away");
            self.doorbell.ring(Ring::Pool);
            self.doorbell.ring(Ring::Events);
        }
        Ok(())
    }
}

/// Whether the store says something of the server that needs a link to stay true.
fn is_expected(server: &Server) -> bool {
    match server.state {
        ServerState::Warm => true,
        ServerState::Claimed => server.health != Health::Unknown,
        ServerState::Planned
        | ServerState::Creating
        | ServerState::Booting
        | ServerState::Draining
        | ServerState::Deleting
        | ServerState::Gone
        | ServerState::Failed => false,
    }
}
