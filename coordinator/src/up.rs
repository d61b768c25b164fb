//! `tidepool up`: the whole of Tidepool on this machine, until Ctrl-C.
//!
//! The same parts as in production behind other seams: SQLite, the local cloud, the built-in edge, the
//! proxy's demo provider. This module only constructs and wires; it holds no logic of theirs. Whatever
//! must be the same the next time (ports, network, keys, token) is remembered in the data directory,
//! because URLs and servers outlive the process.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::Context as _;
use tidepool_certs::authority::Authority;
use tidepool_shared::{
    database_url::{self, DatabaseUrl, GivenUrl},
    id::CoordinatorId,
    manifest::ImageManifest,
};
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod data;
mod proxy;
mod screen;

use crate::{
    ambient::{Chance, Clock, SystemClock},
    api::{self, ApiState, TierOutlook},
    cli::target::Target,
    cloud::{
        Placement,
        local::{LocalCloud, LocalSettings},
    },
    config::ConfigSchema,
    doorbell::{self, Doorbell, postgres::Messenger},
    edge::{Edge, EdgeSettings},
    instance::PublicNames,
    link::{self, LinkServer},
    pool::{Busy, Introduction, Policy, Pool},
    presence::Presence,
    ready::Readiness,
    retention::Retention,
    store::{self, Store},
};
use data::{DataDir, LocalPlaces};
use proxy::ProxyProcess;
use screen::Screen;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Under which every local instance has its name; browsers know that it is this machine.
const DOMAIN: &str = "localhost";

/// The only tier of local mode.
const TIER: &str = "basic";

/// Where nginx listens on every local server's own address.
const SERVER_HTTP_PORT: u16 = 8080;

/// A handful of agents on one machine need no spreading out.
const RECONNECT_SPREAD: Duration = Duration::from_millis(200);

/// What a customer is told to expect before the first boot was measured.
const FIRST_BOOT_ESTIMATE_S: u64 = 40;

/// Everything that ends with the process must have ended this long after Ctrl-C; servers have their
/// own deadline.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// How to run everything on this machine.
#[derive(Debug, Clone, clap::Args)]
pub struct UpOptions {
    /// The image that servers are made from: its manifest.json
    #[arg(long, env = "TIDEPOOL_MANIFEST", hide_env_values = true)]
    pub manifest: PathBuf,
    /// Warm servers to keep waiting; each takes about 1.5 GB of memory
    #[arg(
        long,
        env = "TIDEPOOL_POOL_SIZE",
        hide_env_values = true,
        default_value_t = 1
    )]
    pub pool_size: u32,
    /// Servers that may exist at once
    #[arg(
        long,
        env = "TIDEPOOL_MAX_SERVERS",
        hide_env_values = true,
        default_value_t = 8
    )]
    pub max_servers: u32,
    /// Servers that may be started at once
    #[arg(
        long,
        env = "TIDEPOOL_STARTING_AT_ONCE",
        hide_env_values = true,
        default_value_t = 1
    )]
    pub starting_at_once: u32,
    /// Port of the API and console; remembered [default: 7717, or a free one]
    #[arg(long, env = "TIDEPOOL_API_PORT", hide_env_values = true)]
    pub api_port: Option<u16>,
    /// Port under which customers' names answer; remembered [default: 8080, or a free one]
    #[arg(long, env = "TIDEPOOL_EDGE_PORT", hide_env_values = true)]
    pub edge_port: Option<u16>,
    /// The store, `sqlite:PATH` or `postgres://USER@HOST/NAME`. A URL with a password belongs in the
    /// environment: arguments are shown to everybody on the machine [default: a file in --data-dir]
    #[arg(long, env = database_url::VARIABLE, hide_env_values = true, value_name = "URL")]
    pub database_url: Option<GivenUrl>,
    /// The agent's program [default: beside this one]
    #[arg(long, env = "TIDEPOOL_AGENT", hide_env_values = true)]
    pub agent: Option<PathBuf>,
    /// The proxy's program [default: beside this one]
    #[arg(long, env = "TIDEPOOL_PROXY", hide_env_values = true)]
    pub proxy: Option<PathBuf>,
}

/// Runs until SIGINT or SIGTERM.
pub async fn run(options: UpOptions, data_dir: &Path) -> anyhow::Result<()> {
    let data = DataDir::open(data_dir)?;
    data.begin_log()?;
    let mut signals = Signals::listen().context("listen for signals")?;
    let places = data.places(&options)?;
    let parts = Parts::construct(&options, &data, &places).await?;
    let client = parts.client(&data, &places).await?;
    parts.power_on().await?;
    let (store, cloud) = (Arc::clone(&parts.store), parts.cloud.clone());
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    parts.start(&tasks, &cancel);
    tasks.close();
    tracing::info!(api = %client.url, edge.port = places.edge_port, "tidepool is up");
    let screen = Screen::begin();
    tokio::select! {
        () = signals.stop() => {}
        shown = screen.show(store.as_ref(), &options, data_dir, &client) => {
            shown?;
            signals.stop().await;
        }
    }
    screen.stopping();
    cancel.cancel();
    if tokio::time::timeout(STOP_DEADLINE, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("some parts did not end in time");
    }
    cloud.power_off().await.context("stop the local servers")?;
    tracing::info!("tidepool is down");
    screen.stopped();
    Ok(())
}

