//! The link: the one connection between this server and the coordinator, dialled from here.
//!
//! It carries words both ways and decides nothing: documents go to the desk, what the agent sees goes
//! up, and whatever is lost with a connection is said again on the next one. It never gives up and never
//! hurries: after a link that was welcomed it comes back within the spread that the coordinator asked
//! for, after a refusal it backs off, both with full jitter.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use quinn::Connection;
use rustls::pki_types::CertificateDer;
use tidepool_shared::{
    message::{AgentOutcome, WantedAgent},
    user_data::Coordinators,
};
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    desk::{Request, View},
    door::{Door, DoorFile},
    identity::Identity,
    stats::Look,
};

mod backoff;
mod dial;
mod logs;
mod renewal;
mod report;
mod session;
pub(crate) mod wire;

pub use backoff::Backoff;
pub(crate) use dial::{DialError, Dialled, dial};
pub(crate) use renewal::chain as chain_of;
pub(crate) use session::chain as error_chain;

/// What the link needs to know.
#[derive(Debug)]
pub struct Config {
    pub identity: Identity,
    /// What nginx shows to edges, if this server has it already.
    pub door: Option<Door>,
    pub door_file: DoorFile,
    /// Where renewed identities are kept.
    pub identity_dir: PathBuf,
    /// The root certificate from user data.
    pub root: CertificateDer<'static>,
    pub coordinators: Coordinators,
    /// The address to dial from: the server's own, by which the coordinator knows it.
    pub local: IpAddr,
    /// Random per start of the agent.
    pub boot: u64,
    pub agent_version: String,
    pub pace: Pace,
    /// What gateway and server take, as it was last seen.
    pub stats: watch::Receiver<Option<Look>>,
    /// Told how the link is; for the service manager and for tests.
    pub status: watch::Sender<Status>,
    /// The connection while it is up, for what fetches artefacts.
    pub line: watch::Sender<Option<Line>>,
    pub updates: Updates,
}

/// The link's ends of what keeps the agent at the wanted version.
#[derive(Debug)]
pub struct Updates {
    pub wanted: watch::Sender<Option<WantedAgent>>,
    /// Said at the beginning of every session and whenever it changes.
    pub outcome: watch::Receiver<Option<AgentOutcome>>,
}

/// A connection to the coordinator that is up, for streams of its own.
#[derive(Debug, Clone)]
pub struct Line(pub(crate) Connection);

impl Updates {
    /// Passes a wish on. The same one, said again in another session, disturbs nobody.
    fn want(&self, wanted: WantedAgent) {
        let words = |it: &WantedAgent| (it.rollout, it.signed.clone(), it.trial_s);
        self.wanted.send_if_modified(|held| {
            let is_new = held.as_ref().map(words) != Some(words(&wanted));
            if is_new {
                *held = Some(wanted);
            }
            is_new
        });
    }
}

/// The link's waits and deadlines.
#[derive(Debug, Clone)]
pub struct Pace {
    /// From the first packet to the welcome.
    pub connect_deadline: Duration,
    /// Waits after refusals and failures to connect.
    pub backoff: Backoff,
    /// The spread of a reconnect before any coordinator has named one.
    pub first_spread: Duration,
    /// The least time between two renewals, tried or done.
    pub renewal_pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            connect_deadline: Duration::from_secs(10),
            backoff: Backoff {
                first: Duration::from_millis(500),
                ceiling: Duration::from_mins(1),
            },
            first_spread: Duration::from_secs(1),
            renewal_pause: Duration::from_mins(1),
        }
    }
}

/// How the link is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// The session's number while there is one.
    pub epoch: Option<u64>,
    /// Sessions since the agent started.
    pub sessions: u64,
    /// Serial number and end of the newest certificate on disk.
    pub certificate: Option<(String, OffsetDateTime)>,
}

/// How a session ended, as far as the next one is concerned.
#[derive(Debug)]
enum Ended {
    /// It was welcomed, and lost.
    Lost { why: String },
    /// It was not welcomed, or closed with a word that more of the same will not change.
    Refused { why: String },
    /// This agent is stopping.
    Stopped,
}

/// What is remembered from one session to the next.
#[derive(Debug)]
struct Memory {
    /// Attempts so far: each goes to the next coordinator, so that a dead one costs one attempt.
    attempts: usize,
    last_epoch: u64,
    spread: Duration,
    /// When the certificate may be renewed next, and the door's.
    renew_not_before: Instant,
    door_not_before: Instant,
}

/// Keeps the link until cancelled.
pub async fn run(
    mut config: Config,
    desk: mpsc::Sender<Request>,
    mut view: watch::Receiver<View>,
    cancel: CancellationToken,
) {
    let mut memory = Memory {
        attempts: usize::from(config.boot.to_be_bytes()[7]),
        last_epoch: 0,
        spread: config.pace.first_spread,
        renew_not_before: Instant::now(),
        door_not_before: Instant::now(),
    };
    let mut failures = 0;
    announce_certificate(&config);
    loop {
        let started = Instant::now();
        let ended = session::run(&mut config, &mut memory, &desk, &mut view, &cancel).await;
        config.status.send_modify(|status| status.epoch = None);
        config.line.send_replace(None);
        memory.attempts = memory.attempts.wrapping_add(1);
        if started.elapsed() >= STEADY {
            failures = 0;
        }
        let backoff = config.pace.backoff.wait(failures);
        let (wait, why) = match ended {
            Ended::Stopped => return,
            Ended::Lost { why } if failures == 0 => (backoff::full_jitter(memory.spread), why),
            Ended::Lost { why } => (backoff::full_jitter(memory.spread).max(backoff), why),
            Ended::Refused { why } => (backoff, why),
        };
        failures = failures.saturating_add(1);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        warn!(reason = %why, wait_ms, "no link to the coordinator");
        tokio::select! {
            () = sleep(wait) => {}
            () = cancel.cancelled() => return,
        }
    }
}

/// A link that stood for this long was a good one: what failed before it no longer counts.
const STEADY: Duration = Duration::from_secs(10);

fn announce_certificate(config: &Config) {
    let leaf = &config.identity.leaf;
    let certificate = (leaf.serial.clone(), leaf.life.ends);
    config
        .status
        .send_modify(|status| status.certificate = Some(certificate));
}
