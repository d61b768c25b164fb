//! The store: the only truth. Everything else is a cache of it or an effect.
//!
//! One trait per noun, methods named for what the domain does, each method one transaction. Events
//! are written in the same transaction as the change they tell of. Time and ids come from the
//! caller. What is required of an implementation beyond the types is in [`conformance`], which every
//! implementation must pass.
//!
//! There are two, [`sqlite`] and [`postgres`], and one text of every statement: the files in `store/sql` are
//! compiled twice, as modules of each, written against what `super` calls the types of its database
//! (`SqlStore`, `Connection`, `Row`) and against its `dialect`, which has the little that differs. Generics
//! over sqlx's drivers would need their bounds on every function, `sqlx::Any` knows neither bytes nor
//! booleans, and a copy of each file would drift from the other.

mod agents;
#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
#[cfg(test)]
pub(crate) mod faults;
#[expect(
    clippy::duplicate_mod,
    reason = "the statements are compiled for each database"
)]
pub mod postgres;
pub mod sqlite;
#[cfg(any(test, feature = "test-util"))]
pub mod throwaway;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sqlx::postgres::PgConnectOptions;
use tidepool_shared::{
    database_url::DatabaseUrl,
    document::{Generation, SealedDocument},
    id::{CoordinatorId, InstanceId, OperationId, RolloutId, ServerId, TokenId, VerificationId},
    manifest::ImageManifest,
    openclaw_version::OpenClawVersion,
};

use crate::{
    ambient::{Chance, Moment},
    cloud::{CloudServer, Placement},
    model::{
        ApiToken, Blame, Certificate, CertificateMark, Conclusion, Coordinator, CustomerKey,
        Destination, DocumentChange, Domain, DomainStep, Event, Instance, InstanceStatus,
        ModelAlias, ModelLimits, NewInstance, NewServer, NewVerification, Operation, PoolKey,
        PoolStanding, Provider, Rename, Restless, Rollout, RolloutCandidate, RolloutMember, Route,
        SagaStep, Sealed, Server, ServerReport, Spent, Stats, StatsRecord, StepMs,
        SuspensionReason, UsageCursor, UsageRecord, UsageSum, Verification,
    },
};

pub use agents::AgentStore;

/// Opens the store that a URL names, and brings its tables up to date.
pub async fn open(url: &DatabaseUrl, chance: Arc<Chance>) -> Stored<Arc<dyn Store>> {
    Ok(match url {
        DatabaseUrl::Sqlite(path) => Arc::new(sqlite::SqliteStore::open(path, chance).await?),
        DatabaseUrl::Postgres(url) => {
            let options = PgConnectOptions::from_str(url).map_err(|source| StoreError {
                doing: "read the database's URL",
                source: source.into(),
            })?;
            Arc::new(postgres::PostgresStore::open(options, chance).await?)
        }
    })
}

/// The database did not do what it was asked. Callers cannot tell causes apart, nor need to.
#[derive(Debug, thiserror::Error)]
#[error("store: {doing}")]
pub struct StoreError {
    /// What was being attempted.
    pub doing: &'static str,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Result of a store call.
pub type Stored<T> = Result<T, StoreError>;

/// Whether a state change happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    Done,
    /// The row was not in a state from which this is possible; nothing changed.
    NotPossible,
}

