//! The built-in edge: the one public door of a single-machine Tidepool.
//!
//! A host name leads to an instance's server or to a clear page that says why not. Only a signed-in
//! user passes: a session opened by a login link, or HTTP basic auth; and, as nobody, a web hook that
//! brings a token or a signature for the gateway to judge. What passes carries the instance's proof to the server's
//! nginx, which refuses whatever has none; everything a client might say about who it is or where it
//! comes from is dropped on the way.
//!
//! The table of routes is a cache of the store, swapped as a whole, fed by the doorbell and looked
//! over on a timer. Bodies pass in both directions as they come; nothing is held back. When an
//! instance's access ends, its open streams and WebSockets end with it.
//!
//! Customers' own names come by a listener of their own, where their TLS ends ([`tls`]).
//!
//! Traefik may pass requests to the servers itself ([`crate::routes`]). Then it asks this edge about each of
//! them ([`authorize`]), and what passes is decided by the same judgement.
//!
//! Way not taken: a ready-made reverse-proxy crate. Those looked at rewrite the host, pass forged
//! forwarding headers on, or bring a server runtime of their own.

mod access;
mod authorize;
mod basic;
mod body;
mod certificates;
mod challenge;
mod follow;
mod forward;
mod guesses;
mod handle;
mod headers;
mod hop;
mod host;
mod login;
mod logout;
mod lookups;
mod own;
mod pace;
mod page;
mod passes;
mod places;
mod proxied;
mod serve;
mod servers;
mod sessions;
mod table;
mod tls;
mod upgrade;
mod verify;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tidepool_certs::{authority::Authority, tls::TlsError};
use tidepool_shared::{hops::Hops, id::InstanceId, quota::Quota};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    access::Gate, certificates::Certificates, hop::Secrets, host::Site, lookups::Lookups,
    pace::Pace, places::Places, serve::Door, servers::Servers, table::Table,
};
pub use self::{
    authorize::{CHECK, PATH as AUTHORIZE},
    headers::claims_pattern,
    hop::{HOP, secret as hop_secret},
    verify::NotReachable,
};
pub use crate::two_secrets::Rotation;
use crate::{
    ambient::{Chance, Clock, Moment},
    doorbell::{Doorbell, Listener},
    model::Instance,
    store::{AccessStore, CertificateStore, RouteStore, Store, StoreError},
};

/// How the edge is set up.
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    pub listen: SocketAddr,
    /// Whether browsers reach this edge by https (something in front ends TLS).
    pub https: bool,
    /// The port in the public URLs; `None`: the one it listens on.
    pub public_port: Option<u16>,
    /// Where nginx listens on every server.
    pub http_port: u16,
    /// How long a session opened by a login link lives.
    pub session: Duration,
    /// Connections from clients at the same time, WebSockets included; by the door for customers' own names as many
    /// again.
    pub max_connections: usize,
    /// Of these from one address.
    pub max_connections_of_one: usize,
    /// What stands in front of this edge and says who visits; bounds for one address are not for it.
    pub trusted_hops: Hops,
    /// `None`: hops ask nothing, and nobody is answered.
    pub questions: Option<Questions>,
    /// Requests to one instance that are not answered to the end, at the same time: of its owner, and of web hooks,
    /// so that strangers who send hooks take nothing from the owner.
    pub max_requests_of_one: usize,
    /// WebSockets at the same time to one instance.
    pub max_websockets_of_one: usize,
    /// How long requests under way may take to end at shutdown.
    pub drain: Duration,
    /// Where TLS ends for customers' own names; nowhere if absent.
    pub domains: Option<DomainDoor>,
}

/// The door for customers' own names.
#[derive(Debug, Clone)]
pub struct DomainDoor {
    /// Trusted hops pass connections on to it unopened, behind a PROXY header of version 2.
    pub listen: SocketAddr,
    /// The file of the keys that open certificates' keys.
    pub master_keys: PathBuf,
}

