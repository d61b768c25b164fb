//! A fake of the Hetzner Cloud API, as small as it can be and still catch a client that is wrong.
//!
//! It does what the facts say of the real one: actions take time and lock their server, names are the
//! only idempotency, unknown request fields are refused, lists come in pages, calls are counted, places
//! and limits run out. Everything can be made to go wrong by a switch ([`Fault`]), and every good or bad
//! answer is held against the published schemas ([`FakeHetzner::violations`]).
//!
//! ```ignore
//! let fake = FakeHetzner::start(Settings::quick().with_room("cx23", "nbg1", 5)).await?;
//! let image = fake.add_snapshot(NewSnapshot::default())?;
//! fake.faults().next(1, Fault::DropAfter, "POST /servers");
//! // … drive a client at fake.url() with fake.token() …
//! assert_eq!(fake.books().existing(Kind::Server).count(), 1);
//! fake.end().await?; // an error if an answer did not fit its schema
//! ```
//!
//! Servers have no machines behind them, unless it is started with [`LocalMachines`]: then each runs
//! a real agent on its own loopback address, from `running` to `off` or deletion. A rebuild restarts
//! such a machine and keeps its disk.
//!
//! Not there: volumes, networks, placement groups, floating IPs, load balancers, zones, backups, reverse
//! DNS, rescue, ISOs, metrics. What a client asks of those is 404, as an unknown route is.

use std::{io, net::Ipv4Addr, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod action;
mod admin;
mod books;
mod call;
mod catalogue;
mod clock;
mod fake;
mod fault;
mod firewall;
mod http;
mod id;
mod image;
mod label;
mod machines;
mod mangle;
mod metadata;
mod operations;
mod page;
mod primary_ip;
mod project;
mod rate;
mod refusal;
mod schema;
mod serve;
mod server;
mod settings;
mod ssh_key;

pub use self::{
    books::{Books, Entry, Kind, Request},
    fault::{Fault, Faults, Often, Switch},
    id::{ActionId, FirewallId, ImageId, PrimaryIpId, ServerId, SshKeyId},
    image::NewSnapshot,
    machines::{LocalMachines, LocalMachinesSettings, Machines, NoMachines},
    settings::{Limits, Pace, Rate, Settings},
};

/// Why a fake did not start or end well.
#[derive(Debug, thiserror::Error)]
pub enum FakeError {
    #[error("listen on port {port}")]
    Listen {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("end the machines")]
    Machines(#[source] io::Error),
    #[error("{} answers do not fit their schemas, the first: {}", .0.len(), .0.first().map_or("", String::as_str))]
    Violations(Vec<String>),
    #[error("the limit of snapshots is reached")]
    SnapshotLimit,
}

/// A running fake. Dropping it ends it, without a word about violations.
pub struct FakeHetzner {
    fake: Arc<fake::Fake>,
    port: u16,
    admin_port: u16,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl FakeHetzner {
    /// Starts one whose servers have no machines.
    pub async fn start(settings: Settings) -> Result<Self, FakeError> {
        Self::launch(settings, None).await
    }

    /// Starts one whose servers have these machines.
    pub async fn start_with(
        settings: Settings,
        machines: Arc<dyn Machines>,
    ) -> Result<Self, FakeError> {
        Self::launch(settings, Some(machines)).await
    }

    async fn launch(
        settings: Settings,
        machines: Option<Arc<dyn Machines>>,
    ) -> Result<Self, FakeError> {
        let (api, port) = listen(settings.port).await?;
        let (admin, admin_port) = listen(settings.admin_port).await?;
        let fake = Arc::new(fake::Fake::new(settings, machines));
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(serve::serve(api, http::router(&fake), cancel.clone()));
        let admin_router = admin::router(fake.clone());
        tasks.spawn(serve::serve(admin, admin_router, cancel.clone()));
        let (clockwork, until) = (fake.clone(), cancel.clone());
        tasks.spawn(async move { clockwork.run(until).await });
        Ok(Self {
            fake,
            port,
            admin_port,
            cancel,
            tasks,
        })
    }

    /// The base URL of the API, with `/v1`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// The base URL of switches, books and metadata.
    pub fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin_port)
    }

    /// The token that may do everything.
    pub fn token(&self) -> &str {
        &self.fake.settings.token
    }

    /// The token that may only read.
    pub fn read_only_token(&self) -> &str {
        &self.fake.settings.read_only_token
    }

    /// The switches.
    pub fn faults(&self) -> &Faults {
        &self.fake.faults
    }

    /// What exists, what ever existed, and how often what was called.
    pub fn books(&self) -> Books {
        let project = self.fake.lock();
        project.ledger.books(project.now)
    }

    /// What a server asks for, beside the calls: see [`Teller`].
    pub fn teller(&self) -> Teller {
        Teller(self.fake.clone())
    }

    /// The last requests, with their bodies.
    pub fn requests(&self) -> Vec<Request> {
        self.fake.lock().ledger.requests()
    }

    /// Answers that did not fit their schemas.
    pub fn violations(&self) -> Vec<String> {
        self.fake.lock().violations.clone()
    }

    /// How many more servers of a type fit in a location, from now on.
    pub fn set_room(&self, server_type: &str, location: &str, servers: u32) {
        let place = (server_type.to_owned(), location.to_owned());
        self.fake.lock().room.insert(place, servers);
    }

    /// A snapshot that is available at once.
    pub fn add_snapshot(&self, snapshot: NewSnapshot) -> Result<ImageId, FakeError> {
        let mut project = self.fake.lock();
        let added = image::add(&mut project, snapshot, None, image::Status::Available);
        added.map_err(|_| FakeError::SnapshotLimit)
    }

    /// Ends everything, machines as well; an error if an answer did not fit its schema.
    pub async fn end(self) -> Result<(), FakeError> {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let ended = self.fake.keeper.end().await;
        ended.map_err(FakeError::Machines)?;
        let violations = self.violations();
        if violations.is_empty() {
            Ok(())
        } else {
            Err(FakeError::Violations(violations))
        }
    }
}

/// What the provider tells its servers, for a metadata service that they reach.
#[derive(Clone)]
pub struct Teller(Arc<fake::Fake>);

impl Teller {
    /// The answer for the server of this address at a path below `/hetzner/v1/`; an empty one means "none".
    pub fn tell(&self, address: &str, path: &str) -> Option<String> {
        metadata::answer(&self.0.lock(), address, path)
    }
}

impl Drop for FakeHetzner {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn listen(port: u16) -> Result<(TcpListener, u16), FakeError> {
    let failed = |source| FakeError::Listen { port, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = listener.await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, port))
}