/// Servers, from intent to gone.
#[async_trait]
pub trait ServerStore: Send + Sync {
    /// Commits the intent: state `planned`, and its enrolment token's hash.
    async fn plan_server(&self, new: &NewServer, now: Moment) -> Stored<()>;
    /// `planned` → `creating`. Repeating it on `creating` is done, too.
    async fn mark_creating(&self, id: ServerId, now: Moment) -> Stored<Transition>;
    /// `planned|creating` → `booting`, with what the cloud answered; its address becomes trusted by the
    /// proxy as a server without an instance. Repeating it with the same facts is done.
    async fn record_created(
        &self,
        id: ServerId,
        made: &CloudServer,
        now: Moment,
    ) -> Stored<Transition>;
    /// A new link session, held by a coordinator: raises and returns the epoch. `None` when the server is
    /// unknown, revoked, or past `claimed`.
    async fn open_session(
        &self,
        id: ServerId,
        openclaw_version: &str,
        holder: CoordinatorId,
        now: Moment,
    ) -> Stored<Option<(u64, Server)>>;
    /// The server is given a certificate for its door: from now on, for ever, edges come to it by TLS. Done only
    /// the first time.
    async fn record_door(&self, id: ServerId) -> Stored<Transition>;
    /// A link session has ended: nobody holds the server's link, unless a newer session does.
    async fn close_session(&self, id: ServerId, epoch: u64) -> Stored<()>;
    /// What the agent reports. Ignored when its epoch is not the current one. `warm` turns `booting`
    /// into `warm` and ends the pool's failures in a row, its absence `warm` into `booting`; `failed` turns
    /// anything before `claimed` into `failed`; a claimed server's report
    /// updates its instance's health and observed generation (which never goes back, nor beyond what was
    /// written; nor does a rejected one) in the same transaction, finishes the
    /// instance's `configure` or `restart` operation once its generation is observed (failing it, with
    /// the reason, if that generation was rejected) and emits `config.applied`, `config.rejected`,
    /// `instance.health_changed`. Returns the server as it is afterwards, or `None` when ignored.
    async fn record_report(
        &self,
        id: ServerId,
        report: &ServerReport,
        now: Moment,
    ) -> Stored<Option<Server>>;
    /// Anything before `claimed` → `failed`; out of the trust table. The server's own fault counts towards
    /// its pool's failures in a row.
    async fn mark_failed(
        &self,
        id: ServerId,
        why: &str,
        blame: Blame,
        now: Moment,
    ) -> Stored<Transition>;
    /// The cloud does not have the server any more. One that was nobody's becomes `failed`; a claimed one
    /// is `draining`, its instance `failed` with the reason, out of routes and trust. Emits `server.lost`.
    async fn mark_lost(&self, id: ServerId, why: &str, now: Moment) -> Stored<Transition>;
    /// Nothing is heard of a server: it was switched off, or its link is gone. `warm` → `booting`, so that
    /// nobody is given it before its agent says again that it is warm. A claimed one stays claimed; its
    /// health and its instance's become `unknown`, for this reason.
    async fn mark_unheard(&self, id: ServerId, why: &str, now: Moment) -> Stored<Transition>;
    /// `warm|booting|planned|creating|failed` → `draining`, never `claimed`: the predicate is in the same statement, so a
    /// removal can never take a server that was just claimed. Out of the trust table.
    async fn retire_unclaimed(&self, id: ServerId, now: Moment) -> Stored<Transition>;
    /// `draining|failed` → `deleting`. Refused while the address is in the trust table.
    async fn mark_deleting(&self, id: ServerId, now: Moment) -> Stored<Transition>;
    /// `deleting` → `gone`.
    async fn mark_gone(&self, id: ServerId, now: Moment) -> Stored<Transition>;
    /// No session of this server is accepted from now on, the proxy does not trust its address, and no
    /// route leads to it, all in the same transaction. Its instance keeps its names.
    async fn revoke(&self, id: ServerId, now: Moment) -> Stored<()>;
    async fn server(&self, id: ServerId) -> Stored<Option<Server>>;
    /// All servers that are not gone, oldest first.
    async fn servers(&self) -> Stored<Vec<Server>>;
    /// Whose address this is, in the proxy's trust table.
    async fn trusted(&self, address: IpAddr) -> Stored<Option<(ServerId, Option<InstanceId>)>>;
}

/// Pools: how they stand, and who came.
#[async_trait]
pub trait PoolStore: Send + Sync {
    async fn pool_standing(&self, pool: &PoolKey) -> Stored<PoolStanding>;
    /// When instances of the pool were created since then, the newest 10,000 at most, in no order.
    async fn arrivals(&self, pool: &PoolKey, since: Moment) -> Stored<Vec<Moment>>;
    /// The operator's switch. Emits `pool.paused`.
    async fn pause_pool(&self, pool: &PoolKey, now: Moment) -> Stored<()>;
    /// Ends a pause, a halt, a hold and the count of failures. Emits `pool.resumed`.
    async fn resume_pool(&self, pool: &PoolKey, now: Moment) -> Stored<()>;
    /// Nothing is ordered until an operator resumes. Emits `pool.halted`, once.
    async fn halt_pool(&self, pool: &PoolKey, now: Moment) -> Stored<()>;
    /// Nothing is ordered until then. Emits `pool.held` with the reason, unless the pool is held already.
    async fn hold_pool(&self, pool: &PoolKey, until: Moment, why: &str, now: Moment) -> Stored<()>;
    /// The pool is below its target since now.
    async fn pool_fell_below(&self, pool: &PoolKey, now: Moment) -> Stored<()>;
    /// Emits `pool.below_target`, once until the pool reached its target.
    async fn tell_pool_below(&self, pool: &PoolKey, now: Moment) -> Stored<()>;
    /// The pool is at its target again. Emits `pool.recovered` if somebody was told that it was not.
    async fn pool_reached(&self, pool: &PoolKey, now: Moment) -> Stored<()>;
    /// Leaves a placement alone until then.
    async fn cool(&self, placement: &Placement, until: Moment) -> Stored<()>;
    /// The placements that are left alone now.
    async fn cooling(&self, now: Moment) -> Stored<HashSet<Placement>>;
}

