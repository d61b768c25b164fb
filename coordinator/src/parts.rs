//! The parts of a coordinator, constructed and wired the same way on one machine and in production.
//!
//! This module holds no logic of theirs. What differs (the store, the cloud, where to listen) is handed
//! in. What must not run twice on one store runs under the lease, see [`crate::lead`].

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use tidepool_certs::authority::Authority;
use tidepool_shared::{database_url::DatabaseUrl, id::CoordinatorId};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    agent_rollouts::AgentRollouts,
    ambient::{Chance, Clock},
    api::{self, ApiState, KeyTrial, Neighbours, PoolOutlook, Prices},
    artefacts::Artefacts,
    cloud::Cloud,
    config::ConfigSchema,
    domains::{Domains, DomainsSettings},
    doorbell::{self, Doorbell, postgres::Messenger},
    edge::{Edge, EdgeSettings},
    fleet::Fleet,
    instance::PublicNames,
    lead::Leadership,
    link::{self, LinkServer},
    pool::{Busy, Forecast, Introduction, Offer, Policy, Pool, Trials},
    presence::{Heartbeat, Presence},
    purge::Purge,
    ready::Readiness,
    restless::Watch,
    retention::Retention,
    routes::{Routes, RoutesSettings},
    store::{self, Store},
    sweep::{self, Sweep},
    upgrades::Upgrades,
};

/// What everything stands on.
pub struct Ground {
    pub store: Arc<dyn Store>,
    pub doorbell: Doorbell,
    /// Carries rings to other coordinators, if the store can have any.
    messenger: Option<Messenger>,
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<Chance>,
    /// Each start is another coordinator: what an earlier one held, this one does not.
    pub coordinator: CoordinatorId,
    pub cloud: Arc<dyn Cloud>,
}

/// What to build.
pub struct Plan {
    pub api: SocketAddr,
    /// The API's base URL as other coordinators reach it.
    pub advertised: Option<String>,
    /// Where agents dial this coordinator (UDP), and the file of the link's keys.
    pub link: SocketAddr,
    pub link_keys: PathBuf,
    /// Over how long agents spread their reconnects.
    pub reconnect_spread: Duration,
    pub edge: EdgeSettings,
    /// Of a Traefik that knows the instances itself, if there is one.
    pub routes: Option<RoutesSettings>,
    pub names: PublicNames,
    /// Customers' own names, if they may have any.
    pub domains: Option<DomainsSettings>,
    pub schema: Arc<ConfigSchema>,
    pub introduction: Introduction,
    pub pools: Vec<Policy>,
    pub master_keys: PathBuf,
    /// What servers can fetch from this coordinator.
    pub artefacts: Artefacts,
    /// What a boot takes, before one was measured.
    pub expected_boot: Duration,
    pub sweep: (sweep::Policy, Duration),
    pub deletion_grace: Duration,
}

/// All parts, bound to their ports, none running.
pub struct Parts {
    link: LinkServer,
    edge: Edge,
    listener: TcpListener,
    api: ApiState,
    readiness: Readiness,
    heartbeat: Heartbeat,
    leadership: Leadership,
    singletons: Arc<Singletons>,
    messenger: Option<Messenger>,
}

/// What one coordinator at a time runs.
struct Singletons {
    pools: Vec<Arc<Pool>>,
    trials: Option<Trials>,
    sweep: Sweep,
    presence: Presence,
    purge: Purge,
    retention: Retention,
    watch: Watch,
    fleet: Fleet,
    agent_rollouts: AgentRollouts,
    routes: Option<Routes>,
    domains: Option<Arc<Domains>>,
    upgrades: Upgrades,
}

impl Singletons {
    async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let tasks = TaskTracker::new();
        for pool in &self.pools {
            tasks.spawn(Arc::clone(pool).run(cancel.clone()));
        }
        tasks.close();
        let routes = async {
            if let Some(routes) = &self.routes {
                routes.run(cancel.clone()).await;
            }
        };
        let trials = async {
            if let Some(trials) = &self.trials {
                trials.run(cancel.clone()).await;
            }
        };
        let domains = async {
            if let Some(domains) = &self.domains {
                Arc::clone(domains).run(cancel.clone()).await;
            }
        };
        tokio::join!(
            routes,
            trials,
            domains,
            self.sweep.run(cancel.clone()),
            self.presence.run(cancel.clone()),
            self.purge.run(cancel.clone()),
            self.retention.run(cancel.clone()),
            self.watch.run(cancel.clone()),
            self.fleet.run(cancel.clone()),
            self.agent_rollouts.run(cancel.clone()),
            self.upgrades.run(cancel.clone()),
            tasks.wait(),
        );
    }
}

