//! The bodies of the link's frames, in minicbor with numbered fields.
//!
//! A field's number is never reused; new fields are optional. `tests/golden` keeps the bytes of every
//! released capability, so that a change that breaks an old peer breaks a test first.

mod artefact;

use minicbor::{Decode, Encode};

use crate::frame::{Kind, Message};

pub use artefact::{AgentOutcome, ArtefactFollows, Ending, FetchArtefact, WantedAgent};

/// The agent's first word on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    #[n(0)]
    pub capability: u32,
    #[n(1)]
    pub minimum: u32,
    /// Who the agent says it is; must be the server named in its certificate.
    #[n(2)]
    pub server: String,
    /// Random per start of the agent, so that a restart can be told from a reconnect.
    #[n(3)]
    pub boot: u64,
    #[n(4)]
    pub agent_version: String,
    /// Version of OpenClaw that the server has.
    #[n(5)]
    pub openclaw_version: String,
    /// The document in the ledger, if there is one.
    #[n(6)]
    pub held: Option<Held>,
    /// The last epoch this agent was welcomed with; 0 before the first.
    #[n(7)]
    pub last_epoch: u64,
}

/// Which document an agent holds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Held {
    #[n(0)]
    pub instance: String,
    #[n(1)]
    pub generation: u64,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub digest: [u8; 32],
}

/// The coordinator's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// The number of this session; a session with a smaller one is dead.
    #[n(0)]
    pub epoch: u64,
    /// The coordinator's clock, microseconds since the Unix epoch.
    #[n(1)]
    pub time_us: u64,
    /// How often the coordinator will ping, in milliseconds.
    #[n(2)]
    pub ping_interval_ms: u32,
    /// The window over which this agent must spread its next reconnect, in milliseconds.
    #[n(3)]
    pub reconnect_spread_ms: u32,
    #[n(4)]
    pub minimum: u32,
    /// The generation the agent should hold; 0 when it belongs to nobody.
    #[n(5)]
    pub current_generation: u64,
}

/// A desired-state document, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Desired {
    #[n(0)]
    pub epoch: u64,
    #[n(1)]
    pub instance: String,
    #[n(2)]
    pub generation: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub digest: [u8; 32],
    #[cbor(n(4), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// What the agent says of a document when it arrived, before it acts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Verdict {
    #[n(0)]
    pub generation: u64,
    /// `None`: accepted and on disk. Otherwise why not.
    #[n(1)]
    pub refused: Option<String>,
}

/// What the agent sees. Sent whole whenever something in it changed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Report {
    #[n(0)]
    pub epoch: u64,
    #[n(1)]
    pub phase: Phase,
    /// The newest generation that is served: nginx answers to its names. 0 when none.
    #[n(2)]
    pub served_generation: u64,
    /// The newest generation whose configuration the gateway has applied too. 0 when none.
    #[n(3)]
    pub observed_generation: u64,
    #[n(4)]
    pub health: Health,
    /// Why health is not ok, in words for a person; at most 8.
    #[n(5)]
    pub reasons: Vec<String>,
    /// Milliseconds that the steps of the last convergence took; at most 16.
    #[n(6)]
    pub steps: Vec<Step>,
    /// The configuration of this generation was refused by the gateway and rolled back.
    #[n(7)]
    pub rejected: Option<Rejected>,
    /// Times the gateway was started since the agent's first start.
    #[n(8)]
    pub gateway_starts: u64,
    /// What an agent of before upgrades does not say.
    #[n(12)]
    pub openclaw: Option<OpenClawState>,
}

/// Which OpenClaw a server has, and what became of the last order for another one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct OpenClawState {
    #[n(0)]
    pub version: String,
    /// The number of the last order that is over; 0 before the first.
    #[n(1)]
    pub settled: u64,
    /// Why that order was not carried out: the version of before is in force.
    #[n(2)]
    pub failed: Option<String>,
}

/// What gateway and server take of the machine. Sent at a slow pace; each replaces the one before.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Stats {
    #[n(0)]
    pub epoch: u64,
    /// Absent while no gateway runs, or while nobody tells.
    #[n(1)]
    pub gateway: Option<GatewayStats>,
    #[n(2)]
    pub host: HostStats,
}

/// What a gateway takes, with all that it has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GatewayStats {
    /// Thousandths of a core since the look before; absent at the first.
    #[n(0)]
    pub cpu_millicores: Option<u32>,
    /// Without what the kernel caches of files.
    #[n(1)]
    pub memory_bytes: u64,
    /// The most that it may have.
    #[n(2)]
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    #[n(3)]
    pub pids: u32,
}