/// Who serves models, and under which names.
#[async_trait]
pub trait ModelStore: Send + Sync {
    /// By name.
    async fn providers(&self) -> Stored<Vec<Provider>>;
    /// Without a key, the one that is there stays, unless the address changes.
    async fn put_provider(&self, new: &Provider) -> Stored<()>;
    /// Customers' keys for it go with it.
    async fn delete_provider(&self, name: &str) -> Stored<Transition>;
    /// By tier and name.
    async fn aliases(&self) -> Stored<Vec<ModelAlias>>;
    async fn put_alias(&self, new: &ModelAlias) -> Stored<()>;
    async fn delete_alias(&self, tier: &str, alias: &str) -> Stored<Transition>;
    /// All limits, by subject.
    async fn limits(&self) -> Stored<Vec<ModelLimits>>;
    async fn put_limits(&self, new: &ModelLimits) -> Stored<()>;
    async fn delete_limits(&self, subject: &str) -> Stored<Transition>;
}

/// Keys, sealed.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// The keys that an instance's customer gave, by provider, without the keys.
    async fn customer_keys(&self, id: InstanceId) -> Stored<Vec<CustomerKey>>;
    /// Not possible without such a provider, at this address, or such a living instance.
    async fn put_customer_key(
        &self,
        id: InstanceId,
        provider: &Provider,
        sealed: &[u8],
        now: Moment,
    ) -> Stored<Transition>;
    async fn delete_customer_key(&self, id: InstanceId, provider: &str) -> Stored<Transition>;
    /// Everything that a master key has sealed.
    async fn sealed(&self) -> Stored<Vec<Sealed>>;
    /// Replaces what is sealed, if it is what it was.
    async fn reseal(&self, old: &Sealed, sealed: &[u8]) -> Stored<Transition>;
}

/// What was used of models. `usage_records` is the proxy's to write.
#[async_trait]
pub trait UsageStore: Send + Sync {
    /// What an instance used from a moment to another, by day, model and payer.
    async fn usage(&self, id: InstanceId, from: Moment, to: Moment) -> Stored<Vec<UsageSum>>;
    /// What it spent on the operator's keys in this day and in this month.
    async fn spent(&self, id: InstanceId, now: Moment) -> Stored<Spent>;
    /// Records behind a cursor. None comes to light later that is before one that was read.
    async fn usage_records(
        &self,
        after: Option<UsageCursor>,
        limit: u32,
    ) -> Stored<Vec<(UsageCursor, UsageRecord)>>;
    /// Finds instances that asked for models without a rest, and tells of each once a day.
    async fn tell_restless(&self, pattern: &Restless, now: Moment) -> Stored<Vec<InstanceId>>;
}

/// Writes what the proxy would.
#[cfg(any(test, feature = "test-util"))]
#[async_trait]
pub trait UsageFixture: Send + Sync {
    async fn insert_usage(&self, record: &UsageRecord, at: Moment) -> Stored<()>;
}

/// What servers take, as their agents last said; no series.
#[async_trait]
pub trait StatsStore: Send + Sync {
    /// Takes in what was said, if it was said in the server's present session, and the server is not revoked or
    /// gone. All of it in one transaction.
    async fn record_stats(&self, said: &[StatsRecord], now: Moment) -> Stored<()>;
    /// The last word, and when it was written. Nothing of a server that is gone.
    async fn stats(&self, server: ServerId) -> Stored<Option<(Moment, Stats)>>;
    async fn all_stats(&self) -> Stored<HashMap<ServerId, (Moment, Stats)>>;
}

/// The sagas' log: append only, decides nothing.
#[async_trait]
pub trait SagaStore: Send + Sync {
    async fn note_step(&self, step: &SagaStep) -> Stored<()>;
    /// A server's steps, oldest first.
    async fn steps(&self, server: ServerId) -> Stored<Vec<SagaStep>>;
}

