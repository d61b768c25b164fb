//! The coordinator's end of the link: enrolment, sessions, and the bell that reaches them.
//!
//! One QUIC endpoint serves both protocols. Of everything an agent says, only what its certificate proves
//! and the store confirms counts: the store is read at every handshake and numbers every session, and
//! whatever this module keeps in memory (who is connected) is lost with the process without harm.
//!
//! What one agent does costs nothing to the others: a ring finds its session by id, each session is one
//! task, and nothing walks the fleet except a bell that missed rings.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tidepool_certs::{
    authority::{Authority, LEAF_LIFE},
    tls::TlsError,
};
use tidepool_shared::{
    capability::{ALPN_ENROL, ALPN_LINK, close},
    id::{CoordinatorId, ServerId},
};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, info};

use crate::{
    ambient::{Chance, Clock},
    artefacts::Artefacts,
    causes::chain,
    doorbell::{Doorbell, Heard, Listener, Ring},
    store::Store,
};

mod admission;
mod agents;
mod allowance;
mod audit;
mod connection_id;
mod document;
mod door;
mod endpoint;
mod enrolment;
mod issuing;
mod keys;
mod links;
mod pace;
mod rate;
mod recent;
mod renewal;
mod report;
mod requests;
mod right;
mod session;
mod stats;
mod transfer;
mod wire;

use admission::{Address, Admission, Admissions, Verdict};
use audit::Audit;
use keys::Keys;
pub use keys::KeysError;
pub use links::{Links, LogsError};
use pace::Paces;
use recent::Recent;
pub use transfer::Pacing;
use transfer::Transfers;

/// How the link server is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose links these are, as other coordinators know it.
    pub coordinator: CoordinatorId,
    /// Where agents dial (UDP).
    pub listen: SocketAddr,
    /// The file of the keys that a restart must not change.
    pub keys: PathBuf,
    /// From the first packet of a handshake to the hello.
    pub hello_deadline: Duration,
    /// How long an enrolment may take after its handshake.
    pub enrol_deadline: Duration,
    pub ping_interval: Duration,
    /// How long a pong may take.
    pub ping_deadline: Duration,
    /// How often a session looks at the store without having heard a ring.
    pub recheck_interval: Duration,
    /// How often what servers take is written down.
    pub stats_interval: Duration,
    /// Over how long the agents spread their reconnects.
    pub reconnect_spread: Duration,
    pub leaf_life: Duration,
    /// Handshakes under way above which a peer must first prove its address.
    pub retry_above: usize,
    /// Handshakes under way above which a peer is turned away.
    pub refuse_above: usize,
    /// Enrolments at the same time; they have places of their own, since anybody may ask for one.
    pub enrolments_at_once: usize,
    /// Connections of one address that are not welcomed yet.
    pub unwelcomed_per_source: usize,
    /// What agents may fetch; beside the keys unless told otherwise.
    pub artefacts: Artefacts,
    pub pacing: Pacing,
}

impl Settings {
    /// The usual settings.
    pub fn new(coordinator: CoordinatorId, listen: SocketAddr, keys: PathBuf) -> Self {
        Self {
            coordinator,
            listen,
            artefacts: Artefacts::new(keys.with_file_name("artefacts")),
            pacing: Pacing::default(),
            keys,
            hello_deadline: Duration::from_secs(10),
            enrol_deadline: Duration::from_secs(10),
            ping_interval: Duration::from_secs(10),
            ping_deadline: Duration::from_secs(10),
            recheck_interval: Duration::from_mins(1),
            stats_interval: Duration::from_secs(5),
            reconnect_spread: Duration::from_secs(20),
            leaf_life: LEAF_LIFE,
            retry_above: 500,
            refuse_above: 4000,
            enrolments_at_once: 256,
            unwelcomed_per_source: 32,
        }
    }
}

/// Why the link server does not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("set up QUIC")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    #[error("bind link port `{address}`")]
    Socket {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the clock does not fit a calendar")]
    Clock,
}

/// What every connection's task needs.
struct Context {
    settings: Settings,
    store: Arc<dyn Store>,
    doorbell: Doorbell,
    clock: Arc<dyn Clock>,
    chance: Arc<Chance>,
    authority: Arc<Authority>,
    links: Links,
    admissions: Admissions,
    audit: Audit,
    paces: Paces,
    stats: stats::Unwritten,
    renewed: Recent<ServerId>,
    transfers: Transfers,
    doors: Recent<ServerId>,
}

/// The link server, bound.
pub struct LinkServer {
    context: Arc<Context>,
    endpoint: quinn::Endpoint,
    keys: Keys,
    bell: Listener,
}

/// The coordinator's own certificate is made anew this often.
const CERTIFICATE_REFRESH: Duration = Duration::from_hours(24);

/// How long sessions may take to end when the program stops.
const DRAIN: Duration = Duration::from_secs(5);