/// What a server has, and what of it is taken, by whomever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct HostStats {
    #[n(0)]
    pub cpus: u32,
    /// Thousandths of a core since the look before; absent at the first.
    #[n(1)]
    pub cpu_millicores: Option<u32>,
    #[n(2)]
    pub memory_bytes: u64,
    #[n(3)]
    pub memory_available_bytes: u64,
    /// Every process of the server but the gateway's, pages that several share shared out among them. Absent
    /// where the machine is not the server's alone.
    #[n(4)]
    pub rest_memory_bytes: Option<u64>,
    #[n(5)]
    pub agent_memory_bytes: u64,
    /// Of the file system with the customer's files.
    #[n(6)]
    pub disk_bytes: u64,
    #[n(7)]
    pub disk_free_bytes: u64,
}

/// A configuration that the gateway would not take.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Rejected {
    #[n(0)]
    pub generation: u64,
    #[n(1)]
    pub reason: String,
}

/// A step of a convergence and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Step {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub ms: u32,
}

/// How far the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Phase {
    /// The gateway is not started yet.
    #[n(0)]
    Starting,
    /// The gateway answers; its first turn is still running.
    #[n(1)]
    WarmingUp,
    /// Ready for a customer.
    #[n(2)]
    Warm,
    /// Belongs to an instance.
    #[n(3)]
    Claimed,
    /// Gave up; the reasons say why.
    #[n(4)]
    Failed,
}

/// What the agent says of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Health {
    #[n(0)]
    Unknown,
    #[n(1)]
    Ok,
    #[n(2)]
    Degraded,
    #[n(3)]
    Down,
}

/// Proof wanted that the program behind the link lives, not only its network task.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ping {
    #[n(0)]
    pub sequence: u64,
}

/// Answer to [`Ping`], by the loop that also converges.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pong {
    #[n(0)]
    pub sequence: u64,
    /// The generation in the ledger; 0 when none.
    #[n(1)]
    pub generation: u64,
}

/// The peer sent a frame of a kind that this end does not know; it was skipped.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Unsupported {
    #[n(0)]
    pub kind: u16,
}

/// A request for a first certificate.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Enrol {
    #[n(0)]
    pub capability: u32,
    #[n(1)]
    pub server: String,
    /// The single-use token from user data.
    #[n(2)]
    pub token: String,
    /// PKCS#10 in DER; only the public key is taken from it.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub csr: Vec<u8>,
    /// The image manifest as JSON.
    #[n(4)]
    pub manifest: String,
}

impl std::fmt::Debug for Enrol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrol")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// A request for the next certificate, over the live link.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Renew {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub csr: Vec<u8>,
}

/// A request for the certificate that nginx shows to edges, over the live link.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Door {
    /// PKCS#10 in DER; only the public key is taken from it.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub csr: Vec<u8>,
}

/// A certificate was issued.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Issued {
    /// Leaf first, then the issuing CA; each in DER.
    #[n(0)]
    pub chain: Vec<minicbor::bytes::ByteVec>,
}

/// A request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refused {
    /// For the log; says nothing that helps a guesser.
    #[n(0)]
    pub reason: String,
    /// Whether the same request may succeed a little later.
    #[n(1)]
    pub retry: bool,
}

/// A wish for the end of the gateway's log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LogRequest {
    /// At most this many lines; the agent also keeps within [`crate::frame::MAX_BULK_BODY`].
    #[n(0)]
    pub lines: u32,
}

/// The end of the gateway's log, oldest line first.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LogLines {
    #[n(0)]
    pub lines: Vec<String>,
}

macro_rules! kinds {
    ($($message:ty = $kind:expr;)*) => {
        $(impl Message for $message { const KIND: Kind = $kind; })*
    };
}

kinds! {
    Hello = Kind::HELLO;
    Welcome = Kind::WELCOME;
    Desired = Kind::DESIRED;
    Verdict = Kind::VERDICT;
    Report = Kind::REPORT;
    Stats = Kind::STATS;
    Ping = Kind::PING;
    Pong = Kind::PONG;
    Unsupported = Kind::UNSUPPORTED;
    WantedAgent = Kind::WANTED_AGENT;
    AgentOutcome = Kind::AGENT_OUTCOME;
    Enrol = Kind::ENROL;
    Renew = Kind::RENEW;
    Door = Kind::DOOR;
    Issued = Kind::ISSUED;
    Refused = Kind::REFUSED;
    LogRequest = Kind::LOG_REQUEST;
    LogLines = Kind::LOG_LINES;
    FetchArtefact = Kind::FETCH_ARTEFACT;
    ArtefactFollows = Kind::ARTEFACT_FOLLOWS;
}
