//! Settings, from the command line or the environment.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;

/// The model proxy of Tidepool.
#[derive(Debug, Clone, Parser)]
#[command(name = "tidepool-proxy", version)]
pub struct Settings {
    /// Address and port to listen on. Servers must reach it directly: they are known by their source
    /// address.
    #[arg(long, env = "TIDEPOOL_PROXY_LISTEN", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// The coordinator's SQLite database; opened read-only.
    #[arg(long, env = "TIDEPOOL_DATABASE", value_name = "PATH")]
    pub database: PathBuf,
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