impl LinkServer {
    /// Binds the port. Agents are accepted once it runs.
    pub fn bind(
        settings: Settings,
        store: Arc<dyn Store>,
        doorbell: Doorbell,
        clock: Arc<dyn Clock>,
        chance: Arc<Chance>,
        authority: Arc<Authority>,
    ) -> Result<Self, BindError> {
        let now = clock.now().calendar().ok_or(BindError::Clock)?;
        let keys = Keys::open_or_create(&settings.keys, &chance)?;
        let endpoint = endpoint::bind(&settings, &keys, &authority, now, &chance)?;
        // Listening begins here, so that no ring between binding and running is missed.
        let bell = doorbell.listen();
        let context = Arc::new(Context {
            admissions: Admissions::new(&settings),
            transfers: Transfers::new(settings.artefacts.clone(), settings.pacing),
            settings,
            store,
            doorbell,
            clock,
            chance,
            authority,
            links: Links::default(),
            audit: Audit::default(),
            paces: Paces::default(),
            stats: stats::Unwritten::default(),
            renewed: renewal::recent(),
            doors: renewal::recent(),
        });
        Ok(Self {
            context,
            endpoint,
            keys,
            bell,
        })
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Who is connected, and how to ask them.
    pub fn links(&self) -> Links {
        self.context.links.clone()
    }

    /// Serves until cancelled; then says goodbye to every agent.
    pub async fn run(mut self, cancel: CancellationToken) {
        let connections = TaskTracker::new();
        let (context, until) = (Arc::clone(&self.context), cancel.clone());
        connections.spawn(async move { stats::write(&context, until).await });
        let mut refresh_at = Instant::now() + CERTIFICATE_REFRESH;
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.admit(incoming, &connections),
                    None => break,
                },
                heard = self.bell.hear() => match heard {
                    Heard::Ring(Ring::Server(server)) => self.context.links.wake(server),
                    Heard::Ring(Ring::Instance(_) | Ring::Pool | Ring::Images | Ring::Events) => {}
                    Heard::Missed => self.context.links.wake_all(),
                    Heard::Closed => break,
                },
                () = sleep_until(refresh_at) => {
                    refresh_at += CERTIFICATE_REFRESH;
                    self.refresh_certificate();
                }
                () = cancel.cancelled() => break,
            }
        }
        self.endpoint
            .close(close::GOODBYE.into(), b"coordinator stops");
        connections.close();
        if timeout(DRAIN, connections.wait()).await.is_err() {
            debug!("some link sessions did not end in time");
        }
        if timeout(DRAIN, self.endpoint.wait_idle()).await.is_err() {
            debug!("some agents did not hear the goodbye");
        }
    }

    fn admit(&self, incoming: quinn::Incoming, connections: &TaskTracker) {
        let address = if incoming.may_retry() {
            Address::Claimed
        } else {
            Address::Proved
        };
        let source = incoming.remote_address().ip().to_canonical();
        match self.context.admissions.ask(source, address) {
            Verdict::Admit(admission) => {
                let context = Arc::clone(&self.context);
                connections.spawn(async move { receive(context, incoming, admission).await });
            }
            Verdict::Prove => {
                if let Err(failure) = incoming.retry() {
                    failure.into_incoming().refuse();
                }
            }
            Verdict::Refuse => incoming.refuse(),
        }
    }

    fn refresh_certificate(&self) {
        let made = (self.context.clock.now().calendar())
            .ok_or(BindError::Clock)
            .and_then(|now| {
                let context = &self.context;
                endpoint::server_config(&context.settings, &self.keys, &context.authority, now)
            });
        match made {
            Ok(config) => {
                self.endpoint.set_server_config(Some(config));
                info!("the coordinator's certificate was made anew");
            }
            Err(failure) => {
                error!(error = %chain(&failure), "the coordinator's certificate was not made anew");
            }
        }
    }
}

/// One connection, from its handshake on.
async fn receive(context: Arc<Context>, incoming: quinn::Incoming, admission: Admission) {
    let peer = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    let connection = match timeout(context.settings.hello_deadline, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(failure)) => {
            debug!(peer = %peer, error = %chain(&failure), "handshake failed");
            return;
        }
        Err(_) => return,
    };
    // TLS lets a peer without a certificate in, because enrolment has none. Here the two part, before
    // a stream is read: nothing that arrives under one protocol is ever handled under the other.
    match endpoint::protocol(&connection).as_deref() {
        Some(ALPN_LINK) => match endpoint::leaf(&connection) {
            Some(leaf) => session::serve(context, connection, leaf, admission).await,
            None => connection.close(close::REFUSED.into(), b"a certificate is required"),
        },
        Some(ALPN_ENROL) => match context.admissions.enrols(admission) {
            Some(_place) => enrolment::serve(&context, &connection).await,
            None => connection.close(close::TROUBLE.into(), b"too many enrol at once"),
        },
        _ => connection.close(close::REFUSED.into(), b"unknown protocol"),
    }
}
