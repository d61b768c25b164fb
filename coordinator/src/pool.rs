//! The pool: keeps warm servers waiting, gives them to customers who wait, removes what is used up.
//!
//! [`plan`] decides: a pure function from what the store says to a list of actions. [`Pool`] executes,
//! and holds no choices. Everything is level-triggered: a lost wake-up, a crash at any line or a
//! repeated action leads to the same end, because each turn starts from the store again.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tidepool_shared::{id::ServerId, user_data::UserData};
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ambient::{Chance, Clock},
    api::TierOutlook,
    cloud::{Cloud, CloudError, Labels, Order},
    doorbell::{Doorbell, Heard, Ring},
    model::{NewServer, Server, ServerState},
    store::{Store, StoreError},
};

pub mod plan;

pub use plan::{Action, Policy};

/// A turn is taken at least this often, whatever the bell says.
const TURN_INTERVAL: Duration = Duration::from_secs(1);

/// How long a new server has to enrol.
const TOKEN_LIFETIME: Duration = Duration::from_mins(15);

/// What new servers are told.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// Where the link listens, as servers reach it.
    pub coordinator: SocketAddr,
    /// The root certificate, PEM.
    pub ca: String,
    /// The LLM proxy's base URL, as servers reach it.
    pub proxy: String,
}

/// Why an action did not get done; the next turn tries again from what the store says then.
#[derive(Debug, thiserror::Error)]
enum Undone {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Cloud(#[from] CloudError),
}

/// The reconciler of one tier's servers.
pub struct Pool {
    pub store: Arc<dyn Store>,
    pub cloud: Arc<dyn Cloud>,
    pub doorbell: Doorbell,
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<Chance>,
    pub policy: Policy,
    pub introduction: Introduction,
    /// What customers who wait are told; corrected by every boot.
    pub outlook: TierOutlook,
    /// Servers whose cloud call is under way in this process.
    pub busy: Busy,
}

/// Servers that a task of this process is working on: an action is never started twice at once.
#[derive(Debug, Clone, Default)]
pub struct Busy(Arc<Mutex<HashSet<ServerId>>>);

impl Busy {
    fn with<T>(&self, act: impl FnOnce(&mut HashSet<ServerId>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pool {
    /// Runs until cancelled, then waits for the calls that are under way.
    pub async fn run(self, cancel: CancellationToken) {
        let pool = Arc::new(self);
        let calls = TaskTracker::new();
        let mut bell = pool.doorbell.listen();
        loop {
            if let Err(error) = pool.turn(&calls).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "pool turn was cut short"
                );
            }
            let woken = async {
                loop {
                    match bell.hear().await {
                        Heard::Ring(Ring::Pool) | Heard::Missed | Heard::Closed => break,
                        Heard::Ring(_) => {}
                    }
                }
            };
            tokio::select! {
                () = cancel.cancelled() => break,
                () = woken => {}
                () = sleep(TURN_INTERVAL) => {}
            }
        }
        calls.close();
        calls.wait().await;
    }

    /// One turn: waiting customers first, then everything else.
    async fn turn(self: &Arc<Self>, calls: &TaskTracker) -> Result<(), Undone> {
        while let Some(instance) = self
            .store
            .claim_for_pending(&self.policy.tier, self.clock.now())
            .await?
        {
            tracing::info!(instance.id = %instance.id, "a waiting instance got a server");
            if let Some(server) = instance.server {
                self.doorbell.ring(Ring::Server(server));
            }
            self.doorbell.ring(Ring::Instance(instance.id));
            self.doorbell.ring(Ring::Events);
        }
        let servers = self.store.servers().await?;
        let pending = self.store.pending_count(&self.policy.tier).await?;
        self.learn(&servers);
        let busy = self.busy.with(|busy| busy.clone());
        let view = plan::View {
            servers: &servers,
            busy: &busy,
            pending,
            now: self.clock.now(),
        };
        for action in plan::plan(&self.policy, &view) {
            self.begin(action, &servers, calls).await?;
        }
        Ok(())
    }

    /// How long the newest warm server took from the intent on.
    fn learn(&self, servers: &[Server]) {
        let newest = servers
            .iter()
            .filter(|server| server.state == ServerState::Warm)
            .max_by_key(|server| server.state_since);
        if let Some(server) = newest {
            let took = server.state_since.since(server.created_at).as_secs().max(1);
            self.outlook.boot_estimate_s.store(took, Ordering::Relaxed);
        }
    }

    async fn begin(
        self: &Arc<Self>,
        action: Action,
        servers: &[Server],
        calls: &TaskTracker,
    ) -> Result<(), Undone> {
        match action {
            Action::Order => {
                let (id, order) = self.intend().await?;
                self.spawn(calls, id, move |pool| async move {
                    pool.create(id, order).await
                });
            }
            Action::Recover(id) => {
                let name = name_of(servers, id);
                self.spawn(calls, id, move |pool| async move {
                    pool.recover(id, &name).await
                });
            }
            Action::Fail(id, why) => {
                tracing::warn!(server.id = %id, why, "server is given up");
                self.store.mark_failed(id, why, self.clock.now()).await?;
                self.doorbell.ring(Ring::Server(id));
                self.doorbell.ring(Ring::Pool);
            }
            Action::Retire(id) => {
                self.store.retire_unclaimed(id, self.clock.now()).await?;
                self.doorbell.ring(Ring::Server(id));
                self.doorbell.ring(Ring::Pool);
            }
            Action::Delete(id) => {
                let name = name_of(servers, id);
                self.spawn(calls, id, move |pool| async move {
                    pool.delete(id, &name).await
                });
            }
        }
        Ok(())
    }

    fn spawn<F>(
        self: &Arc<Self>,
        calls: &TaskTracker,
        id: ServerId,
        work: impl FnOnce(Arc<Self>) -> F,
    ) where
        F: Future<Output = Result<(), Undone>> + Send + 'static,
    {
        if !self.busy.with(|busy| busy.insert(id)) {
            return;
        }
        let (pool, work) = (Arc::clone(self), work(Arc::clone(self)));
        calls.spawn(async move {
            if let Err(error) = work.await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    server.id = %id,
                    "server action did not get done"
                );
            }
            pool.busy.with(|busy| busy.remove(&id));
            pool.doorbell.ring(Ring::Pool);
            pool.doorbell.ring(Ring::Events);
        });
    }