impl Default for EdgeSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            https: false,
            public_port: None,
            http_port: 8080,
            session: Duration::from_hours(12),
            max_connections: 10_000,
            max_connections_of_one: 512,
            trusted_hops: Hops::default(),
            questions: None,
            max_requests_of_one: 512,
            max_websockets_of_one: 256,
            drain: Duration::from_secs(10),
            domains: None,
        }
    }
}

/// What hops ask about, and how they are known.
#[derive(Debug, Clone)]
pub struct Questions {
    /// Requests to names below it; never asked by such a name.
    pub domain: String,
    /// The file of secrets, one of which a hop must know.
    pub secrets: PathBuf,
}

/// What the edge reads of the store.
#[derive(Clone)]
pub struct EdgeStore {
    pub routes: Arc<dyn RouteStore>,
    pub access: Arc<dyn AccessStore>,
    pub certificates: Arc<dyn CertificateStore>,
}

impl From<Arc<dyn Store>> for EdgeStore {
    fn from(store: Arc<dyn Store>) -> Self {
        Self {
            routes: Arc::clone(&store) as Arc<dyn RouteStore>,
            certificates: Arc::clone(&store) as Arc<dyn CertificateStore>,
            access: store,
        }
    }
}

/// Why the edge did not come up.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("read the routes")]
    Routes(#[source] StoreError),
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
    #[error("the clock does not fit a calendar")]
    Clock,
    #[error("prepare the way to servers")]
    Servers(#[from] TlsError),
}

/// The edge, bound and with a full table, not serving yet.
pub struct Edge {
    listener: TcpListener,
    /// For customers' own names.
    tls: Option<(TcpListener, Door)>,
    ear: Listener,
    inner: Arc<Inner>,
    tasks: TaskTracker,
}

/// A view of the edge for other parts of the coordinator.
#[derive(Clone)]
pub struct EdgeHandle(Arc<Inner>);

/// What every connection shares.
struct Inner {
    settings: EdgeSettings,
    address: SocketAddr,
    site: Site,
    store: EdgeStore,
    table: Table,
    gate: Gate,
    /// For whatever strangers name.
    lookups: Arc<Lookups>,
    hop_secrets: Option<Secrets>,
    pace: Pace,
    domains: Option<Arc<Certificates>>,
    clock: Arc<dyn Clock>,
    chance: Arc<Chance>,
    /// The way to the servers (and, for `verify`, to this very edge).
    servers: Servers,
    places: Places,
    requests_of_one: Arc<Quota<(InstanceId, headers::Visitor)>>,
    websockets_of_one: Arc<Quota<InstanceId>>,
    /// Owns connections and WebSocket splices.
    tasks: TaskTracker,
    /// Ends the WebSockets when the edge stops.
    stopping: CancellationToken,
}

impl Edge {
    /// Binds the listener and reads all routes.
    pub async fn bind(
        settings: EdgeSettings,
        store: impl Into<EdgeStore>,
        doorbell: &Doorbell,
        authority: Arc<Authority>,
        clock: Arc<dyn Clock>,
        chance: Arc<Chance>,
    ) -> Result<Self, BindError> {
        let store = store.into();
        let now = clock.now().calendar().ok_or(BindError::Clock)?;
        let servers = Servers::new(authority, now)?;
        let (listener, address) = listen(settings.listen).await?;
        // The ear is there before the first look, so that no change falls between the two.
        let ear = doorbell.listen();
        let table = Table::default();
        table.replace_all(store.routes.routes().await.map_err(BindError::Routes)?);
        let domains = settings.domains.as_ref().map(|door| {
            let store = Arc::clone(&store.certificates);
            Arc::new(Certificates::new(store, door.master_keys.clone()))
        });
        let tls = match settings.domains.as_ref().zip(domains.as_ref()) {
            Some((door, certificates)) => {
                certificates.look(None).await.map_err(BindError::Routes)?;
                let (listener, _) = listen(door.listen).await?;
                Some((listener, tls::door(certificates).map_err(BindError::Tls)?))
            }
            None => None,
        };
        let tasks = TaskTracker::new();
        let port = settings.public_port.unwrap_or(address.port());
        let site = Site::new(settings.https, port);
        let (access, lookups) = (Arc::clone(&store.access), Arc::<Lookups>::default());
        let inner = Arc::new(Inner {
            address,
            gate: Gate::new(
                access,
                Arc::clone(&lookups),
                &site,
                Arc::clone(&clock),
                &chance,
            ),
            lookups,
            hop_secrets: settings
                .questions
                .as_ref()
                .map(|questions| Secrets::of(&questions.secrets)),
            site,
            table,
            pace: Pace::default(),
            domains,
            store,
            clock,
            chance,
            servers,
            places: Places::new(&settings),
            requests_of_one: Quota::new(settings.max_requests_of_one),
            websockets_of_one: Quota::new(settings.max_websockets_of_one),
            tasks: tasks.clone(),
            stopping: CancellationToken::new(),
            settings,
        });
        Ok(Self {
            listener,
            tls,
            ear,
            inner,
            tasks,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.address
    }

    /// A handle for the parts that wait for routes or prove reachability.
    pub fn handle(&self) -> EdgeHandle {
        EdgeHandle(Arc::clone(&self.inner))
    }

    /// Serves until `cancel`, then lets requests under way end within the drain time.
    pub async fn run(self, cancel: CancellationToken) {
        let Self {
            listener,
            tls,
            ear,
            inner,
            tasks,
        } = self;
        tasks.spawn(follow::follow(Arc::clone(&inner), ear, cancel.clone()));
        tasks.spawn(servers::stay_known(Arc::clone(&inner), cancel.clone()));
        let cut = CancellationToken::new();
        let by_tls = async {
            if let Some((listener, door)) = &tls {
                serve::accept(&inner, listener, door, &cancel, &cut).await;
            }
        };
        tokio::join!(
            by_tls,
            serve::accept(&inner, &listener, &Door::Plain, &cancel, &cut)
        );
        drop((listener, tls));
        inner.stopping.cancel();
        tasks.close();
        if tokio::time::timeout(inner.settings.drain, tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(open = tasks.len(), "cut requests that did not end in time");
            cut.cancel();
            tasks.wait().await;
        }
    }
}

impl EdgeHandle {
    /// How many host names lead somewhere.
    pub fn table_len(&self) -> usize {
        self.0.table.len()
    }

    /// Counts the changes of the table.
    pub fn table_version(&self) -> u64 {
        self.0.table.version()
    }

    /// Waits for a change of the table after this version. Cancel-safe.
    pub async fn table_changed(&self, since: u64) {
        self.0.table.changed(since).await;
    }

    /// Waits until the table leads to a server of this instance. Cancel-safe; the caller sets the
    /// deadline.
    pub async fn route_live(&self, instance: InstanceId) {
        self.0
            .table
            .until(|entries| {
                entries
                    .values()
                    .any(|entry| entry.route.instance == instance && entry.route.upstream.is_some())
            })
            .await;
    }

    /// When the edge took in the way to this instance's present server.
    pub fn routed_at(&self, instance: &Instance) -> Option<Moment> {
        let entry = self.0.table.find(instance.hosts.first()?)?;
        entry.route.upstream?;
        Some(self.0.clock.now().minus(entry.since.elapsed()))
    }

    /// Waits until no host name leads to this instance any more. Cancel-safe.
    pub async fn route_gone(&self, instance: InstanceId) {
        self.0
            .table
            .until(|entries| {
                entries
                    .values()
                    .all(|entry| entry.route.instance != instance)
            })
            .await;
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let listening = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    let listening: io::Result<_> = listening.await;
    listening.map_err(|source| BindError::Listen { address, source })
}
