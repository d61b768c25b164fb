//! Settings, from the command line or the environment.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::Parser;
use tidepool_shared::database_url::{self, GivenUrl};

/// The model proxy of Tidepool.
#[derive(Clone, Parser)]
#[command(name = "tidepool-proxy", version)]
pub struct Settings {
    /// Address and port to listen on. Servers must reach it directly: they are known by their source
    /// address.
    #[arg(long, env = "TIDEPOOL_PROXY_LISTEN", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// The coordinator's database, `sqlite:PATH` or `postgres://...`. A URL with a password belongs in the
    /// environment: arguments are shown to everybody on the machine.
    #[arg(
        long,
        env = database_url::VARIABLE,
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database: GivenUrl,
    /// A directory of this process's own, for the journal of usage: rows wait here until the database has
    /// them, also through a restart.
    #[arg(long, env = "TIDEPOOL_PROXY_JOURNAL", value_name = "DIR")]
    pub journal: PathBuf,
    /// The file with the master keys that open providers' keys; the coordinator makes it.
    #[arg(long, env = "TIDEPOOL_MASTER_KEYS", value_name = "PATH")]
    pub master_keys: Option<PathBuf>,
    /// A load balancer in front of this proxy: whoever it names last in X-Forwarded-For is the caller. From
    /// others that header means nothing. May be given several times.
    #[arg(
        long,
        env = "TIDEPOOL_PROXY_TRUSTED_HOPS",
        value_delimiter = ',',
        value_name = "ADDR"
    )]
    pub trusted_hop: Vec<IpAddr>,
    /// Redis, where all proxies count requests and tokens a minute together: `redis://HOST:PORT/DB` or
    /// `unix:PATH`. Without it each counts for itself. A URL with a password belongs in the environment.
    #[arg(
        long,
        env = "TIDEPOOL_REDIS_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub redis: Option<String>,
    /// The operator's own prices, in LiteLLM's format: they go before the built-in ones. Read again on
    /// SIGUSR1.
    #[arg(long, env = "TIDEPOOL_PRICES", value_name = "FILE")]
    pub prices: Option<PathBuf>,
    /// Where `GET /metrics` is answered, for Prometheus; a loopback address.
    #[arg(long, env = "TIDEPOOL_PROXY_METRICS", value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,
    /// A file to hold locked for as long as this process lives; it says which process that is.
    #[arg(long, env = "TIDEPOOL_PROXY_LOCK", value_name = "PATH")]
    pub lock: Option<PathBuf>,
    /// What to log, as a `tracing` filter.
    #[arg(
        long,
        env = "TIDEPOOL_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,
}
