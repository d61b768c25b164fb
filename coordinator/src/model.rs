//! The coordinator's nouns, as the store keeps them and every other part reads them.
//!
//! Status, health and operation of an instance are three separate things: status says what the
//! customer has, health what the gateway is like, and whatever is under way is an operation row that
//! can be seen, retried and cancelled. No status is transient by itself.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tidepool_shared::{
    document::{EdgeProof, Generation, OpenClawOrder, Power, SealedDocument},
    id::{CoordinatorId, EventId, InstanceId, OperationId, ServerId, TokenId},
    networks::Networks,
    openclaw_version::OpenClawVersion,
};

use crate::{ambient::Moment, cloud::Placement};

mod domain;
mod edge_limits;
mod provider;
mod rollout;
#[cfg(any(test, feature = "test-util"))]
pub mod sample;
mod stats;
mod usage;
mod verification;

pub use self::{
    domain::{Certificate, CertificateMark, Domain, DomainStep, Validity},
    edge_limits::EdgeLimits,
    provider::{CustomerKey, KINDS, ModelAlias, ModelLimits, Provider, Sealed},
    rollout::{Rollout, RolloutCandidate, RolloutMember},
    stats::{GatewayStats, HostStats, Stats, StatsRecord},
    usage::{NoCursor, Restless, Spent, UsageCursor, UsageRecord, UsageSum},
    verification::{Baseline, Conclusion, Figures, NewVerification, Verification},
};

/// Declares an enum whose variants are stored and shown as snake-case words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// The word that is stored and shown.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Reads the stored word.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

mod agents;

pub use self::agents::{Agent, AgentEnding, AgentRollout, NewAgentRollout};

words! {
    /// The life of a server. `Failed` may follow any of the first four; such a server is replaced.
    ServerState {
        /// The row exists, the cloud has not been asked.
        Planned = "planned",
        /// The cloud is being asked.
        Creating = "creating",
        /// The cloud made it; its agent has not reported `warm` yet.
        Booting = "booting",
        /// Gateway started, warm-up turn run and removed: may be claimed.
        Warm = "warm",
        /// Belongs to an instance, for the rest of its life.
        Claimed = "claimed",
        /// Its instance is gone; out of routes and trust; to be deleted.
        Draining = "draining",
        /// The cloud is being asked to delete it.
        Deleting = "deleting",
        /// The cloud confirmed that it is gone.
        Gone = "gone",
        /// It did not become warm, or was lost while it belonged to nobody.
        Failed = "failed",
    }
}

words! {
    /// What the customer has.
    InstanceStatus {
        /// Accepted, no server yet.
        Pending = "pending",
        /// Has a server that is being made theirs.
        Starting = "starting",
        /// Answered through the edge as its owner.
        Running = "running",
        /// Switched off by its customer; its server is kept.
        Stopped = "stopped",
        /// Switched off by the operator: nobody gets in and no models are served; its server is kept.
        Suspended = "suspended",
        /// Deleted: routes, trust and sessions are gone, the server is kept until it is purged.
        Deleted = "deleted",
        /// Deleted for good.
        Purged = "purged",
        /// Needs a person.
        Failed = "failed",
    }
}

words! {
    /// What the gateway is like.
    Health { Unknown = "unknown", Ok = "ok", Degraded = "degraded", Down = "down", }
}

words! {
    /// What an operation does.
    OperationKind {
        Create = "create",
        Configure = "configure",
        Restart = "restart",
        Rename = "rename",
        Stop = "stop",
        Start = "start",
        Suspend = "suspend",
        Unsuspend = "unsuspend",
        Limit = "limit",
        /// The private networks that its gateway may reach.
        Networks = "networks",
        /// Customers' own host names come or go.
        Domains = "domains",
        Upgrade = "upgrade",
        Delete = "delete",
        Undelete = "undelete",
    }
}

words! {
    /// Why an instance is suspended.
    SuspensionReason { Billing = "billing", Abuse = "abuse", Operator = "operator", }
}