/// Trials of images, one at a time.
#[async_trait]
pub trait VerificationStore: Send + Sync {
    /// Notes the wish, unless a trial is under way; the one that is, now.
    async fn want_verification(&self, new: &NewVerification, now: Moment) -> Stored<Verification>;
    /// The one that has not ended.
    async fn open_verification(&self) -> Stored<Option<Verification>>;
    async fn verification(&self, id: VerificationId) -> Stored<Option<Verification>>;
    /// The last one that ended, of each image; of the 200 newest of them.
    async fn last_verifications(&self) -> Stored<Vec<Verification>>;
    /// The last one of an image that passed.
    async fn passed_verification(&self, image: &str) -> Stored<Option<Verification>>;
    /// `wanted` → `running`, with the intent to have its server in the same transaction.
    async fn begin_verification(
        &self,
        id: VerificationId,
        server: &NewServer,
        now: Moment,
    ) -> Stored<Transition>;
    /// What an agent says that is in its image. Kept only of a server on which an image is tried.
    async fn note_manifest(&self, server: ServerId, manifest: &ImageManifest) -> Stored<()>;
    /// When a server spent its enrolment token.
    async fn enrolled_at(&self, server: ServerId) -> Stored<Option<Moment>>;
    /// `wanted|running` → `passed|refused`. Emits `image.verified` or `image.refused`.
    async fn conclude_verification(
        &self,
        id: VerificationId,
        conclusion: &Conclusion,
        now: Moment,
    ) -> Stored<Transition>;
}

/// What became of an enrolment token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redemption {
    Accepted,
    /// No such token for this server.
    Unknown,
    AlreadyUsed,
    Expired,
    /// The server's address is another one.
    WrongAddress,
    /// The server is revoked or past `claimed`.
    NotServed,
    /// The server's address is not recorded yet: the same request may succeed a little later.
    TooEarly,
}

/// Enrolment: tokens in, certificates out.
#[async_trait]
pub trait EnrolmentStore: Send + Sync {
    /// Spends a token: one statement decides, so that of two redemptions one wins. A refusal of a token
    /// that was made for this server is an audit event `security.enrolment_refused` with the reason,
    /// except `TooEarly`. Any other token is `Unknown` and nothing is written, so that strangers cannot
    /// fill the disk or keep the writer busy.
    async fn redeem(
        &self,
        token_hash: [u8; 32],
        server: ServerId,
        address: IpAddr,
        now: Moment,
    ) -> Stored<Redemption>;
    /// Writes an audit event `security.<what>` about a server.
    async fn audit(
        &self,
        what: &str,
        server: Option<ServerId>,
        data: serde_json::Value,
        now: Moment,
    ) -> Stored<()>;
}

