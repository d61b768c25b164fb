//! How a server is made and unmade, step by step, with a row in the log before and after each.
//!
//! | provision | undone by | | destroy | |
//! |---|---|---|---|---|
//! | `reserve`: the intent is being acted on | `close` | | `mark`: refused while its address is trusted | |
//! | `create`: the cloud is asked | `delete` | | `delete`: the cloud is asked, and sees it gone | |
//! | `record`: id and address are known, and trusted | `mark_failed` | | `close`: the row says so | |
//! | `settle`: the cloud's own work has ended | `delete` | | | |
//!
//! A step may be repeated at any time: the name is the key in the cloud, and every change of the row
//! names the states that it may come from. A saga that breaks off anywhere leaves a row from which the
//! planner goes on: `planned` and `creating` are looked up by name, everything that failed is destroyed.
//! The log decides nothing. It is what a person and the tests read.

use tidepool_shared::id::ServerId;

use super::Pool;
use crate::{
    ambient::Clock,
    causes::chain,
    cloud::{CloudError, CloudServer, Fault, Order, Placement},
    model::{Blame, SagaKind, SagaStep, ServerState, StepState},
    store::{Store, StoreError, Transition},
};

#[cfg(test)]
mod tests;

/// How long a placement without room is left alone.
const COOL_DOWN: Duration = Duration::from_mins(10);

/// How long a placement is left alone when the cloud, or our own request budget, has no time for it:
/// each order that is refused costs requests, which would never become enough again.
const BREATHER: Duration = Duration::from_secs(30);

/// How long nothing is ordered after the cloud refused every order.
const HOLD: Duration = Duration::from_mins(5);

use std::time::Duration;

/// Why an action did not get done; the next turn tries again from what the store says then.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undone {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error("the cloud does not have it yet")]
    NotYet,
}

/// The log of one saga.
struct Log<'a> {
    store: &'a dyn Store,
    clock: &'a dyn Clock,
    server: ServerId,
    saga: SagaKind,
}

impl Log<'_> {
    /// Takes a step. A step whose end cannot be logged has failed: it will be taken again.
    async fn step<T, E: Into<Undone>>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Undone> {
        self.note(step, StepState::Begun, None).await?;
        match work.await.map_err(Into::into) {
            Ok(value) => {
                self.note(step, StepState::Done, None).await?;
                Ok(value)
            }
            Err(undone) => {
                self.note(step, StepState::Failed, Some(chain(&undone)))
                    .await?;
                Err(undone)
            }
        }
    }

    async fn note(
        &self,
        step: &str,
        state: StepState,
        error: Option<String>,
    ) -> Result<(), StoreError> {
        let row = SagaStep {
            server: self.server,
            saga: self.saga,
            step: step.to_owned(),
            state,
            error,
            at: self.clock.now(),
        };
        self.store.note_step(&row).await
    }
}