    /// Commits the intent to have a server, before the cloud hears of it.
    async fn intend(&self) -> Result<(ServerId, Order), Undone> {
        let now = self.clock.now();
        let id = ServerId::new(self.chance.uuid(now));
        let name = format!("tidepool-{}", id.to_string().replace('_', "-"));
        let token = self.chance.secret();
        let new = NewServer {
            id,
            name: name.clone(),
            tier: self.policy.tier.clone(),
            token_hash: Sha256::digest(token.as_bytes()).into(),
            token_expires: now.plus(TOKEN_LIFETIME),
        };
        self.store.plan_server(&new, now).await?;
        let user_data = UserData {
            server: id,
            enrolment_token: token,
            coordinator: self.introduction.coordinator,
            ca: self.introduction.ca.clone(),
            proxy: self.introduction.proxy.clone(),
        };
        let order = Order {
            name,
            placement: self.policy.placement.clone(),
            labels: Labels::new(),
            user_data,
        };
        Ok((id, order))
    }

    async fn create(&self, id: ServerId, order: Order) -> Result<(), Undone> {
        self.store.mark_creating(id, self.clock.now()).await?;
        let made = self.cloud.create(&order).await?;
        self.store
            .record_created(id, &made.id, made.address, self.clock.now())
            .await?;
        Ok(())
    }

    /// A row from before a crash: its token is lost with the process that made it, so either the cloud
    /// has the server already or it will never be made.
    async fn recover(&self, id: ServerId, name: &str) -> Result<(), Undone> {
        let now = self.clock.now();
        match self.cloud.find(name).await? {
            Some(made) => {
                self.store
                    .record_created(id, &made.id, made.address, now)
                    .await?;
            }
            None => {
                self.store
                    .mark_failed(id, "never asked of the cloud", now)
                    .await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, id: ServerId, name: &str) -> Result<(), Undone> {
        self.store.mark_deleting(id, self.clock.now()).await?;
        self.doorbell.ring(Ring::Server(id));
        self.cloud.delete(name).await?;
        self.store.mark_gone(id, self.clock.now()).await?;
        Ok(())
    }
}

fn name_of(servers: &[Server], id: ServerId) -> String {
    servers
        .iter()
        .find(|server| server.id == id)
        .map_or_else(String::new, |server| {
            debug_assert!(
                server.state != ServerState::Gone,
                "gone servers are not listed"
            );
            server.name.clone()
        })
}