words! {
    /// How far a customer's own host name is.
    DomainState {
        /// Its records in DNS are not as they must be yet.
        PendingDns = "pending_dns",
        /// It is proven; certificate and server are being made ready.
        Issuing = "issuing",
        /// It answers.
        Active = "active",
        /// It answers, and its certificate should have been renewed by now.
        Expiring = "expiring",
        /// Given up.
        Failed = "failed",
    }
}

words! {
    /// How far an operation is.
    OperationState {
        Queued = "queued",
        Running = "running",
        Succeeded = "succeeded",
        Failed = "failed",
        Canceled = "canceled",
    }
}

words! {
    /// How far the trial of an image is.
    VerificationState {
        /// Asked for; no server yet.
        Wanted = "wanted",
        /// Its server comes, or is being measured.
        Running = "running",
        /// Good enough to be promoted.
        Passed = "passed",
        /// Not good enough, or it could not be told.
        Refused = "refused",
    }
}

words! {
    /// How far a rollout is.
    RolloutState {
        Running = "running",
        /// Something failed, or somebody halted it: nothing is begun until it is resumed.
        Halted = "halted",
        /// Everybody has it who is to have it.
        Finished = "finished",
        /// Another one was started.
        Superseded = "superseded",
    }
}

/// Which pool: servers and customers meet within one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PoolKey {
    pub tier: String,
    pub region: String,
}

impl std::fmt::Display for PoolKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.tier, self.region)
    }
}

/// How a pool stands: what must outlive the process that plans for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolStanding {
    /// An operator's switch: nothing is ordered or retired.
    pub paused: bool,
    /// Too many failures in a row: nothing is ordered until an operator resumes.
    pub halted: bool,
    /// Servers in a row that did not become warm.
    pub failures: u32,
    pub last_failure: Option<Moment>,
    /// The cloud refused for a reason that concerns every order: nothing is ordered until then.
    pub held_until: Option<Moment>,
    /// Since when there are fewer warm servers than wanted.
    pub below_since: Option<Moment>,
    /// Whether somebody was told.
    pub told_below: bool,
}

words! {
    /// Whose fault it is that a server did not become warm.
    Blame {
        /// The server's: counts towards the pool's failures in a row.
        Server = "server",
        /// Nobody's: there was no room, or a crash came between.
        Nobody = "nobody",
    }
}

words! {
    /// What is done to a server, step by step.
    SagaKind { Provision = "provision", Destroy = "destroy", }
}

words! {
    /// How far a step is.
    StepState { Begun = "begun", Done = "done", Failed = "failed", }
}

/// A row of a saga's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaStep {
    pub server: ServerId,
    pub saga: SagaKind,
    pub step: String,
    pub state: StepState,
    /// Why it failed, for people; holds nothing secret.
    pub error: Option<String>,
    pub at: Moment,
}

/// A row to be: the intent to have a server, committed before the cloud is asked.
#[derive(Debug, Clone)]
pub struct NewServer {
    pub id: ServerId,
    /// Unique for ever; the name that the cloud object bears, and so the key for adopting it.
    pub name: String,
    pub pool: PoolKey,
    pub placement: Placement,
    /// SHA-256 of the enrolment token, and until when it may be spent.
    pub token_hash: [u8; 32],
    pub token_expires: Moment,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub id: ServerId,
    pub name: String,
    pub pool: PoolKey,
    pub placement: Placement,
    /// What the cloud made it from, known once the cloud answered.
    pub image: Option<String>,
    pub state: ServerState,
    /// The cloud's own id, known once the cloud answered.
    pub cloud_id: Option<String>,
    pub address: Option<IpAddr>,
    pub instance: Option<InstanceId>,
    /// What it runs, as its agent says.
    pub openclaw_version: Option<String>,
    /// Its agent knows orders for versions of OpenClaw; one of before upgrades does not.
    pub takes_orders: bool,
    /// The last link session's number; 0 before the first.
    pub epoch: u64,
    /// The coordinator that holds its link, as far as is known: one that died could not take this back.
    pub holder: Option<CoordinatorId>,
    pub served: Generation,
    pub observed: Generation,
    pub health: Health,
    pub reasons: Vec<String>,
    pub gateway_starts: u64,
    /// No session is accepted any more.
    pub revoked: bool,
    pub failure: Option<String>,
    pub created_at: Moment,
    pub state_since: Moment,
    /// When it became warm for the first time.
    pub warmed_at: Option<Moment>,
    /// How long its agent's steps took until then.
    pub boot_steps: Vec<StepMs>,
}

