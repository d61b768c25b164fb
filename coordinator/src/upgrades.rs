//! Upgrades: brings the instances of a tier to another version of OpenClaw, wave by wave.
//!
//! What to do next is decided by [`plan`] from what the store holds; this module does it and holds no
//! choices. An order, its operation and the note that a rollout has reached the instance are one commit, so a
//! crash orders nothing twice. What became of an order is its operation's end, which the server's agent tells.

mod plan;

use std::{sync::Arc, time::Duration};

use tidepool_shared::id::{InstanceId, OperationId};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use self::plan::failures;
pub(crate) use self::plan::left;
use self::plan::{Action, Snapshot, plan};
use crate::{
    ambient::{Chance, Clock},
    causes::chain,
    doorbell::{Doorbell, Ring},
    instance,
    model::{InstanceStatus, Rollout, RolloutState},
    store::{ChangeRefused, Store, StoreError},
};

const TURN_INTERVAL: Duration = Duration::from_secs(2);

/// The rollouts of all tiers.
pub struct Upgrades {
    pub store: Arc<dyn Store>,
    pub doorbell: Doorbell,
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<Chance>,
}

impl Upgrades {
    /// Runs until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            if let Err(error) = self.turn().await {
                tracing::error!(error = %chain(&error), "roll out a version of OpenClaw");
            }
            cancel.run_until_cancelled(sleep(TURN_INTERVAL)).await;
        }
    }

    async fn turn(&self) -> Result<(), StoreError> {
        for rollout in self.store.rollouts().await? {
            if rollout.state == RolloutState::Running {
                self.advance(rollout).await?;
            }
        }
        Ok(())
    }

    async fn advance(&self, rollout: Rollout) -> Result<(), StoreError> {
        let snapshot = Snapshot {
            members: self.store.rollout_members(rollout.id).await?,
            candidates: self.store.rollout_candidates(&rollout.tier).await?,
            now: self.clock.now(),
            rollout,
        };
        for action in plan(&snapshot) {
            self.execute(&snapshot.rollout, action).await?;
        }
        Ok(())
    }

    async fn execute(&self, rollout: &Rollout, action: Action) -> Result<(), StoreError> {
        let now = self.clock.now();
        match action {
            Action::Upgrade(id) => return self.upgrade(rollout, id).await,
            Action::Halt(why) => {
                tracing::warn!(rollout.id = %rollout.id, why, "rollout is halted");
                self.store.halt_rollout(rollout.id, &why, now).await?;
            }
            Action::Finish => {
                self.store.finish_rollout(rollout.id, now).await?;
            }
        }
        self.doorbell.ring(Ring::Events);
        Ok(())
    }

    async fn upgrade(&self, rollout: &Rollout, id: InstanceId) -> Result<(), StoreError> {
        let now = self.clock.now();
        let Some(found) = self.store.instance(id).await? else {
            return Ok(());
        };
        // Asked again: it may have been suspended or deleted since the plan was made.
        if found.status != InstanceStatus::Running {
            return Ok(());
        }
        let Some(limits) = instance::present_limits(&*self.store, &found).await? else {
            return Ok(());
        };
        let operation = OperationId::new(self.chance.uuid(now));
        let version = rollout.version.clone();
        let change = instance::upgrade(&found, version, operation, limits);
        match self
            .store
            .begin_upgrade(&change, Some(rollout.id), now)
            .await
        {
            Ok(changed) => {
                tracing::info!(rollout.id = %rollout.id, instance.id = %id, "upgrade is ordered");
                let server = changed.server.map(Ring::Server);
                for ring in [Ring::Instance(id), Ring::Events].into_iter().chain(server) {
                    self.doorbell.ring(ring);
                }
                Ok(())
            }
            Err(ChangeRefused::Store(error)) => Err(error),
            Err(refused) => {
                // Somebody came first; the next turn looks again.
                tracing::debug!(instance.id = %id, %refused, "upgrade is not ordered now");
                Ok(())
            }
        }
    }
}