/// Why an instance was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateRefused {
    #[error("the name is taken")]
    NameTaken,
    #[error("the external id is taken by another instance")]
    ExternalIdTaken(InstanceId),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a document was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum ChangeRefused {
    #[error("no such instance")]
    NotFound,
    #[error("prepared against another generation than the present {0}")]
    Stale(Generation),
    #[error("another operation is running")]
    OperationInProgress(OperationId),
    #[error("the name is taken")]
    NameTaken,
    #[error("it keeps {0} earlier names already")]
    TooManyNames(u32),
    #[error("it is pinned to OpenClaw {0}")]
    Pinned(OpenClawVersion),
    #[error("the rollout does not run any more")]
    NotRolledOut,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One page of a list, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Page<K> {
    /// Continue after this id.
    pub after: Option<K>,
    pub limit: u32,
}

/// Instances, their documents and operations.
#[async_trait]
pub trait InstanceStore: Send + Sync {
    /// The claim. In one transaction: the instance, its document, its `create` operation, its routes;
    /// and, if nobody of its pool waits before it, the oldest warm server bound to it, with its trust
    /// row pointing at the instance. Without a server it is `pending`. Emits `instance.created`, and
    /// `pool.empty` when there was no warm server.
    async fn create_instance(
        &self,
        new: &NewInstance,
        now: Moment,
    ) -> Result<Instance, CreateRefused>;
    /// Binds warm servers to pending instances of the pool, first come first served, one at a time.
    /// `None` when nobody waits or no server is warm.
    async fn claim_for_pending(&self, pool: &PoolKey, now: Moment) -> Stored<Option<Instance>>;
    /// `starting` → `running` with the milliseconds of each step; finishes the `create` operation and
    /// emits `instance.ready`.
    async fn mark_running(
        &self,
        id: InstanceId,
        timings: &[StepMs],
        now: Moment,
    ) -> Stored<Transition>;
    /// `pending|starting` → `failed` with a reason; fails the `create` operation.
    async fn mark_instance_failed(
        &self,
        id: InstanceId,
        problem: &str,
        now: Moment,
    ) -> Stored<Transition>;
    /// Replaces document and configuration, with an operation that ends when it is observed.
    async fn change_document(
        &self,
        change: &DocumentChange,
        now: Moment,
    ) -> Result<Instance, ChangeRefused>;
    /// Gives an instance another name; its old hosts lead there until they expire. The same conditions as
    /// for [`change_document`](Self::change_document).
    async fn rename_instance(
        &self,
        rename: &Rename,
        now: Moment,
    ) -> Result<Instance, ChangeRefused>;
    /// Sets or removes basic auth (`user:bcrypt`). The edge decides; the new generation only has the server
    /// cut off whom it let in before.
    async fn set_basic_auth(
        &self,
        id: InstanceId,
        credentials: Option<&str>,
        now: Moment,
    ) -> Stored<Transition>;
    /// `starting|running|stopped` → `suspended`, and `failed` with a server: no route leads to its server, no session or login link opens
    /// it, other operations are canceled, its document says that the gateway is off. Trust row, server and
    /// sessions stay.
    async fn suspend_instance(
        &self,
        id: InstanceId,
        operation: OperationId,
        why: (SuspensionReason, Option<&str>),
        now: Moment,
    ) -> Stored<Transition>;
    /// `suspended` → `starting`, or `stopped` if it was that before.
    async fn unsuspend_instance(
        &self,
        id: InstanceId,
        operation: OperationId,
        now: Moment,
    ) -> Stored<Transition>;
    /// `starting|running` → `stopped`, and `failed` with a server, as for a suspension.
    async fn stop_instance(
        &self,
        id: InstanceId,
        operation: OperationId,
        now: Moment,
    ) -> Stored<Transition>;
    /// `stopped` → `starting`.
    async fn start_instance(
        &self,
        id: InstanceId,
        operation: OperationId,
        now: Moment,
    ) -> Stored<Transition>;
    /// Any status before it → `deleted`: routes, trust row, sessions and login links go in the same
    /// transaction, other operations are canceled. Its server is kept until `purge_at`; when that is now,
    /// it is purged in the same transaction. `delete` has succeeded when the server is out of reach.
    /// Repeating it is `NotPossible`.
    async fn delete_instance(
        &self,
        id: InstanceId,
        operation: OperationId,
        purge_at: Moment,
        now: Moment,
    ) -> Stored<Transition>;
    /// `deleted` → `starting` on the server it had, `pending` if it had none, `suspended` if it was that: routes and trust are back, with a
    /// new generation of the document so that everything is proven again.
    async fn undelete_instance(
        &self,
        change: &DocumentChange,
        now: Moment,
    ) -> Result<Instance, ChangeRefused>;
    /// `deleted` → `purged`, if its grace ends by then: its server is `draining`, its name free. Emits
    /// `instance.purged`.
    async fn purge_instance(
        &self,
        id: InstanceId,
        ended_by: Moment,
        now: Moment,
    ) -> Stored<Transition>;
    /// Deleted instances whose time is over.
    async fn to_be_purged(&self, now: Moment) -> Stored<Vec<InstanceId>>;
    async fn instance(&self, id: InstanceId) -> Stored<Option<Instance>>;
    /// By name, deleted ones left out.
    async fn instance_named(&self, name: &str) -> Stored<Option<Instance>>;
    async fn instance_with_external_id(&self, external_id: &str) -> Stored<Option<Instance>>;
    /// A page of the instances in `status` (all that are not deleted when `None`).
    async fn instances(
        &self,
        status: Option<InstanceStatus>,
        page: &Page<InstanceId>,
    ) -> Stored<Vec<Instance>>;
    /// How many of the pool wait for a server.
    async fn pending_count(&self, pool: &PoolKey) -> Stored<u32>;
    /// The document a server should hold, if it belongs to an instance, or did until it was sent away: the last
    /// one shuts its doors.
    async fn document_for(&self, server: ServerId) -> Stored<Option<SealedDocument>>;
    async fn operation(&self, id: OperationId) -> Stored<Option<Operation>>;
    /// The operation that is under way, if any.
    async fn current_operation(&self, id: InstanceId) -> Stored<Option<Operation>>;
}

/// Versions of OpenClaw: orders, pins, and rollouts to a tier.
#[async_trait]
pub trait RolloutStore: Send + Sync {
    /// Like [`InstanceStore::change_document`], with an order for a version in it, for a rollout if one is named,
    /// which must be running. Refused if the instance is pinned to another one. The operation ends when its
    /// agent says that the order is over. Emits `upgrade.started`, and then `upgrade.done` or `upgrade.failed`.
    async fn begin_upgrade(
        &self,
        change: &DocumentChange,
        rollout: Option<RolloutId>,
        now: Moment,
    ) -> Result<Instance, ChangeRefused>;
    /// Sets or removes the only version that an instance may be upgraded to; an order for another one is taken back.
    /// Emits `instance.pinned` or `instance.unpinned`, and `upgrade.withdrawn`.
    async fn pin_instance(
        &self,
        id: InstanceId,
        version: Option<&OpenClawVersion>,
        now: Moment,
    ) -> Stored<Transition>;
    /// Upgrades that were begun before then and have not ended, oldest first, a hundred at the most.
    async fn overdue_upgrades(
        &self,
        begun_before: Moment,
    ) -> Stored<Vec<(InstanceId, OperationId)>>;
    /// Fails an upgrade that is under way, and takes its order back. Emits `upgrade.failed`.
    async fn give_up_upgrade(
        &self,
        id: InstanceId,
        upgrade: OperationId,
        why: &str,
        now: Moment,
    ) -> Stored<Transition>;
    /// Begins a rollout, and ends another one of its tier, whose orders are taken back. Not possible when two are begun
    /// at the same moment. Emits `rollout.started`, `rollout.superseded`, `upgrade.withdrawn`.
    async fn start_rollout(&self, rollout: &Rollout, now: Moment) -> Stored<Transition>;
    /// `running` → `halted`; its orders are taken back. Emits `rollout.halted`, with the reason, and
    /// `upgrade.withdrawn`. An agent that has begun already goes on, and its upgrade ends as it says; any other is
    /// canceled once it has seen its document, and may be ordered again.
    async fn halt_rollout(&self, id: RolloutId, why: &str, now: Moment) -> Stored<Transition>;
    /// `halted` → `running`; what is wrong with these members does not count any more. Emits `rollout.resumed`.
    async fn resume_rollout(
        &self,
        id: RolloutId,
        forgiven: &[InstanceId],
        now: Moment,
    ) -> Stored<Transition>;
    /// `running` → `finished`. Emits `rollout.finished`.
    async fn finish_rollout(&self, id: RolloutId, now: Moment) -> Stored<Transition>;
    /// The last rollout of each tier, by tier.
    async fn rollouts(&self) -> Stored<Vec<Rollout>>;
    /// Whom it has reached, in that order.
    async fn rollout_members(&self, id: RolloutId) -> Stored<Vec<RolloutMember>>;
    /// The running instances of a tier.
    async fn rollout_candidates(&self, tier: &str) -> Stored<Vec<RolloutCandidate>>;
}

/// Routes, as the edge and Redis are fed.
#[async_trait]
pub trait RouteStore: Send + Sync {
    /// Every route, in no order.
    async fn routes(&self) -> Stored<Vec<Route>>;
    /// The routes of one instance; empty when it has none (any more).
    async fn routes_of(&self, id: InstanceId) -> Stored<Vec<Route>>;
    /// Every server from `booting` to `claimed` that has an address and is not revoked, with the names that
    /// lead to it, all of one moment.
    async fn destinations(&self) -> Stored<Vec<Destination>>;
}

/// Names that an instance may have asked for at the same time.
pub const DOMAINS_MAX: u32 = 8;

/// Why a domain was not added.
#[derive(Debug, thiserror::Error)]
pub enum DomainRefused {
    #[error("no such instance")]
    NotFound,
    #[error("the instance has it already, or it is an instance's own name")]
    Taken,
    #[error("it has {DOMAINS_MAX} domains already")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// So many certificates may be ordered within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderLimit {
    pub orders: u32,
    pub within: Duration,
}

/// For one instance: enough for all its domains, and to fail now and then.
pub const ORDERS_OF_INSTANCE: OrderLimit = OrderLimit {
    orders: 20,
    within: Duration::from_hours(24),
};
/// For all: Let's Encrypt takes 300 of an account in that time.
pub const ORDERS_OF_ALL: OrderLimit = OrderLimit {
    orders: 200,
    within: Duration::from_hours(3),
};

/// No certificate may be ordered now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrdersSpent {
    pub limit: OrderLimit,
    /// There may be another one from then on.
    pub until: Moment,
}

