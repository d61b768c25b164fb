//! The pool: keeps warm servers waiting, gives them to customers who wait, removes what is used up.
//!
//! [`plan`] decides: a pure function from what the store says to a list of actions. [`Pool`] executes,
//! and holds no choices; how a server is made and unmade is in [`saga`]. Everything is
//! level-triggered: a lost wake-up, a crash at any line or a repeated action leads to the same end,
//! because each turn starts from the store again. One process at a time runs it, under the lease.

use std::{sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use tidepool_shared::{
    id::ServerId,
    user_data::{Coordinators, UserData},
};
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ambient::{Chance, Clock, Moment},
    api::PoolOutlook,
    causes::chain,
    cloud::{Cloud, Labels, Order, Placement},
    doorbell::{Doorbell, Heard, Ring},
    model::{Blame, NewServer, Server},
    store::Store,
};

mod busy;
pub mod demand;
mod forecast;
mod gauges;
mod offer;
pub mod plan;
mod saga;
pub mod trial;

pub use busy::Busy;
pub use forecast::Forecast;
pub use offer::Offer;
pub use plan::{Action, Policy};
use saga::Undone;
pub use trial::Trials;

/// A turn is taken at least this often, whatever the bell says.
const TURN_INTERVAL: Duration = Duration::from_secs(1);

/// How long a call to the cloud may go on once this coordinator does not lead any more, or stops: a creation
/// is waited for in minutes, and whoever leads next must not be kept from it.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long a new server has to enrol.
const TOKEN_LIFETIME: Duration = Duration::from_mins(15);

/// What new servers are told.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// Where the link listens, as servers reach it.
    pub coordinators: Coordinators,
    /// The root certificate, PEM.
    pub ca: String,
    /// The LLM proxy's base URL, as servers reach it.
    pub proxy: String,
}

/// The reconciler of one pool's servers.
pub struct Pool {
    pub store: Arc<dyn Store>,
    pub cloud: Arc<dyn Cloud>,
    pub doorbell: Doorbell,
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<Chance>,
    pub policy: Policy,
    pub introduction: Introduction,
    /// What customers who wait are told.
    pub outlook: PoolOutlook,
    pub forecast: Forecast,
    pub offer: Offer,
    /// Servers whose cloud call is under way in this process.
    pub busy: Busy,
}