/// What an agent's report means to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReport {
    pub epoch: u64,
    /// The agent says that the gateway is started and warmed up.
    pub warm: bool,
    /// The agent gave up; why.
    pub failed: Option<String>,
    pub served: Generation,
    pub observed: Generation,
    pub health: Health,
    pub reasons: Vec<String>,
    pub gateway_starts: u64,
    pub steps: Vec<StepMs>,
    /// A configuration that the gateway would not take, and why.
    pub rejected: Option<(Generation, String)>,
    /// Agents of before upgrades do not say.
    pub openclaw: Option<ReportedOpenClaw>,
}

/// Which OpenClaw a server has, and what became of the last order for another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedOpenClaw {
    pub version: String,
    /// The number of the last order that is over.
    pub settled: u64,
    /// Why that order was not carried out.
    pub failed: Option<String>,
}

/// A named step and its duration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepMs {
    pub name: String,
    pub ms: u64,
}

/// Everything a new instance needs, built before the transaction that creates it.
#[derive(Debug, Clone)]
pub struct NewInstance {
    pub id: InstanceId,
    pub operation: OperationId,
    pub name: String,
    pub external_id: Option<String>,
    pub pool: PoolKey,
    /// Exact host names, lower case, without port; the first is the main one.
    pub hosts: Vec<String>,
    /// The main URL, as shown to people.
    pub url: String,
    pub edge_proof: EdgeProof,
    pub config: serde_json::Value,
    /// Generation 1, sealed. It does not depend on the server, so a pending instance has it too.
    pub document: SealedDocument,
}

/// An instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    pub id: InstanceId,
    pub name: String,
    pub external_id: Option<String>,
    pub pool: PoolKey,
    pub status: InstanceStatus,
    pub health: Health,
    pub reasons: Vec<String>,
    pub url: String,
    pub hosts: Vec<String>,
    /// Customers' own names in its present document.
    pub domains: Vec<String>,
    pub server: Option<ServerId>,
    /// Wanted, and applied by the agent.
    pub generation: Generation,
    pub observed: Generation,
    pub restarts: u64,
    /// As in its document.
    pub evictions: u64,
    pub config: serde_json::Value,
    pub edge_proof: EdgeProof,
    /// Kept through deletion, so that whoever comes back from there is still suspended.
    pub suspension: Option<Suspension>,
    /// The order for a version of OpenClaw in its document; none once it was taken back.
    pub openclaw: Option<OpenClawOrder>,
    /// The number of the last order, taken back or not; the next one has another.
    pub openclaw_orders: u64,
    /// The number of the last order whose outcome was told.
    pub openclaw_settled: u64,
    /// The only version that it may be upgraded to.
    pub pin: Option<OpenClawVersion>,
    /// `user:bcrypt` of HTTP basic auth, if it is on.
    pub basic_auth: Option<String>,
    pub edge_limits: EdgeLimits,
    /// The private networks that its gateway may reach, as in its document.
    pub networks: Networks,
    /// Whether a warm server was there when it was created.
    pub warm: bool,
    /// Milliseconds of each step from the create call on; empty until running.
    pub timings: Vec<StepMs>,
    /// Place among those that wait for a server, from 1; `None` when it does not wait.
    pub queue_position: Option<u32>,
    pub problem: Option<String>,
    pub created_at: Moment,
    pub claimed_at: Option<Moment>,
    pub ready_at: Option<Moment>,
    pub deleted_at: Option<Moment>,
    /// When a deleted one is purged, or was.
    pub purge_at: Option<Moment>,
}

impl Health {
    /// Whether nobody is served, or nobody knows.
    pub const fn is_unwell(self) -> bool {
        match self {
            Self::Unknown | Self::Down => true,
            Self::Ok | Self::Degraded => false,
        }
    }
}