impl Parts {
    /// Builds everything and binds the ports.
    pub async fn construct(
        ground: Ground,
        plan: Plan,
        authority: Authority,
    ) -> anyhow::Result<Self> {
        let authority = Arc::new(authority);
        let link = ground.link(&plan, Arc::clone(&authority))?;
        let edge = ground.edge(plan.edge.clone(), authority).await?;
        let listener = TcpListener::bind(plan.api)
            .await
            .with_context(|| format!("listen on {} for the API", plan.api))?;
        let outlook = |policy: &Policy| {
            let (boot, at_once) = (plan.expected_boot, policy.creating_at_once);
            PoolOutlook::new(policy.pool.clone(), policy.floor, boot, at_once)
                .with_limits(policy.limits)
        };
        let outlooks: Vec<_> = plan.pools.iter().map(outlook).collect();
        let pools = plan.pools.iter().zip(&outlooks);
        let singletons = Singletons {
            pools: pools
                .map(|(policy, outlook)| Arc::new(ground.pool(&plan, policy, outlook)))
                .collect(),
            trials: ground.trials(&plan),
            sweep: ground.sweep(&plan.sweep),
            presence: ground.presence(),
            purge: ground.purge(),
            retention: ground.retention(),
            watch: ground.watch(),
            fleet: ground.fleet(&plan.pools),
            agent_rollouts: ground.agent_rollouts(),
            upgrades: ground.upgrades(plan.artefacts.clone()),
            routes: ground.routes(plan.routes.clone())?,
            domains: ground.domains(plan.domains.clone())?,
        };
        Ok(Self {
            readiness: ground.readiness(&edge),
            heartbeat: ground.heartbeat(plan.advertised.clone()),
            leadership: ground.leadership(),
            api: ground.api(plan, &link, outlooks)?,
            singletons: Arc::new(singletons),
            messenger: ground.messenger,
            link,
            edge,
            listener,
        })
    }

    /// Lets everything run until cancelled.
    pub fn start(self, tasks: &TaskTracker, cancel: &CancellationToken) {
        let token = || cancel.clone();
        if let Some(messenger) = self.messenger {
            tasks.spawn(messenger.run(token()));
        }
        tasks.spawn(self.link.run(token()));
        tasks.spawn(self.edge.run(token()));
        tasks.spawn(self.readiness.run(token()));
        tasks.spawn(self.heartbeat.run(token()));
        tasks.spawn(serve_api(self.listener, self.api, token()));
        let (leadership, singletons) = (self.leadership, self.singletons);
        let until = token();
        tasks.spawn(async move {
            let work = |token| Box::pin(Arc::clone(&singletons).run(token));
            leadership.run(until, work).await;
        });
    }
}

impl Ground {
    /// Opens the store; everything else follows from it.
    pub async fn open(
        database: &DatabaseUrl,
        cloud: Arc<dyn Cloud>,
        chance: Arc<Chance>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let now = clock.now();
        let (doorbell, messenger) = doorbell::postgres::for_database(database, &chance, now)
            .context("read the database's URL")?;
        Ok(Self {
            store: store::open(database, Arc::clone(&chance)).await?,
            doorbell,
            messenger,
            coordinator: CoordinatorId::new(chance.uuid(now)),
            clock,
            chance,
            cloud,
        })
    }