/// The calls that are under way, and what ends their rests.
struct Calls {
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Pool {
    /// Runs until cancelled, then waits for the calls that are under way.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let calls = Calls {
            tasks: TaskTracker::new(),
            cancel: cancel.clone(),
        };
        let mut bell = self.doorbell.listen();
        loop {
            if let Err(error) = self.turn(&calls).await {
                tracing::error!(error = %chain(&error), "pool turn was cut short");
            }
            let woken = async {
                loop {
                    match bell.hear().await {
                        Heard::Ring(Ring::Images) | Heard::Missed => break self.offer.forget(),
                        Heard::Ring(Ring::Pool) | Heard::Closed => break,
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
        calls.tasks.close();
        calls.tasks.wait().await;
    }

    /// One turn: waiting customers first, then everything else.
    async fn turn(self: &Arc<Self>, calls: &Calls) -> Result<(), Undone> {
        self.serve_who_waits().await?;
        let now = self.clock.now();
        let servers = self.store.servers().await?;
        let standing = self.store.pool_standing(&self.policy.pool).await?;
        let cooling = self.store.cooling(now).await?;
        let offer = self.offer(now).await;
        let boot = self.forecast.boot(&self.policy.pool, &servers);
        let arrivals = self.arrivals(now).await?;
        let view = plan::View {
            servers: &servers,
            busy: &self.busy.servers(),
            pending: self.store.pending_count(&self.policy.pool).await?,
            target: plan::target(&self.policy, &arrivals, boot, offer.affordable, now),
            standing: &standing,
            cooling: &cooling,
            images: &offer.images,
            now,
        };
        self.outlook.tell(view.target, boot);
        gauges::show(&self.policy, &view);
        for action in plan::plan(&self.policy, &view) {
            self.begin(action, &servers, calls).await?;
        }
        Ok(())
    }

    async fn serve_who_waits(&self) -> Result<(), Undone> {
        while let Some(instance) = self
            .store
            .claim_for_pending(&self.policy.pool, self.clock.now())
            .await?
        {
            tracing::info!(instance.id = %instance.id, "a waiting instance got a server");
            if let Some(server) = instance.server {
                self.doorbell.ring(Ring::Server(server));
            }
            self.doorbell.ring(Ring::Instance(instance.id));
            self.doorbell.ring(Ring::Events);
        }
        Ok(())
    }

    async fn begin(
        self: &Arc<Self>,
        action: Action,
        servers: &[Server],
        calls: &Calls,
    ) -> Result<(), Undone> {
        let (pool, now) = (&self.policy.pool, self.clock.now());
        match action {
            Action::Order(placement) => {
                let (id, order) = self.intend(placement).await?;
                self.spawn(calls, id, move |pool| async move {
                    pool.provision(id, &order).await
                });
            }
            Action::Recover(id) => {
                let name = name_of(servers, id);
                self.spawn(calls, id, move |pool| async move {
                    pool.recover(id, &name).await
                });
            }
            Action::Delete(id) => {
                let name = name_of(servers, id);
                self.spawn(calls, id, move |pool| async move {
                    pool.destroy(id, &name).await
                });
            }
            Action::Fail(id, why) => {
                self.give_up(id, why, Blame::Server).await?;
                self.tell_of(id);
            }
            Action::Retire(id) => {
                self.store.retire_unclaimed(id, now).await?;
                self.tell_of(id);
            }
            Action::Halt => {
                tracing::error!(%pool, "too many servers failed in a row: the pool is halted");
                self.store.halt_pool(pool, now).await?;
            }
            Action::FallBelow => self.store.pool_fell_below(pool, now).await?,
            Action::TellBelow => {
                tracing::warn!(%pool, "the pool stays below its target");
                self.store.tell_pool_below(pool, now).await?;
            }
            Action::Reach => self.store.pool_reached(pool, now).await?,
        }
        Ok(())
    }

    fn tell_of(&self, id: ServerId) {
        self.doorbell.ring(Ring::Server(id));
        self.doorbell.ring(Ring::Pool);
        self.doorbell.ring(Ring::Events);
    }

    fn spawn<F>(self: &Arc<Self>, calls: &Calls, id: ServerId, work: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = Result<(), Undone>> + Send + 'static,
    {
        if !self.busy.take(id) {
            return;
        }
        let (pool, work) = (Arc::clone(self), work(Arc::clone(self)));
        let cancel = calls.cancel.clone();
        calls.tasks.spawn(async move {
            let late = async {
                cancel.cancelled().await;
                sleep(FAREWELL).await;
            };
            tokio::select! {
                done = work => pool.ended(id, done, &cancel).await,
                // As if killed here, from where anybody goes on.
                () = late => pool.busy.release(id),
            }
            pool.tell_of(id);
        });
    }

    async fn ended(&self, id: ServerId, done: Result<(), Undone>, cancel: &CancellationToken) {
        let Err(error) = done else {
            return self.busy.done(id);
        };
        tracing::warn!(server.id = %id, error = %chain(&error), "server action did not get done");
        let rest = self.busy.failed(id);
        cancel.run_until_cancelled(sleep(rest)).await;
        self.busy.release(id);
    }

    /// Commits the intent to have a server, before the cloud hears of it.
    async fn intend(&self, placement: Placement) -> Result<(ServerId, Order), Undone> {
        let now = self.clock.now();
        let labels = Labels::from([
            ("tier".to_owned(), self.policy.pool.tier.clone()),
            ("region".to_owned(), self.policy.pool.region.clone()),
        ]);
        let (new, order) = self.intention("tidepool", placement, labels, now);
        self.store.plan_server(&new, now).await?;
        Ok((new.id, order))
    }

    /// A server to be: its row, and what the cloud will be asked for.
    fn intention(
        &self,
        prefix: &str,
        placement: Placement,
        labels: Labels,
        now: Moment,
    ) -> (NewServer, Order) {
        let id = ServerId::new(self.chance.uuid(now));
        let name = format!("{prefix}-{}", id.to_string().replace('_', "-"));
        let token = self.chance.secret();
        let new = NewServer {
            id,
            name: name.clone(),
            pool: self.policy.pool.clone(),
            placement: placement.clone(),
            token_hash: Sha256::digest(token.as_bytes()).into(),
            token_expires: now.plus(TOKEN_LIFETIME),
        };
        let user_data = UserData {
            server: id,
            enrolment_token: token,
            coordinators: self.introduction.coordinators.clone(),
            ca: self.introduction.ca.clone(),
            proxy: self.introduction.proxy.clone(),
            admission: None,
        };
        let order = Order {
            name,
            placement,
            labels,
            user_data,
            image: None,
        };
        (new, order)
    }
}

fn name_of(servers: &[Server], id: ServerId) -> String {
    servers
        .iter()
        .find(|server| server.id == id)
        .map_or_else(String::new, |server| server.name.clone())
}
