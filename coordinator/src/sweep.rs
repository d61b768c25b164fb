//! The sweep: compares what the cloud has with what the store says, in both directions.
//!
//! What bears our labels and no row knows costs money and is removed; what a row counts on and the cloud
//! does not have is lost, and somebody must be told. Both are rare, and the way to lose a customer's
//! server is to be hasty about either: a list that is not whole is no list, what is young is left alone, a
//! pass removes a few things at most, and a server is lost only after two lists and a question of its own.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tidepool_shared::id::ServerId;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    ambient::Clock,
    causes::chain,
    cloud::{Cloud, CloudError, ObjectKind},
    doorbell::{Doorbell, Ring},
    model::Server,
    store::{Store, StoreError, Transition},
};

pub mod plan;

pub use plan::Policy;

/// Why a pass was cut short; the next one begins anew.
#[derive(Debug, thiserror::Error)]
enum CutShort {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Cloud(#[from] CloudError),
}

/// The sweep.
pub struct Sweep {
    pub store: Arc<dyn Store>,
    pub cloud: Arc<dyn Cloud>,
    pub doorbell: Doorbell,
    pub clock: Arc<dyn Clock>,
    pub policy: Policy,
    /// Between two passes.
    pub interval: Duration,
    /// Servers that the last pass did not find.
    pub missed: Mutex<HashSet<ServerId>>,
    /// What could not be removed, by id; it comes last next time.
    pub stubborn: Mutex<HashSet<(ObjectKind, String)>>,
}

impl Sweep {
    /// Runs until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            cancel.run_until_cancelled(sleep(self.interval)).await;
            if cancel.is_cancelled() {
                return;
            }
            // Cut off anywhere, a pass is one that a crash ended.
            if let Some(Err(error)) = cancel.run_until_cancelled(self.pass()).await {
                tracing::warn!(error = %chain(&error), "sweep was cut short");
            }
        }
    }

    /// One pass. The servers are read before the list is asked for: what is made meanwhile is in the
    /// list and not among them, and too young to be touched.
    async fn pass(&self) -> Result<(), CutShort> {
        let servers = self.store.servers().await?;
        let objects = self.cloud.inventory().await?;
        let needed = self.cloud.needed().await?;
        let missed = self.with_missed(|missed| missed.clone());
        let stubborn = self.with_stubborn(|known| known.clone());
        let view = plan::View {
            objects: &objects,
            servers: &servers,
            missed: &missed,
            needed: &needed,
            stubborn: &stubborn,
            now: self.clock.now(),
        };
        let plan = plan::plan(&self.policy, &view);
        self.with_missed(|known| known.clone_from(&plan.missed));
        for id in plan.lost {
            if let Some(server) = servers.iter().find(|server| server.id == id) {
                self.close(server).await?;
            }
        }
        for object in &plan.remove {
            tracing::warn!(kind = ?object.kind, object.id = %object.id, name = %object.name, "orphan is removed");
            let key = (object.kind, object.id.clone());
            if let Err(error) = self.cloud.remove(object).await {
                tracing::error!(object.id = %object.id, error = %chain(&error), "orphan cannot be removed");
                self.with_stubborn(|known| known.insert(key));
                continue;
            }
            self.with_stubborn(|known| known.remove(&key));
            let data = serde_json::json!({ "kind": object.kind.word(), "id": object.id, "name": object.name });
            self.tell("sweep.removed", data).await?;
        }
        if plan.over_cap > 0 {
            tracing::error!(left = plan.over_cap, "more orphans than a pass may remove");
            let data = serde_json::json!({ "left": plan.over_cap });
            self.tell("sweep.capped", data).await?;
        }
        Ok(())
    }

    /// Two lists did not have this server: it is asked for by its name before anything is concluded.
    async fn close(&self, server: &Server) -> Result<(), CutShort> {
        if self.cloud.find(&server.name).await?.is_some() {
            return Ok(());
        }
        let why = "the cloud does not have the server any more";
        if self
            .store
            .mark_lost(server.id, why, self.clock.now())
            .await?
            == Transition::Done
        {
            tracing::error!(server.id = %server.id, "server is lost");
            self.doorbell.ring(Ring::Server(server.id));
            if let Some(instance) = server.instance {
                self.doorbell.ring(Ring::Instance(instance));
            }
            self.doorbell.ring(Ring::Pool);
            self.doorbell.ring(Ring::Events);
        }
        Ok(())
    }

    async fn tell(&self, kind: &str, data: serde_json::Value) -> Result<(), CutShort> {
        self.store.tell(kind, data, self.clock.now()).await?;
        self.doorbell.ring(Ring::Events);
        Ok(())
    }

    fn with_stubborn<T>(&self, act: impl FnOnce(&mut HashSet<(ObjectKind, String)>) -> T) -> T {
        act(&mut self.stubborn.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with_missed<T>(&self, act: impl FnOnce(&mut HashSet<ServerId>) -> T) -> T {
        act(&mut self.missed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