impl InstanceStatus {
    /// Whether the gateway is to run.
    pub const fn power(self) -> Power {
        match self {
            Self::Pending | Self::Starting | Self::Running | Self::Failed => Power::On,
            Self::Stopped | Self::Suspended | Self::Deleted | Self::Purged => Power::Off,
        }
    }
}

/// The operator's word that an instance is not to be used for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    pub reason: SuspensionReason,
    /// Shown to whoever comes to its URL.
    pub message: Option<String>,
    pub since: Moment,
    /// Whether its customer had stopped it: then it is stopped again when this ends.
    pub was_stopped: bool,
}

/// A step of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OperationStep {
    pub name: String,
    pub state: OperationState,
    pub ms: Option<u64>,
    pub attempts: u32,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub id: OperationId,
    pub instance: InstanceId,
    pub kind: OperationKind,
    pub state: OperationState,
    pub steps: Vec<OperationStep>,
    /// The document generation whose observation ends it; `None` for a deletion.
    pub generation: Option<Generation>,
    pub error: Option<String>,
    pub created_at: Moment,
    pub finished_at: Option<Moment>,
}

/// A change of an instance's document, prepared against the generation it replaces.
#[derive(Debug, Clone)]
pub struct DocumentChange {
    pub instance: InstanceId,
    pub operation: OperationId,
    pub kind: OperationKind,
    /// The generation the change was prepared against; another one in the store refuses it.
    pub expected: Generation,
    pub config: serde_json::Value,
    pub restarts: u64,
    pub evictions: u64,
    pub edge_limits: EdgeLimits,
    pub networks: Networks,
    pub domains: Vec<String>,
    pub openclaw: Option<OpenClawOrder>,
    pub document: SealedDocument,
}

/// Another name for an instance, with the document that says so.
#[derive(Debug, Clone)]
pub struct Rename {
    pub name: String,
    /// As [`NewInstance::hosts`].
    pub hosts: Vec<String>,
    pub url: String,
    /// Until then the old hosts lead to `url`, and nobody else gets them.
    pub moved_until: Moment,
    pub change: DocumentChange,
}

/// An entry of the event log. `sequence` is gapless and orders everything.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub sequence: u64,
    pub id: EventId,
    pub kind: String,
    pub instance: Option<InstanceId>,
    pub server: Option<ServerId>,
    pub data: serde_json::Value,
    pub at: Moment,
}

/// A route record: one host name and where it leads. Feeds the built-in edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub host: String,
    pub instance: InstanceId,
    /// `None` while the instance waits for a server.
    pub upstream: Option<Upstream>,
    /// What the edge shows to nginx with a signed-in user's request.
    pub edge_proof: EdgeProof,
    /// `user:bcrypt`, if HTTP basic auth is on.
    pub basic_auth: Option<String>,
    pub limits: EdgeLimits,
    pub status: InstanceStatus,
    /// What the operator has to say about a suspension.
    pub notice: Option<String>,
    /// On which paths its channels take web hooks.
    pub hooks: Vec<String>,
    /// Whether it gets this name just now: its server may not know it yet.
    pub is_renaming: bool,
    /// A host that the instance had before: the URL that it has now.
    pub moved_to: Option<String>,
}

/// A server as edges reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upstream {
    pub server: ServerId,
    pub address: IpAddr,
    pub door: Door,
}

/// How edges come to a server's nginx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// By TLS, and each shows the other who it is.
    Mutual,
    /// In clear: its agent is of before.
    Open,
}

/// The same records by server, for a table that others keep: a server that routes lead to, or soon may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub upstream: Upstream,
    /// None while it is nobody's, and for as long as its instance is deleted.
    pub hosts: Vec<String>,
}

/// An API token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    pub id: TokenId,
    pub name: String,
    pub secret_hash: [u8; 32],
    pub created_at: Moment,
    pub expires_at: Option<Moment>,
    pub revoked_at: Option<Moment>,
}

/// A coordinator, as others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coordinator {
    pub id: CoordinatorId,
    /// Where the others reach its API.
    pub api_address: String,
    pub heartbeat_at: Moment,
}
