//! What the API shows of an instance.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    ambient::Moment,
    api::{ApiState, operations::OperationView, problem::Problem, servers::StatsView},
    model::{Health, Instance, InstanceStatus, Operation, SuspensionReason},
};

/// An instance as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InstanceView {
    pub id: String,
    pub name: String,
    pub external_id: Option<String>,
    pub tier: String,
    pub region: String,
    pub status: InstanceStatus,
    pub health: Health,
    /// Why health is not ok, or why the instance failed; for a person.
    pub reasons: Vec<String>,
    pub url: String,
    /// The number of the wanted configuration.
    pub generation: u64,
    /// The number of the configuration that is in effect.
    pub observed_generation: u64,
    /// What is under way now.
    pub operation: Option<OperationView>,
    pub allowed_actions: Vec<Action>,
    /// Milliseconds of each step from the create call to running, and their `total`.
    #[schema(value_type = std::collections::HashMap<String, u64>)]
    pub timings_ms: Map<String, Value>,
    /// Whether a warm server was there when it was created.
    pub warm: bool,
    /// The version of OpenClaw that it runs, if its server has said so.
    pub openclaw_version: Option<String>,
    /// The only version that it may be upgraded to.
    pub openclaw_pin: Option<String>,
    /// The private networks that its gateway may reach.
    // A coordinator of before says nothing of them, and our command line reads it all the same.
    #[serde(default)]
    #[schema(required = true)]
    pub networks: Vec<String>,
    /// Present while it waits for a server.
    pub pending: Option<Pending>,
    /// Present while it is suspended.
    pub suspension: Option<SuspensionView>,
    pub created_at: String,
    pub ready_at: Option<String>,
    /// Until when a deleted instance may be asked back.
    pub purge_at: Option<String>,
    /// What its gateway and its server take, as was last said; `null` before anything was.
    pub stats: Option<StatsView>,
}

/// What may be asked of an instance now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Configure,
    Restart,
    Rename,
    Upgrade,
    Pin,
    Login,
    SetBasicAuth,
    Stop,
    Start,
    Suspend,
    Unsuspend,
    Delete,
    Undelete,
    Purge,
}

/// Why an instance is suspended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SuspensionView {
    pub reason: SuspensionReason,
    /// What its visitors are told.
    pub message: Option<String>,
    pub since: String,
}

/// Why an instance waits, and for how long.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Pending {
    pub reason: PendingReason,
    /// From 1.
    pub queue_position: Option<u32>,
    /// An estimate.
    pub eta_s: Option<u64>,
}

/// Why an instance waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PendingReason {
    PoolEmpty,
}

/// Reads what belongs to an instance and shows it.
pub(super) async fn view(state: &ApiState, instance: Instance) -> Result<InstanceView, Problem> {
    let operation = state.store.current_operation(instance.id).await?;
    let (stats, server) = match instance.server {
        Some(id) => (state.store.stats(id).await?, state.store.server(id).await?),
        None => (None, None),
    };
    let version = server.and_then(|server| server.openclaw_version);
    Ok(InstanceView {
        stats: stats.map(Into::into),
        openclaw_version: version,
        ..shown(state, instance, operation)
    })
}

fn shown(state: &ApiState, instance: Instance, operation: Option<Operation>) -> InstanceView {
    InstanceView {
        openclaw_version: None,
        openclaw_pin: instance.pin.as_ref().map(ToString::to_string),
        networks: instance.networks.iter().map(|it| it.to_string()).collect(),
        id: instance.id.to_string(),
        allowed_actions: allowed_actions(&instance, operation.as_ref()),
        timings_ms: timings(&instance),
        pending: pending(state, &instance),
        suspension: suspension(&instance),
        name: instance.name,
        external_id: instance.external_id,
        tier: instance.pool.tier,
        region: instance.pool.region,
        status: instance.status,
        health: instance.health,
        reasons: instance
            .reasons
            .into_iter()
            .chain(instance.problem)
            .collect(),
        url: instance.url,
        generation: instance.generation.0,
        observed_generation: instance.observed.0,
        operation: operation.map(Into::into),
        warm: instance.warm,
        created_at: instance.created_at.rfc3339(),
        ready_at: instance.ready_at.map(Moment::rfc3339),
        purge_at: instance.purge_at.map(Moment::rfc3339),
        stats: None,
    }
}

fn allowed_actions(instance: &Instance, operation: Option<&Operation>) -> Vec<Action> {
    use Action::{
        Configure, Delete, Login, Pin, Purge, Rename, Restart, SetBasicAuth, Start, Stop, Suspend,
        Undelete, Unsuspend, Upgrade,
    };
    match (instance.status, operation) {
        (InstanceStatus::Running, None) => vec![
            Configure,
            Restart,
            Rename,
            Upgrade,
            Pin,
            Login,
            SetBasicAuth,
            Stop,
            Suspend,
            Delete,
        ],
        (InstanceStatus::Running, Some(_)) | (InstanceStatus::Starting, _) => {
            vec![Pin, Login, SetBasicAuth, Stop, Suspend, Delete]
        }
        (InstanceStatus::Pending, _) => vec![Login, SetBasicAuth, Delete],
        (InstanceStatus::Stopped, _) => vec![SetBasicAuth, Start, Suspend, Delete],
        (InstanceStatus::Suspended, _) => vec![SetBasicAuth, Unsuspend, Delete],
        (InstanceStatus::Failed, _) if instance.server.is_some() => vec![Stop, Suspend, Delete],
        (InstanceStatus::Failed, _) => vec![Delete],
        (InstanceStatus::Deleted, _) => vec![Undelete, Purge],
        (InstanceStatus::Purged, _) => vec![],
    }
}

fn timings(instance: &Instance) -> Map<String, Value> {
    let mut timings: Map<String, Value> = instance
        .timings
        .iter()
        .map(|step| (step.name.clone(), step.ms.into()))
        .collect();
    if let Some(ready) = instance.ready_at {
        let total = ready.since(instance.created_at).as_millis();
        let total = u64::try_from(total).unwrap_or(u64::MAX);
        timings.insert("total".to_owned(), total.into());
    }
    timings
}

fn suspension(instance: &Instance) -> Option<SuspensionView> {
    let suspension = instance.suspension.as_ref();
    let suspension = suspension.filter(|_| instance.status == InstanceStatus::Suspended)?;
    Some(SuspensionView {
        reason: suspension.reason,
        message: suspension.message.clone(),
        since: suspension.since.rfc3339(),
    })
}

fn pending(state: &ApiState, instance: &Instance) -> Option<Pending> {
    (instance.status == InstanceStatus::Pending).then(|| {
        let pool = &instance.pool;
        let outlook = state.pool(Some(&pool.tier), Some(&pool.region));
        let place = instance.queue_position;
        Pending {
            reason: PendingReason::PoolEmpty,
            queue_position: place,
            eta_s: outlook
                .zip(place)
                .map(|(outlook, place)| outlook.eta_s(place)),
        }
    })
}