    fn link(&self, plan: &Plan, authority: Arc<Authority>) -> anyhow::Result<LinkServer> {
        let settings = link::Settings {
            reconnect_spread: plan.reconnect_spread,
            artefacts: plan.artefacts.clone(),
            ..link::Settings::new(self.coordinator, plan.link, plan.link_keys.clone())
        };
        Ok(LinkServer::bind(
            settings,
            Arc::clone(&self.store),
            self.doorbell.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&self.chance),
            authority,
        )?)
    }

    async fn edge(
        &self,
        settings: EdgeSettings,
        authority: Arc<Authority>,
    ) -> anyhow::Result<Edge> {
        let edge = Edge::bind(
            settings,
            Arc::clone(&self.store),
            &self.doorbell,
            authority,
            Arc::clone(&self.clock),
            Arc::clone(&self.chance),
        );
        Ok(edge.await?)
    }

    fn api(
        &self,
        plan: Plan,
        link: &LinkServer,
        pools: Vec<PoolOutlook>,
    ) -> anyhow::Result<ApiState> {
        Ok(ApiState {
            store: Arc::clone(&self.store),
            doorbell: self.doorbell.clone(),
            clock: Arc::clone(&self.clock),
            chance: Arc::clone(&self.chance),
            names: plan.names,
            domain_target: plan.domains.map(|domains| domains.target),
            schema: plan.schema,
            logs: Arc::new(link.links()),
            neighbours: Neighbours::new(self.coordinator),
            prices: Prices::of(Arc::clone(&self.cloud)),
            cloud: Arc::clone(&self.cloud),
            master_keys: plan.master_keys,
            artefacts: plan.artefacts,
            key_trial: KeyTrial::new()?,
            pools,
            deletion_grace: plan.deletion_grace,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        })
    }

    fn pool(&self, plan: &Plan, policy: &Policy, outlook: &PoolOutlook) -> Pool {
        Pool {
            store: Arc::clone(&self.store),
            cloud: Arc::clone(&self.cloud),
            doorbell: self.doorbell.clone(),
            clock: Arc::clone(&self.clock),
            chance: Arc::clone(&self.chance),
            policy: policy.clone(),
            introduction: plan.introduction.clone(),
            outlook: outlook.clone(),
            forecast: Forecast::new(plan.expected_boot),
            offer: Offer::default(),
            busy: Busy::default(),
        }
    }

    /// Nothing without pools: there is no place for a server then.
    fn trials(&self, plan: &Plan) -> Option<Trials> {
        let policy = Trials::policy(&plan.pools)?;
        let (target, boot) = (0, plan.expected_boot);
        // Nobody asks what a trial's pool expects.
        let outlook = PoolOutlook::new(policy.pool.clone(), target, boot, policy.creating_at_once);
        Some(Trials::new(self.pool(plan, &policy, &outlook)))
    }

    fn sweep(&self, (policy, interval): &(sweep::Policy, Duration)) -> Sweep {
        Sweep {
            store: Arc::clone(&self.store),
            cloud: Arc::clone(&self.cloud),
            doorbell: self.doorbell.clone(),
            clock: Arc::clone(&self.clock),
            policy: policy.clone(),
            interval: *interval,
            missed: Mutex::default(),
            stubborn: Mutex::default(),
        }
    }

    fn presence(&self) -> Presence {
        Presence {
            store: Arc::clone(&self.store),
            doorbell: self.doorbell.clone(),
            clock: Arc::clone(&self.clock),
        }
    }

    fn purge(&self) -> Purge {
        Purge {
            store: Arc::clone(&self.store),
            doorbell: self.doorbell.clone(),
            clock: Arc::clone(&self.clock),
        }
    }

    fn retention(&self) -> Retention {
        Retention {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
        }
    }

    fn watch(&self) -> Watch {
        Watch {
            store: Arc::clone(&self.store),
            doorbell: self.doorbell.clone(),
            clock: Arc::clone(&self.clock),
        }
    }

    fn fleet(&self, pools: &[Policy]) -> Fleet {
        Fleet {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            pools: pools.iter().map(|policy| policy.pool.clone()).collect(),
        }
    }

    fn agent_rollouts(&self) -> AgentRollouts {
        AgentRollouts {
            clock: Arc::clone(&self.clock),
            store: Arc::clone(&self.store),
            doorbell: self.doorbell.clone(),
        }
    }

    fn upgrades(&self, artefacts: Artefacts) -> Upgrades {
        Upgrades {
            store: Arc::clone(&self.store),
            doorbell: self.doorbell.clone(),
            clock: Arc::clone(&self.clock),
            chance: Arc::clone(&self.chance),
            artefacts,
        }
    }

    fn routes(&self, settings: Option<RoutesSettings>) -> anyhow::Result<Option<Routes>> {
        let routes = |settings| {
            let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
            Routes::new(settings, store, self.doorbell.clone(), clock)
        };
        let routes = settings.map(routes).transpose();
        routes.context("make the client of Traefik's API")
    }

    fn domains(&self, settings: Option<DomainsSettings>) -> anyhow::Result<Option<Arc<Domains>>> {
        let domains = |settings| {
            let (store, doorbell) = (Arc::clone(&self.store), self.doorbell.clone());
            let (clock, chance) = (Arc::clone(&self.clock), Arc::clone(&self.chance));
            Domains::new(settings, store, doorbell, clock, chance).map(Arc::new)
        };
        let domains = settings.map(domains).transpose();
        domains.context("make the client of the certificate authority")
    }

    fn readiness(&self, edge: &Edge) -> Readiness {
        Readiness {
            store: Arc::clone(&self.store),
            edge: edge.handle(),
            doorbell: self.doorbell.clone(),
            clock: Arc::clone(&self.clock),
        }
    }

    fn heartbeat(&self, advertised: Option<String>) -> Heartbeat {
        Heartbeat {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            coordinator: self.coordinator,
            advertised: advertised.unwrap_or_default(),
        }
    }

    fn leadership(&self) -> Leadership {
        Leadership {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            coordinator: self.coordinator,
        }
    }
}

/// Serves the API; requests that wait and streams end first, then those that must end anyway.
async fn serve_api(listener: TcpListener, state: ApiState, cancel: CancellationToken) {
    let (tasks, closing) = (state.tasks.clone(), state.closing.clone());
    let ending = cancel.clone();
    let close = async move {
        ending.cancelled().await;
        closing.cancel();
    };
    tokio::join!(close, api::serve(listener, api::router(state), cancel));
    tasks.close();
    tasks.wait().await;
}