/// How long a domain that was given up stays so, whoever asks.
pub const DOMAIN_RESTS: Duration = Duration::from_mins(5);

/// An instance whose document names other domains than it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    pub instance: InstanceId,
    /// In order of their names.
    pub wanted: Vec<String>,
}

/// Certificates of customers' own names, as the edge needs them.
#[async_trait]
pub trait CertificateStore: Send + Sync {
    /// Of the names that are served, of one instance if given.
    async fn certificate_marks(&self, instance: Option<InstanceId>)
    -> Stored<Vec<CertificateMark>>;
    async fn certificate(&self, name: &str, instance: InstanceId) -> Stored<Option<Certificate>>;
    /// What the certificate authority wants to be answered for a token.
    async fn challenge(&self, token: &str, now: Moment) -> Stored<Option<String>>;
}

/// Customers' own host names. Many may ask for one; of those that are `issuing` or further there is one
/// a name, whatever is asked at the same time.
#[async_trait]
pub trait DomainStore: Send + Sync {
    /// `pending_dns`, to be looked at now. Emits `domain.added`.
    async fn add_domain(
        &self,
        name: &str,
        instance: InstanceId,
        token: &str,
        now: Moment,
    ) -> Result<Domain, DomainRefused>;
    /// By name.
    async fn domains_of(&self, instance: InstanceId) -> Stored<Vec<Domain>>;
    async fn domain(&self, name: &str, instance: InstanceId) -> Stored<Option<Domain>>;
    /// Who has proven that the name is theirs.
    async fn domain_holder(&self, name: &str) -> Stored<Option<Domain>>;
    /// Of instances that are not deleted, those that are to be looked at, the longest due first.
    async fn due_domains(&self, now: Moment, limit: u32) -> Stored<Vec<Domain>>;
    /// From the state that was seen to another, with its events. Not possible when it is in another one by now,
    /// or the name is another instance's.
    async fn move_domain(&self, step: &DomainStep, now: Moment) -> Stored<Transition>;
    /// Has it looked at now, unless an order of its certificate has failed and waits for its time; a `failed` one
    /// is `pending_dns` again. Not possible for one that failed less than [`DOMAIN_RESTS`] ago.
    async fn check_domain(
        &self,
        name: &str,
        instance: InstanceId,
        now: Moment,
    ) -> Stored<Transition>;
    /// Notes that a certificate is about to be ordered for an instance.
    async fn begin_order(
        &self,
        instance: InstanceId,
        now: Moment,
    ) -> Stored<Result<(), OrdersSpent>>;
    /// Keeps a new certificate of a name that is proven.
    async fn put_certificate(&self, new: &Certificate, next_check_at: Moment)
    -> Stored<Transition>;
    /// The name leads nowhere from this commit on. Emits `domain.removed`.
    async fn remove_domain(
        &self,
        name: &str,
        instance: InstanceId,
        now: Moment,
    ) -> Stored<Transition>;
    /// Running instances whose documents are behind.
    async fn unserved_domains(&self) -> Stored<Vec<Unserved>>;
    /// Not possible when there are too many.
    async fn put_challenge(&self, token: &str, answer: &str, expires: Moment)
    -> Stored<Transition>;
    /// The account at a certificate authority, sealed.
    async fn acme_account(&self, directory: &str) -> Stored<Option<Vec<u8>>>;
    async fn put_acme_account(&self, directory: &str, sealed: &[u8]) -> Stored<()>;
}