impl Pool {
    fn log(&self, server: ServerId, saga: SagaKind) -> Log<'_> {
        Log {
            store: self.store.as_ref(),
            clock: self.clock.as_ref(),
            server,
            saga,
        }
    }

    /// Has a planned server made.
    pub(super) async fn provision(&self, id: ServerId, order: &Order) -> Result<(), Undone> {
        let log = self.log(id, SagaKind::Provision);
        let reserved = log.step("reserve", self.store.mark_creating(id, self.clock.now()));
        if reserved.await? == Transition::NotPossible {
            // Whoever led meanwhile gave it up.
            return Ok(());
        }
        match log.step("create", self.cloud.create(order)).await {
            Ok(made) => self.take_in(id, &made, &log).await,
            Err(undone) => self.not_made(id, &order.placement, undone).await,
        }
    }

    /// A row from before a crash: its token is lost with the process that made it, so either the cloud
    /// has the server already, or it was asked a moment ago, or it will never be asked for it.
    pub(super) async fn recover(&self, id: ServerId, name: &str) -> Result<(), Undone> {
        let log = self.log(id, SagaKind::Provision);
        if let Some(made) = log.step("find", self.cloud.find(name)).await? {
            return self.take_in(id, &made, &log).await;
        }
        let asked = self.store.server(id).await?;
        let asked = asked.filter(|server| server.state == ServerState::Creating);
        let late = self.cloud.latest_appearance();
        if asked.is_some_and(|server| self.clock.now().since(server.state_since) < late) {
            return Err(Undone::NotYet);
        }
        self.give_up(id, "never made by the cloud", Blame::Nobody)
            .await
    }

    async fn take_in(&self, id: ServerId, made: &CloudServer, log: &Log<'_>) -> Result<(), Undone> {
        let recorded = log.step(
            "record",
            self.store.record_created(id, made, self.clock.now()),
        );
        if recorded.await? == Transition::NotPossible && self.is_closed(id).await? {
            tracing::warn!(server.id = %id, "server was given up before it was made, and goes");
            log.step("delete", self.cloud.delete(&made.name)).await?;
            return Ok(());
        }
        match log.step("settle", self.cloud.settle(&made.name)).await {
            Ok(()) => Ok(()),
            Err(Undone::Cloud(error)) if !is_passing(error.fault) => {
                self.give_up(id, "the cloud did not bring it up", Blame::Server)
                    .await
            }
            // It may still come up; the planner's deadline for booting decides.
            Err(undone) => Err(undone),
        }
    }

    /// Draws the conclusions from a creation that was refused.
    async fn not_made(
        &self,
        id: ServerId,
        placement: &Placement,
        undone: Undone,
    ) -> Result<(), Undone> {
        let Undone::Cloud(error) = &undone else {
            return Err(undone);
        };
        let now = self.clock.now();
        match error.fault {
            Fault::NoCapacity => {
                self.store.cool(placement, now.plus(COOL_DOWN)).await?;
                self.give_up(id, "no room in the cloud", Blame::Nobody)
                    .await
            }
            Fault::LimitReached => {
                self.hold("the account's limit is reached").await?;
                self.give_up(id, "the account's limit is reached", Blame::Nobody)
                    .await
            }
            Fault::Unauthorized => {
                self.hold("the cloud refuses the credentials").await?;
                self.give_up(id, "the cloud refuses the credentials", Blame::Nobody)
                    .await
            }
            Fault::Invalid => {
                tracing::error!(server.id = %id, error = %chain(error), "the cloud refuses the order");
                self.give_up(id, "the cloud refuses the order", Blame::Server)
                    .await
            }
            // It may be there all the same: the row stays, and is looked up by its name.
            Fault::Busy => {
                self.store.cool(placement, now.plus(BREATHER)).await?;
                Err(undone)
            }
            Fault::Unknown => Err(undone),
        }
    }

    /// Whether nobody will look after the server any more.
    async fn is_closed(&self, id: ServerId) -> Result<bool, StoreError> {
        let server = self.store.server(id).await?;
        Ok(server.is_none_or(|server| server.state == ServerState::Gone))
    }

    async fn hold(&self, why: &str) -> Result<(), StoreError> {
        tracing::error!(pool = %self.policy.pool, why, "the pool orders nothing for a while");
        let now = self.clock.now();
        self.store
            .hold_pool(&self.policy.pool, now.plus(HOLD), why, now)
            .await
    }

    /// Gives a server up; the planner has it destroyed.
    pub(super) async fn give_up(
        &self,
        id: ServerId,
        why: &str,
        blame: Blame,
    ) -> Result<(), Undone> {
        tracing::warn!(server.id = %id, why, "server is given up");
        self.store
            .mark_failed(id, why, blame, self.clock.now())
            .await?;
        Ok(())
    }

    /// Deletes a server that nobody uses.
    pub(super) async fn destroy(&self, id: ServerId, name: &str) -> Result<(), Undone> {
        let log = self.log(id, SagaKind::Destroy);
        if !log.step("mark", self.may_go(id)).await? {
            return Ok(());
        }
        log.step("delete", self.cloud.delete(name)).await?;
        log.step("close", self.store.mark_gone(id, self.clock.now()))
            .await?;
        Ok(())
    }

    /// Whether the store lets a server go. One whose address still speaks for a customer is not deleted:
    /// the address may be a stranger's a minute later.
    async fn may_go(&self, id: ServerId) -> Result<bool, StoreError> {
        if self.store.mark_deleting(id, self.clock.now()).await? == Transition::Done {
            return Ok(true);
        }
        let server = self.store.server(id).await?;
        Ok(server.is_some_and(|server| server.state == ServerState::Deleting))
    }
}

/// Whether the same may succeed later.
fn is_passing(fault: Fault) -> bool {
    match fault {
        Fault::Busy | Fault::Unknown => true,
        Fault::NoCapacity | Fault::LimitReached | Fault::Unauthorized | Fault::Invalid => false,
    }
}
