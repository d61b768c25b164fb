//! The data directory of a local Tidepool: what must be the same the next time.
//!
//! ```text
//! var/lock            held by the one process that runs on it
//! var/local.json      ports and network, chosen at the first run
//! var/client.json     address and token for the command line (0600)
//! var/tidepool.db     the store
//! var/certs/          certificate authority
//! var/link-keys       the link's stored keys
//! var/master.keys     opens the providers' keys in the store (0600)
//! var/servers/        the local cloud
//! var/usage/          the proxy's journal: usage that the store does not have yet
//! var/log/            logs of coordinator and proxy
//! ```

use std::{
    fs::{self, File, OpenOptions},
    net::{TcpListener, UdpSocket},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rand::Rng as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tidepool_certs::secret_file;
use tidepool_shared::id::TokenId;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::{
    LOOPBACK, UpOptions,
    log::{self, RollingLog},
};
use crate::{
    ambient::{Chance, Clock},
    api::auth,
    cli::target::Target,
    store::Store,
};

/// Opens the providers' keys in the store.
/// What servers fetch.
pub(crate) const ARTEFACTS: &str = "artefacts";
pub(crate) const MASTER_KEYS: &str = "master.keys";
pub(crate) const DATABASE: &str = "tidepool.db";

const DEFAULT_API_PORT: u16 = 7717;
const DEFAULT_EDGE_PORT: u16 = 8080;

/// Ports and network of this data directory.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct LocalPlaces {
    pub(super) api_port: u16,
    pub(super) edge_port: u16,
    pub(super) link_port: u16,
    pub(super) proxy_port: u16,
    /// First three octets of the servers' loopback addresses.
    pub(super) network: [u8; 3],
}

/// An open data directory; the lock goes with it.
pub(super) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens and locks it, creating it if need be.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("create data directory `{}`", path.display()))?;
        let path = path.canonicalize().context("find the data directory")?;
        let lock = private_file(&path.join("lock")).context("open the lock file")?;
        if lock.try_lock().is_err() {
            bail!("another `tidepool up` is running on `{}`", path.display());
        }
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a log file under `log/` for another program; it is begun anew at start only.
    pub(super) fn log_file(&self, name: &str) -> anyhow::Result<File> {
        let path = self.log_path(name)?;
        if fs::metadata(&path).is_ok_and(|log| log.len() > log::FULL) {
            log::put_aside(&path).context("put the old log aside")?;
        }
        log::open(&path).with_context(|| format!("open log `{}`", path.display()))
    }

    fn log_path(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.path.join("log");
        fs::create_dir_all(&dir).context("create the log directory")?;
        Ok(dir.join(name))
    }

    /// From here on this process logs to `log/coordinator.log`, as JSON.
    pub(super) fn begin_log(&self) -> anyhow::Result<()> {
        let path = self.log_path("coordinator.log")?;
        let file = RollingLog::open(path, log::FULL).context("open the coordinator's log")?;
        let filter = EnvFilter::try_from_env("TIDEPOOL_LOG").unwrap_or_else(|_| "info".into());
        tracing_subscriber::registry()
            .with(filter)
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .with_writer(std::sync::Mutex::new(file)),
            )
            .try_init()
            .context("begin the log")
    }

    /// The remembered places, or new ones that are free now.
    pub(super) fn places(&self, options: &UpOptions) -> anyhow::Result<LocalPlaces> {
        let path = self.path.join("local.json");
        let remembered: Option<LocalPlaces> = read_json(&path)?;
        let mut places = match remembered {
            Some(places) => places,
            None => LocalPlaces {
                api_port: free_tcp_port(Some(DEFAULT_API_PORT))?,
                edge_port: free_tcp_port(Some(DEFAULT_EDGE_PORT))?,
                link_port: free_udp_port()?,
                proxy_port: free_tcp_port(None)?,
                network: [
                    127,
                    rand::rng().random_range(64..=250),
                    rand::rng().random(),
                ],
            },
        };
        places.api_port = options.api_port.unwrap_or(places.api_port);
        if let Some(port) = options.edge_port {
            if remembered.is_some_and(|known| known.edge_port != port) {
                bail!(
                    "the edge of `{}` is on port {}: the addresses of its instances contain it. \
                     Use another --data-dir for another port",
                    self.path.display(),
                    places.edge_port
                );
            }
            places.edge_port = port;
        }
        write_json(&path, &places)?;
        Ok(places)
    }

    /// The command line's address and token; a token is made if none is remembered or it was revoked.
    pub(super) async fn client(
        &self,
        api_port: u16,
        store: &dyn Store,
        clock: &dyn Clock,
        chance: &Chance,
    ) -> anyhow::Result<Target> {
        let known = Target::read(&self.path).ok().map(|target| target.token);
        let token = match known {
            Some(known) if is_live(&known, store).await? => known,
            _ => {
                let (token, shown) =
                    auth::issue("tidepool up".to_owned(), None, clock.now(), chance);
                store
                    .create_api_token(&token)
                    .await
                    .context("create the API token")?;
                shown
            }
        };
        let target = Target {
            url: format!("http://{LOOPBACK}:{api_port}"),
            token,
        };
        target.write(&self.path).context("write client.json")?;
        Ok(target)
    }
}

async fn is_live(token: &str, store: &dyn Store) -> anyhow::Result<bool> {
    let Some(id) = token_id(token) else {
        return Ok(false);
    };
    Ok(store
        .api_token(id)
        .await?
        .is_some_and(|known| known.revoked_at.is_none()))
}

/// The public part of `tp_<id>_<secret>`.
fn token_id(token: &str) -> Option<TokenId> {
    let (id, _secret) = token.strip_prefix("tp_")?.rsplit_once('_')?;
    id.parse().ok()
}

fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("read `{}`", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read `{}`", path.display())),
    }
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    serde_json::to_vec_pretty(value)
        .map_err(std::io::Error::from)
        .and_then(|bytes| secret_file::write(path, &bytes))
        .with_context(|| format!("write `{}`", path.display()))
}

/// Ports are remembered, so they come from below the range that the kernel hands out to clients: there
/// nobody sits by chance at the next start.
const PORTS: std::ops::Range<u16> = 5_000..10_000;

const PORT_TRIES: usize = 1000;

/// The wanted port if it is free, or some that is.
fn free_tcp_port(wanted: Option<u16>) -> anyhow::Result<u16> {
    free_port(wanted, |port| TcpListener::bind((LOOPBACK, port)).is_ok())
}

fn free_udp_port() -> anyhow::Result<u16> {
    free_port(None, |port| UdpSocket::bind((LOOPBACK, port)).is_ok())
}

fn free_port(wanted: Option<u16>, is_free: impl Fn(u16) -> bool) -> anyhow::Result<u16> {
    let others = std::iter::repeat_with(|| rand::rng().random_range(PORTS)).take(PORT_TRIES);
    wanted
        .into_iter()
        .chain(others)
        .find(|port| is_free(*port))
        .context("find a free port")
}