/// The event log.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Events after a sequence number, oldest first, at most `limit`; of one instance if given.
    async fn events_after(
        &self,
        sequence: u64,
        instance: Option<InstanceId>,
        limit: u32,
    ) -> Stored<Vec<Event>>;
    /// The sequence number of an event, for `Last-Event-ID`.
    async fn event_sequence(&self, id: &str) -> Stored<Option<u64>>;
    /// Writes an event that is about no single server or instance.
    async fn tell(&self, kind: &str, data: serde_json::Value, now: Moment) -> Stored<()>;
    /// The newest sequence number; 0 when there is none.
    async fn last_sequence(&self) -> Stored<u64>;
}

/// What is known of an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idempotency {
    /// Never seen; the caller now holds it and must finish or abandon it.
    Fresh,
    /// Done before with the same request: answer this again.
    Replay { status: u16, body: String },
    /// Used before with another request.
    Mismatch,
    /// The first request is still running.
    InProgress,
}

/// Who may come in: API tokens, login links, browser sessions, idempotency keys.
#[async_trait]
pub trait AccessStore: Send + Sync {
    async fn create_api_token(&self, token: &ApiToken) -> Stored<()>;
    async fn api_token(&self, id: TokenId) -> Stored<Option<ApiToken>>;
    async fn api_tokens(&self) -> Stored<Vec<ApiToken>>;
    async fn revoke_api_token(&self, id: TokenId, now: Moment) -> Stored<Transition>;