/// The signals that end everything.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! { _ = self.interrupt.recv() => {} _ = self.terminate.recv() => {} }
    }
}

/// What almost every part is handed.
struct Common {
    coordinator: CoordinatorId,
    store: Arc<dyn Store>,
    doorbell: Doorbell,
    clock: Arc<dyn Clock>,
    chance: Arc<Chance>,
}

/// All parts, constructed and bound to their ports, none running.
struct Parts {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    chance: Arc<Chance>,
    cloud: LocalCloud,
    link: LinkServer,
    edge: Edge,
    listener: TcpListener,
    api: ApiState,
    pool: Pool,
    readiness: Readiness,
    presence: Presence,
    retention: Retention,
    proxy: ProxyProcess,
    /// Carries rings to other coordinators, if the store can have any.
    messenger: Option<Messenger>,
}

impl Parts {
    async fn construct(
        options: &UpOptions,
        data: &DataDir,
        places: &LocalPlaces,
    ) -> anyhow::Result<Self> {
        let manifest = read_manifest(&options.manifest)?;
        let schema = Arc::new(ConfigSchema::read(&manifest.config_schema)?);
        let chance = Arc::new(Chance::from_os());
        let database = database(options, data)?;
        let (doorbell, messenger) =
            doorbell::postgres::for_database(&database, &chance, SystemClock.now())
                .context("read the database's URL")?;
        let common = Common {
            coordinator: CoordinatorId::new(chance.uuid(SystemClock.now())),
            store: store::open(&database, Arc::clone(&chance)).await?,
            doorbell,
            clock: Arc::new(SystemClock),
            chance,
        };
        let (link, introduction) = common.link(data, places)?;
        let edge = common.edge(places).await?;
        let listener = listen(places.api_port).await?;
        let outlook = TierOutlook {
            name: TIER.to_owned(),
            target: Arc::new(AtomicU64::new(options.pool_size.into())),
            boot_estimate_s: Arc::new(AtomicU64::new(FIRST_BOOT_ESTIMATE_S)),
            boots_at_once: options.starting_at_once.into(),
        };
        let cloud = LocalCloud::open(local_settings(options, data, places, &manifest)?)?;
        Ok(Self {
            api: common.api(places, schema, &link, outlook.clone()),
            pool: common.pool(options, &cloud, introduction, outlook),
            readiness: Readiness {
                store: Arc::clone(&common.store),
                edge: edge.handle(),
                doorbell: common.doorbell.clone(),
                clock: Arc::clone(&common.clock),
            },
            presence: Presence {
                store: Arc::clone(&common.store),
                links: link.links(),
                doorbell: common.doorbell.clone(),
                clock: Arc::clone(&common.clock),
            },
            retention: Retention {
                store: Arc::clone(&common.store),
                clock: Arc::clone(&common.clock),
            },
            proxy: ProxyProcess {
                program: beside_this(options.proxy.as_ref(), "tidepool-proxy")?,
                port: places.proxy_port,
                database,
                log: data.log_file("proxy.log")?,
                mark: data.join("proxy.pid"),
            },
            messenger,
            store: common.store,
            clock: common.clock,
            chance: common.chance,
            cloud,
            link,
            edge,
            listener,
        })
    }

    async fn client(&self, data: &DataDir, places: &LocalPlaces) -> anyhow::Result<Target> {
        let (store, clock) = (self.store.as_ref(), self.clock.as_ref());
        data.client(places.api_port, store, clock, &self.chance)
            .await
    }

    /// Switches every server on. Of those that were off nothing is known until their agents speak.
    async fn power_on(&self) -> anyhow::Result<()> {
        let were_off = self
            .cloud
            .power_on()
            .await
            .context("start the local servers")?;
        for server in self.store.servers().await? {
            if were_off.contains(&server.name) {
                let now = self.clock.now();
                self.store
                    .mark_unheard(server.id, "switched off", now)
                    .await?;
            }
        }
        Ok(())
    }

