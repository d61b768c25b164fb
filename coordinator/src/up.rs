//! `tidepool up`: the whole of Tidepool on this machine, until Ctrl-C.
//!
//! The same parts as in production behind other seams: SQLite, the local cloud, the built-in edge, the
//! proxy's demo provider. This module only constructs and wires; it holds no logic of theirs. Whatever
//! must be the same the next time (ports, network, keys, token) is remembered in the data directory,
//! because URLs and servers outlive the process.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tidepool_certs::{authority::Authority, sealed::MasterKeys};
use tidepool_shared::{
    database_url::{self, DatabaseUrl, GivenUrl},
    document::GatewayLimits,
    manifest::ImageManifest,
};
use time::OffsetDateTime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod data;
mod log;
mod proxy;
mod screen;

use crate::{
    ambient::{Chance, Clock, SystemClock},
    artefacts::Artefacts,
    cli::target::Target,
    cloud::{
        Placement,
        local::{LocalCloud, LocalSettings},
    },
    config::ConfigSchema,
    edge::EdgeSettings,
    files,
    instance::PublicNames,
    model::PoolKey,
    parts::{Ground, Parts, Plan},
    pool::{Introduction, Policy},
    signals::Signals,
    store::Store,
    sweep,
};
pub(crate) use data::{ARTEFACTS, DATABASE, MASTER_KEYS};
use data::{DataDir, LocalPlaces};
use proxy::ProxyProcess;
use screen::Screen;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Under which every local instance has its name; browsers know that it is this machine.
const DOMAIN: &str = "localhost";

/// The only tier of local mode.
const TIER: &str = "basic";

/// Its only region, and what its servers are made as.
const HERE: &str = "local";

/// Where nginx listens on every local server's own address.
const SERVER_HTTP_PORT: u16 = 8080;

/// A handful of agents on one machine need no spreading out.
const RECONNECT_SPREAD: Duration = Duration::from_millis(200);

/// What a customer is told to expect before the first boot was measured.
const EXPECTED_BOOT: Duration = Duration::from_secs(40);

const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

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
    /// Seconds in which a deleted instance can be brought back; its server is kept running meanwhile
    #[arg(
        long,
        env = "TIDEPOOL_DELETION_GRACE",
        hide_env_values = true,
        default_value_t = 0
    )]
    pub deletion_grace: u64,
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

