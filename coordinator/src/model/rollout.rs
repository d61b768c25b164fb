//! Rollouts: another version of OpenClaw for the instances of a tier, in waves.

use tidepool_shared::{
    id::{InstanceId, OperationId, RolloutId, ServerId},
    openclaw_version::OpenClawVersion,
};

use super::{Health, InstanceStatus, OperationState, RolloutState};
use crate::ambient::Moment;

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    pub id: RolloutId,
    pub tier: String,
    pub version: OpenClawVersion,
    /// How many are the first.
    pub canaries: u32,
    /// How many of the rest are upgraded at once.
    pub wave_percent: u32,
    /// More failures than this halt it.
    pub max_failures: u32,
    /// How long a wave must stay well before the next one begins.
    pub soak_s: u32,
    pub state: RolloutState,
    /// Why it is halted.
    pub reason: Option<String>,
    pub created_at: Moment,
    pub finished_at: Option<Moment>,
}

/// An instance that a rollout has reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutMember {
    pub instance: InstanceId,
    pub name: String,
    pub server: Option<ServerId>,
    pub status: InstanceStatus,
    pub health: Health,
    /// Since when it has been down, or silent, without a break.
    pub unwell_since: Option<Moment>,
    pub operation: OperationId,
    pub state: OperationState,
    /// Why it has not got the version.
    pub error: Option<String>,
    pub begun_at: Moment,
    pub ended_at: Option<Moment>,
    /// What was wrong with it before the rollout was resumed does not count.
    pub forgiven: bool,
}

/// An instance of a rollout's tier that has a customer and a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutCandidate {
    pub instance: InstanceId,
    /// What its server runs.
    pub version: Option<String>,
    pub pin: Option<OpenClawVersion>,
    pub health: Health,
    /// Whether it can be begun with now: its link is held, its agent knows orders, and nothing else is under way,
    /// nor another agent on its way.
    pub ready: bool,
}
