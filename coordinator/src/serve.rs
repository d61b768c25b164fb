//! `tidepool serve`: a coordinator in production, until it is told to stop.
//!
//! Several may run over one PostgreSQL database: any of them takes API calls and links, one at a time
//! leads. Nothing is found out by chance here: everything is in the configuration file, and whatever is
//! wrong in it is said before a port is bound (exit code 64).

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tidepool_certs::{authority::Authority, sealed::MasterKeys, secret_file};
use tidepool_shared::{
    database_url::{self, DatabaseUrl, GivenUrl},
    hops::Hops,
    user_data::Coordinators,
};
use time::OffsetDateTime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub mod config;
mod metrics;

use self::config::{Cloud as CloudConfig, Config};
use crate::{
    ambient::{Chance, Clock, SystemClock},
    artefacts::Artefacts,
    cloud::{Cloud, hetzner::HetznerCloud, nspawn::NspawnCloud},
    config::ConfigSchema,
    edge::{EdgeSettings, Questions},
    files,
    parts::{Ground, Parts, Plan},
    pool::Introduction,
    signals::Signals,
};

/// The configuration is wrong.
const USAGE: u8 = 64;

/// Everything must have ended this long after a signal.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// What a boot takes before one was measured: creation, start, warm-up.
const EXPECTED_BOOT: Duration = Duration::from_secs(90);

/// How to run a coordinator.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeOptions {
    /// The configuration file, TOML
    #[arg(long, env = "TIDEPOOL_CONFIG", hide_env_values = true)]
    pub config: PathBuf,
    /// The store, `sqlite:PATH` or `postgres://USER@HOST/NAME`. A URL with a password belongs in the
    /// environment or in the file [default: from the configuration file]
    #[arg(long, env = database_url::VARIABLE, hide_env_values = true, value_name = "URL")]
    pub database_url: Option<GivenUrl>,
    /// Only read and check the configuration
    #[arg(long)]
    pub check: bool,
}

/// Runs until SIGINT or SIGTERM.
pub async fn run(options: ServeOptions) -> anyhow::Result<ExitCode> {
    let read = Config::read(&options.config).and_then(|config| {
        let database = config.database(options.database_url.clone())?;
        Ok((config, database))
    });
    let (config, database) = match read {
        Ok(read) => read,
        Err(error) => {
            tracing::error!("{error:#}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    if options.check {
        return Ok(ExitCode::SUCCESS);
    }
    let (files, needed) = (files::allow_all(), files::needed(config.edge_connections()));
    if files < needed {
        tracing::warn!(
            files.limit = files,
            files.needed = needed,
            "too few files may be open for as many visitors as are let in: raise LimitNOFILE"
        );
    }
    let mut signals = Signals::listen().context("listen for signals")?;
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let exporter = PrometheusBuilder::new()
        .install_recorder()
        .context("set up metrics")?;
    start(config, database, exporter, &tasks, &cancel).await?;
    tasks.close();
    signals.stop().await;
    tracing::info!("coordinator stops");
    cancel.cancel();
    if tokio::time::timeout(STOP_DEADLINE, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("some parts did not end in time");
    }
    Ok(ExitCode::SUCCESS)
}

async fn start(
    config: Config,
    database: DatabaseUrl,
    exporter: PrometheusHandle,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    secret_file::create_dir(&config.state_dir).context("create the state directory")?;
    let (chance, clock) = (Arc::new(Chance::from_os()), Arc::new(SystemClock));
    let now = OffsetDateTime::from_unix_timestamp_nanos(i128::from(clock.now().0) * 1000)?;
    let authority = Authority::open_or_create(&config.state_dir.join("certs"), now)?;
    let cloud = cloud(
        &config,
        Arc::clone(&chance),
        Arc::clone(&clock),
        tasks,
        cancel,
    )
    .await?;
    let ground = Ground::open(&database, cloud, chance, clock).await?;
    let (metrics, coordinator) = (config.metrics, ground.coordinator);
    let parts = Parts::construct(ground, plan(&config, &authority)?, authority).await?;
    parts.start(tasks, cancel);
    if let Some(address) = metrics {
        metrics::serve(address, exporter, tasks, cancel.clone()).await?;
    }
    tracing::info!(coordinator.id = %coordinator, "coordinator is up");
    Ok(())
}

fn plan(config: &Config, authority: &Authority) -> anyhow::Result<Plan> {
    let manifest = crate::up::read_manifest(&config.manifest)?;
    let introduction = Introduction {
        coordinators: Coordinators::try_from(config.link.coordinators.clone())?,
        ca: authority.root_pem().to_owned(),
        proxy: config.proxy_url.clone(),
    };
    MasterKeys::read_or_create(&config.master_keys())?;
    Ok(Plan {
        api: config.api.listen,
        advertised: config.api.advertise.clone(),
        link: config.link.listen,
        link_keys: config.state_dir.join("link-keys"),
        reconnect_spread: Duration::from_secs(config.link.reconnect_spread_s),
        edge: EdgeSettings {
            listen: config.edge.listen,
            https: config.edge.is_https(),
            public_port: Some(config.edge.public_port()),
            http_port: config.edge.server_port,
            trusted_hops: Hops::of(&config.edge.trusted_hops),
            questions: config.edge.redis.as_ref().map(|_| Questions {
                domain: config.edge.domain.clone(),
                secrets: config.traefik_secrets(),
            }),
            domains: config.domain_door(),
            max_connections: config.edge.max_connections,
            ..EdgeSettings::default()
        },
        routes: config.routes()?,
        names: config.names(),
        domains: config.domains()?,
        schema: Arc::new(ConfigSchema::read(&manifest.config_schema)?),
        introduction,
        pools: config.pools.iter().map(config::Pool::policy).collect(),
        master_keys: config.master_keys(),
        artefacts: Artefacts::new(config.artefacts()),
        expected_boot: EXPECTED_BOOT,
        sweep: config.sweep(),
        deletion_grace: Duration::from_secs(config.deletion_grace_s),
    })
}

async fn cloud(
    config: &Config,
    chance: Arc<Chance>,
    clock: Arc<SystemClock>,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) -> anyhow::Result<Arc<dyn Cloud>> {
    match &config.cloud {
        CloudConfig::Hetzner(settings) => Ok(Arc::new(HetznerCloud::open(
            settings.clone(),
            clock,
            chance,
        )?)),
        CloudConfig::Nspawn(settings) => {
            let cloud = NspawnCloud::open(settings.clone()).await?;
            let (supervised, until) = (cloud.clone(), cancel.clone());
            tasks.spawn(async move { supervised.supervise(until).await });
            Ok(Arc::new(cloud))
        }
    }
}