/// Runs until SIGINT or SIGTERM, or until its terminal is closed.
pub async fn run(options: UpOptions, data_dir: &Path) -> anyhow::Result<()> {
    let data = DataDir::open(data_dir)?;
    data.begin_log()?;
    files::allow_all();
    let mut signals = Signals::listen().context("listen for signals")?;
    let places = data.places(&options)?;
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let (local, client) = Local::construct(&options, &data, &places).await?;
    local.power_on().await?;
    let (store, cloud) = (Arc::clone(&local.store), local.cloud.clone());
    local.start(&tasks, &cancel);
    tasks.close();
    tracing::info!(api = %client.url, edge.port = places.edge_port, "tidepool is up");
    let screen = Screen::begin();
    tokio::select! {
        () = signals.stop() => {}
        shown = screen.show(store.as_ref(), &options, data_dir, &client) => {
            // Nothing to see is no reason to leave: everything runs on, and is stopped in order.
            if let Err(error) = shown {
                tracing::warn!(error = format!("{error:#}"), "the pool is not shown any more");
            }
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

/// What is running besides the parts of every coordinator.
struct Local {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    cloud: LocalCloud,
    proxy: ProxyProcess,
    parts: Parts,
}

impl Local {
    async fn construct(
        options: &UpOptions,
        data: &DataDir,
        places: &LocalPlaces,
    ) -> anyhow::Result<(Self, Target)> {
        let manifest = read_manifest(&options.manifest)?;
        let (chance, clock) = (Arc::new(Chance::from_os()), Arc::new(SystemClock));
        let database = database(options, data)?;
        let cloud = LocalCloud::open(local_settings(options, data, places, &manifest)?)?;
        let seam = Arc::new(cloud.clone());
        let ground = Ground::open(
            &database,
            seam,
            chance,
            Arc::clone(&clock) as Arc<dyn Clock>,
        )
        .await?;
        let now = OffsetDateTime::from_unix_timestamp_nanos(i128::from(clock.now().0) * 1000)?;
        let authority = Authority::open_or_create(&data.join("certs"), now)?;
        let plan = plan(options, data, places, &manifest, &authority)?;
        let store = Arc::clone(&ground.store);
        let client = data
            .client(
                places.api_port,
                store.as_ref(),
                clock.as_ref(),
                &ground.chance,
            )
            .await?;
        let local = Self {
            parts: Parts::construct(ground, plan, authority).await?,
            proxy: ProxyProcess {
                program: beside_this(options.proxy.as_ref(), "tidepool-proxy")?,
                port: places.proxy_port,
                database,
                log: data.log_file("proxy.log")?,
                lock: data.join("proxy.lock"),
                journal: data.join("usage"),
                master_keys: data.join(MASTER_KEYS),
            },
            store,
            clock,
            cloud,
        };
        Ok((local, client))
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
        self.parts.start(tasks, cancel);
        tasks.spawn(self.proxy.run(cancel.clone()));
        let (cloud, supervised) = (self.cloud, cancel.clone());
        tasks.spawn(async move { cloud.supervise(supervised).await });
    }
}

fn plan(
    options: &UpOptions,
    data: &DataDir,
    places: &LocalPlaces,
    manifest: &ImageManifest,
    authority: &Authority,
) -> anyhow::Result<Plan> {
    let link = SocketAddr::from((LOOPBACK, places.link_port));
    MasterKeys::read_or_create(&data.join(MASTER_KEYS))?;
    Ok(Plan {
        api: (LOOPBACK, places.api_port).into(),
        advertised: None,
        link,
        link_keys: data.join("link-keys"),
        reconnect_spread: RECONNECT_SPREAD,
        edge: EdgeSettings {
            listen: (LOOPBACK, places.edge_port).into(),
            http_port: SERVER_HTTP_PORT,
            ..EdgeSettings::default()
        },
        routes: None,
        names: PublicNames {
            domain: DOMAIN.to_owned(),
            scheme: "http".to_owned(),
            port: Some(places.edge_port),
        },
        domains: None,
        schema: Arc::new(ConfigSchema::read(&manifest.config_schema)?),
        introduction: Introduction {
            coordinators: link.into(),
            ca: authority.root_pem().to_owned(),
            proxy: format!("http://{LOOPBACK}:{}", places.proxy_port),
        },
        pools: vec![policy(options)],
        master_keys: data.join(MASTER_KEYS),
        artefacts: Artefacts::new(data.join(ARTEFACTS)),
        expected_boot: EXPECTED_BOOT,
        sweep: (sweep::Policy::default(), SWEEP_INTERVAL),
        deletion_grace: Duration::from_secs(options.deletion_grace),
    })
}

/// The database that was asked for, or the file in the data directory.
fn database(options: &UpOptions, data: &DataDir) -> anyhow::Result<DatabaseUrl> {
    match &options.database_url {
        Some(given) => given.read().context("read --database-url"),
        None => Ok(DatabaseUrl::Sqlite(data.join(DATABASE))),
    }
}

fn policy(options: &UpOptions) -> Policy {
    Policy {
        pool: PoolKey {
            tier: TIER.to_owned(),
            region: HERE.to_owned(),
        },
        placements: vec![Placement {
            server_type: HERE.to_owned(),
            location: HERE.to_owned(),
        }],
        // A person's machine pays for every idle server, so their number is what was asked for.
        floor: options.pool_size,
        most_idle: options.pool_size,
        hits_per_mille: 0,
        idle_budget_cents: None,
        ceiling: options.max_servers,
        creating_at_once: options.starting_at_once,
        boot_deadline: Duration::from_mins(5),
        address_rest: Duration::ZERO,
        minimum_idle: Duration::from_mins(1),
        max_age: Duration::from_hours(30 * 24),
        failure_pause: Duration::from_secs(5),
        halt_after: 10,
        below_target_for: Duration::from_mins(10),
        limits: GatewayLimits::default(),
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
        image: format!("openclaw-{}", manifest.openclaw_version),
    })
}

pub(crate) fn read_manifest(path: &Path) -> anyhow::Result<ImageManifest> {
    let text = std::fs::read(path)
        .with_context(|| format!("read the image's manifest `{}`", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("read the image's manifest `{}`", path.display()))
}

/// The program that was given, or the one in this program's directory.
pub(crate) fn beside_this(given: Option<&PathBuf>, name: &str) -> anyhow::Result<PathBuf> {
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