    /// A login link, by the hash of its secret.
    async fn create_login_link(
        &self,
        secret_hash: [u8; 32],
        instance: InstanceId,
        expires: Moment,
        now: Moment,
    ) -> Stored<()>;
    /// Spends a login link and opens a session in the same transaction. Of two tries one wins. The
    /// link must be of this instance. Returns whether the session exists now.
    async fn redeem_login_link(
        &self,
        secret_hash: [u8; 32],
        instance: InstanceId,
        session_hash: [u8; 32],
        session_expires: Moment,
        now: Moment,
    ) -> Stored<bool>;
    /// The instance that a live session opens.
    async fn session(&self, session_hash: [u8; 32], now: Moment) -> Stored<Option<InstanceId>>;
    /// Ends one session of an instance, or all of them when none is named, and then cuts off whatever is open to it;
    /// returns how many ended.
    async fn end_sessions(
        &self,
        instance: InstanceId,
        session_hash: Option<[u8; 32]>,
    ) -> Stored<u64>;

    /// Takes or looks up an idempotency key; a key held for longer than two minutes by a request that never
    /// finished counts as fresh.
    async fn begin_idempotent(
        &self,
        token: TokenId,
        key: &str,
        request_hash: [u8; 32],
        now: Moment,
    ) -> Stored<Idempotency>;
    async fn finish_idempotent(
        &self,
        token: TokenId,
        key: &str,
        status: u16,
        body: &str,
        now: Moment,
    ) -> Stored<()>;
    async fn abandon_idempotent(&self, token: TokenId, key: &str) -> Stored<()>;
    /// Forgets idempotency keys, login links, sessions and coordinators that are over, and the oldest events
    /// once they are 30 days old, a bounded number at a time; what is left of the log has no gaps, and the
    /// newest event stays. Returns how many of all.
    async fn forget_expired(&self, now: Moment) -> Stored<u64>;
}

/// Which coordinators are there, and which of them does what only one may do. Timed by the database's
/// clock if several processes share it (PostgreSQL), otherwise by `now`; moments that are returned are of
/// that clock.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Takes a lease that is free or has expired, or renews one's own; until when it is held now. `None`
    /// when another holds it.
    async fn acquire_lease(
        &self,
        name: &str,
        holder: CoordinatorId,
        ttl: Duration,
        now: Moment,
    ) -> Stored<Option<Moment>>;
    /// Gives a lease back, if it is one's own.
    async fn release_lease(&self, name: &str, holder: CoordinatorId) -> Stored<()>;
    /// Says that a coordinator is there, and where others reach its API.
    async fn heartbeat(
        &self,
        coordinator: CoordinatorId,
        api_address: &str,
        now: Moment,
    ) -> Stored<()>;
    /// The coordinators that were there within a while, oldest first.
    async fn live_coordinators(&self, within: Duration, now: Moment) -> Stored<Vec<Coordinator>>;
}

/// All of it.
pub trait Store:
    ServerStore
    + PoolStore
    + ModelStore
    + KeyStore
    + UsageStore
    + StatsStore
    + SagaStore
    + VerificationStore
    + EnrolmentStore
    + InstanceStore
    + RolloutStore
    + RouteStore
    + CertificateStore
    + DomainStore
    + EventStore
    + AccessStore
    + LeaseStore
    + AgentStore
    + 'static
{
}

impl<S> Store for S where
    S: ServerStore
        + PoolStore
        + ModelStore
        + KeyStore
        + UsageStore
        + StatsStore
        + SagaStore
        + VerificationStore
        + EnrolmentStore
        + InstanceStore
        + RolloutStore
        + RouteStore
        + CertificateStore
        + DomainStore
        + EventStore
        + AccessStore
        + LeaseStore
        + AgentStore
        + 'static
{
}
