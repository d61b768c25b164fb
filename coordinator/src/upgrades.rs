//! Upgrades: brings the instances of a tier to another version of OpenClaw, wave by wave.
//!
//! What to do next is decided by [`plan`] from what the store holds; this module does it and holds no
//! choices. An order, its operation and the note that a rollout has reached the instance are one commit, so a
//! crash orders nothing twice. What became of an order is its operation's end, which the server's agent tells. One of
//! which nothing is heard, of a rollout or not, is taken back and has failed.

mod plan;

use std::{sync::Arc, time::Duration};

use tidepool_shared::id::{InstanceId, OperationId, RolloutId, ServerId};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::plan::{Action, Snapshot, plan};
pub(crate) use self::plan::{Outlook, faulty};
use crate::{
    ambient::{Chance, Clock},
    artefacts::Artefacts,
    causes::chain,
    doorbell::{Doorbell, Ring},
    instance::{self, Present},
    model::{InstanceStatus, Rollout, RolloutState},
    store::{ChangeRefused, Store, StoreError, Transition},
};

const TURN_INTERVAL: Duration = Duration::from_secs(2);

/// An order of which nothing is heard for so long has failed: an agent allows itself some ten minutes, and more
/// for an image that it must load.
const DEADLINE: Duration = Duration::from_mins(30);

/// The rollouts of all tiers.
pub struct Upgrades {
    pub store: Arc<dyn Store>,
    pub doorbell: Doorbell,
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<Chance>,
    /// What brings versions to servers that do not have them.
    pub artefacts: Artefacts,
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
        self.give_up_overdue().await?;
        for rollout in self.store.rollouts().await? {
            if rollout.state == RolloutState::Running {
                self.advance(rollout).await?;
            }
        }
        Ok(())
    }

    async fn give_up_overdue(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        for (id, upgrade) in self.store.overdue_upgrades(now.minus(DEADLINE)).await? {
            // One that cannot be given up must not be in the way of all others.
            if let Err(error) = self.give_up(id, upgrade).await {
                tracing::error!(instance.id = %id, error = %chain(&error), "give an upgrade up");
            }
        }
        Ok(())
    }

    async fn give_up(&self, id: InstanceId, upgrade: OperationId) -> Result<(), StoreError> {
        let (why, now) = ("nothing was heard of it for half an hour", self.clock.now());
        if self.store.give_up_upgrade(id, upgrade, why, now).await? == Transition::Done {
            tracing::warn!(instance.id = %id, operation.id = %upgrade, "upgrade has no end");
            let server = self.store.instance(id).await?.and_then(|it| it.server);
            ring(&self.doorbell, id, server);
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
            Action::Halt(why) => return self.halt(rollout, &why).await,
            Action::Finish => self.store.finish_rollout(rollout.id, now).await?,
        };
        self.doorbell.ring(Ring::Events);
        Ok(())
    }

    async fn halt(&self, rollout: &Rollout, why: &str) -> Result<(), StoreError> {
        tracing::warn!(rollout.id = %rollout.id, why, "rollout is halted");
        let now = self.clock.now();
        if self.store.halt_rollout(rollout.id, why, now).await? == Transition::Done {
            ring_members(&*self.store, &self.doorbell, rollout.id).await?;
        }
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
        let limits = match instance::present_limits(&*self.store, &found).await? {
            Present::Limits(limits) => limits,
            Present::Nowhere => return Ok(()),
            // The next turn would choose it again, and never come to another one.
            Present::Unreadable => {
                let why = format!("{}: its document cannot be read", found.name);
                return self.halt(rollout, &why).await;
            }
        };
        let operation = OperationId::new(self.chance.uuid(now));
        let version = rollout.version.clone();
        let signed = match self.artefacts.bringing(&version).await {
            Ok(signed) => signed,
            Err(failure) => {
                // The next turn looks again: an order without it would only be refused.
                tracing::error!(error = %chain(&failure), "upgrade is not ordered now");
                return Ok(());
            }
        };
        let change = instance::upgrade(&found, version, signed, operation, limits);
        match self
            .store
            .begin_upgrade(&change, Some(rollout.id), now)
            .await
        {
            Ok(changed) => {
                tracing::info!(rollout.id = %rollout.id, instance.id = %id, "upgrade is ordered");
                ring(&self.doorbell, id, changed.server);
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

/// Tells those whose order was taken back, so that they need not wait for the timer.
pub(crate) async fn ring_members(
    store: &dyn Store,
    doorbell: &Doorbell,
    rollout: RolloutId,
) -> Result<(), StoreError> {
    for member in store.rollout_members(rollout).await? {
        if member.ended_at.is_none() {
            ring(doorbell, member.instance, member.server);
        }
    }
    doorbell.ring(Ring::Events);
    Ok(())
}

fn ring(doorbell: &Doorbell, instance: InstanceId, server: Option<ServerId>) {
    let server = server.map(Ring::Server);
    for ring in [Ring::Instance(instance), Ring::Events]
        .into_iter()
        .chain(server)
    {
        doorbell.ring(ring);
    }
}