    /// Lets everything run until cancelled.
    fn start(self, tasks: &TaskTracker, cancel: &CancellationToken) {
        let cloud = self.cloud;
        let token = || cancel.clone();
        if let Some(messenger) = self.messenger {
            tasks.spawn(messenger.run(token()));
        }
        tasks.spawn(self.link.run(token()));
        tasks.spawn(self.edge.run(token()));
        tasks.spawn(self.pool.run(token()));
        tasks.spawn(self.readiness.run(token()));
        tasks.spawn(self.presence.run(token()));
        tasks.spawn(self.retention.run(token()));
        tasks.spawn(self.proxy.run(token()));
        let supervised = token();
        tasks.spawn(async move { cloud.supervise(supervised).await });
        tasks.spawn(serve_api(self.listener, self.api, token()));
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

impl Common {
    fn link(
        &self,
        data: &DataDir,
        places: &LocalPlaces,
    ) -> anyhow::Result<(LinkServer, Introduction)> {
        let now = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.clock.now().0) * 1000)?;
        let authority = Authority::open_or_create(&data.join("certs"), now)?;
        let coordinator = SocketAddr::from((LOOPBACK, places.link_port));
        let introduction = Introduction {
            coordinator,
            ca: authority.root_pem().to_owned(),
            proxy: format!("http://{LOOPBACK}:{}", places.proxy_port),
        };
        let link = LinkServer::bind(
            link::Settings {
                reconnect_spread: RECONNECT_SPREAD,
                ..link::Settings::new(self.coordinator, coordinator, data.join("link-keys"))
            },
            Arc::clone(&self.store),
            self.doorbell.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&self.chance),
            authority,
        )?;
        Ok((link, introduction))
    }

    async fn edge(&self, places: &LocalPlaces) -> anyhow::Result<Edge> {
        let settings = EdgeSettings {
            listen: (LOOPBACK, places.edge_port).into(),
            http_port: SERVER_HTTP_PORT,
            ..EdgeSettings::default()
        };
        let edge = Edge::bind(
            settings,
            Arc::clone(&self.store),
            &self.doorbell,
            Arc::clone(&self.clock),
            Arc::clone(&self.chance),
        );
        Ok(edge.await?)
    }

    fn api(
        &self,
        places: &LocalPlaces,
        schema: Arc<ConfigSchema>,
        link: &LinkServer,
        outlook: TierOutlook,
    ) -> ApiState {
        ApiState {
            store: Arc::clone(&self.store),
            doorbell: self.doorbell.clone(),
            clock: Arc::clone(&self.clock),
            chance: Arc::clone(&self.chance),
            names: PublicNames {
                domain: DOMAIN.to_owned(),
                scheme: "http".to_owned(),
                port: Some(places.edge_port),
            },
            schema,
            logs: Arc::new(link.links()),
            tiers: vec![outlook],
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    fn pool(
        &self,
        options: &UpOptions,
        cloud: &LocalCloud,
        introduction: Introduction,
        outlook: TierOutlook,
    ) -> Pool {
        Pool {
            store: Arc::clone(&self.store),
            cloud: Arc::new(cloud.clone()),
            doorbell: self.doorbell.clone(),
            clock: Arc::clone(&self.clock),
            chance: Arc::clone(&self.chance),
            policy: policy(options),
            introduction,
            outlook,
            busy: Busy::default(),
        }
    }
}

/// The database that was asked for, or the file in the data directory.
fn database(options: &UpOptions, data: &DataDir) -> anyhow::Result<DatabaseUrl> {
    match &options.database_url {
        Some(given) => given.read().context("read --database-url"),
        None => Ok(DatabaseUrl::Sqlite(data.join("tidepool.db"))),
    }
}

fn policy(options: &UpOptions) -> Policy {
    Policy {
        tier: TIER.to_owned(),
        placement: Placement {
            server_type: "local".to_owned(),
            location: "here".to_owned(),
        },
        size: options.pool_size,
        ceiling: options.max_servers,
        creating_at_once: options.starting_at_once,
        boot_deadline: Duration::from_mins(5),
        minimum_idle: Duration::from_mins(1),
        failure_pause: Duration::from_secs(5),
    }
}

fn local_settings(
    options: &UpOptions,
    data: &DataDir,
    places: &LocalPlaces,
    manifest: &ImageManifest,
) -> anyhow::Result<LocalSettings> {
    Ok(LocalSettings {
        directory: data.join("servers"),
        agent: beside_this(options.agent.as_ref(), "tidepool-agent")?,
        manifest: options
            .manifest
            .canonicalize()
            .context("find the image's manifest")?,
        network: places.network,
        http_port: SERVER_HTTP_PORT,
        gateway_ports: manifest.gateway_ports,
    })
}

fn read_manifest(path: &Path) -> anyhow::Result<ImageManifest> {
    let text = std::fs::read(path)
        .with_context(|| format!("read the image's manifest `{}`", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("read the image's manifest `{}`", path.display()))
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((LOOPBACK, port))
        .await
        .with_context(|| format!("listen on {LOOPBACK}:{port} for the API (see --api-port)"))
}

/// The program that was given, or the one in this program's directory.
fn beside_this(given: Option<&PathBuf>, name: &str) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.clone());
    }
    let this = std::env::current_exe().context("find this program")?;
    let path = this.with_file_name(name);
    anyhow::ensure!(
        path.is_file(),
        "`{}` is missing: build the workspace",
        path.display()
    );
    Ok(path)
}
