//! Presence: which coordinators live, and a server whose link stays away is not warm any more, and its
//! health is not known.
//!
//! A server is heard if the coordinator that holds its link lives. Each coordinator writes one row every
//! few seconds, however many links it holds; who holds a link is written when a link opens or ends. A
//! link that breaks comes back within the spread that the coordinator dictates; only one that does not is
//! news. What this process remembers is since when it misses whom; whoever leads next begins anew, which
//! gives every agent its time to come back.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tidepool_shared::id::{CoordinatorId, ServerId};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    ambient::Clock,
    causes::chain,
    doorbell::{Doorbell, Ring},
    model::{Health, Server, ServerState},
    store::{Store, StoreError, Transition},
};

const TURN_INTERVAL: Duration = Duration::from_secs(2);

/// How often a coordinator says that it lives.
const BEAT: Duration = Duration::from_secs(2);

/// After this much silence it does not.
pub const SILENCE: Duration = Duration::from_secs(8);

/// How long a link may be away: longer than any spread, and than an agent takes to be started again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says that this coordinator lives.
pub struct Heartbeat {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub coordinator: CoordinatorId,
    /// The base URL of its API as other coordinators reach it; empty if they do not.
    pub advertised: String,
}

impl Heartbeat {
    /// Runs until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            let now = self.clock.now();
            let beat = self
                .store
                .heartbeat(self.coordinator, &self.advertised, now);
            if let Err(error) = beat.await {
                tracing::warn!(error = %chain(&error), "heartbeat was not written");
            }
            cancel.run_until_cancelled(sleep(BEAT)).await;
        }
    }
}

/// The presence reconciler.
pub struct Presence {
    pub store: Arc<dyn Store>,
    pub doorbell: Doorbell,
    pub clock: Arc<dyn Clock>,
}

impl Presence {
    /// Runs until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut missed = HashMap::new();
        while cancel
            .run_until_cancelled(sleep(TURN_INTERVAL))
            .await
            .is_some()
        {
            if let Err(error) = self.turn(&mut missed).await {
                tracing::error!(error = %chain(&error), "look for servers");
            }
        }
    }

    async fn turn(&self, missed: &mut HashMap<ServerId, Instant>) -> Result<(), StoreError> {
        let live = self
            .store
            .live_coordinators(SILENCE, self.clock.now())
            .await?;
        let live: HashSet<_> = live.into_iter().map(|coordinator| coordinator.id).collect();
        let servers = self.store.servers().await?;
        let is_away = |server: &&Server| {
            is_expected(server) && server.holder.is_none_or(|holder| !live.contains(&holder))
        };
        let away: HashSet<_> = servers
            .iter()
            .filter(is_away)
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
