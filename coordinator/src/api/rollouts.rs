//! Rollouts as an operator starts, sees, halts and resumes them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use tidepool_shared::id::RolloutId;
use utoipa::ToSchema;

use super::{
    ApiState,
    body::{Parsed, request_bodies},
    instances::openclaw::{find_version, read_version},
    problem::{Code, Problem, ProblemBody},
};
use crate::{
    ambient::Moment,
    doorbell::Ring,
    model::{OperationState, Rollout, RolloutMember, RolloutState},
    store::Transition,
    upgrades::{Outlook, faulty, ring_members},
};

/// Members that one answer shows: each fleet is larger some day.
const MEMBERS_SHOWN: usize = 100;

/// What to roll out, and how carefully.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRollout {
    pub tier: String,
    /// Such as `2026.9.6`.
    pub version: String,
    /// How many instances are the first. 1 if it is not said.
    #[schema(maximum = 1000)]
    pub canaries: Option<u32>,
    /// Percent of the instances that are upgraded at once after that. 10 if it is not said.
    #[schema(minimum = 1, maximum = 100)]
    pub wave_percent: Option<u32>,
    /// More failures than this halt it. 0 if it is not said.
    #[schema(maximum = 1000)]
    pub max_failures: Option<u32>,
    /// Seconds that a wave must stay well before the next one begins. 600 if it is not said.
    #[schema(maximum = 604_800)]
    pub soak_s: Option<u32>,
}

request_bodies!(StartRollout);

/// The last rollout of each tier.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RolloutsView {
    pub data: Vec<RolloutView>,
}

/// A rollout.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RolloutView {
    pub id: String,
    pub tier: String,
    pub version: String,
    pub state: RolloutState,
    /// Why it is halted.
    pub reason: Option<String>,
    pub canaries: u32,
    pub wave_percent: u32,
    pub max_failures: u32,
    pub soak_s: u32,
    /// Running instances of the tier that it is still to reach.
    pub left: u64,
    /// How many of those it could begin with now. The others are not linked, are busy, or have an agent that does not
    /// know orders; a canary must be well, too.
    pub ready: u64,
    /// How many it has reached.
    pub reached: u64,
    /// The last hundred of those, in that order.
    pub members: Vec<RolloutMemberView>,
    pub created_at: String,
    pub finished_at: Option<String>,
}

/// An instance that a rollout has reached.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RolloutMemberView {
    pub instance_id: String,
    pub name: String,
    pub operation_id: String,
    pub state: OperationState,
    /// Why it has not got the version.
    pub error: Option<String>,
}

/// Shows the last rollout of each tier.
#[utoipa::path(get, path = "/v1/rollouts", tag = "rollouts",
    responses((status = 200, body = RolloutsView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<Arc<ApiState>>,
) -> Result<Json<RolloutsView>, Problem> {
    let mut data = Vec::new();
    for rollout in state.store.rollouts().await? {
        data.push(view(&state, rollout).await?);
    }
    Ok(Json(RolloutsView { data }))
}

/// Starts a rollout of a version to the running instances of a tier, canaries first. It ends another one of this
/// tier that is under way, and takes its orders back. Pinned instances are passed by. An artefact must bring the
/// version, or an image have it.
#[utoipa::path(post, path = "/v1/rollouts", tag = "rollouts", request_body = StartRollout,
    params(("Idempotency-Key" = Option<String>, Header, description = "Replays the first answer to the same request")),
    responses((status = 201, body = RolloutView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn start(
    State(state): State<Arc<ApiState>>,
    Parsed(body): Parsed<StartRollout>,
) -> Result<(StatusCode, Json<RolloutView>), Problem> {
    let version = read_version(&body.version)?;
    if state.pool(Some(&body.tier), None).is_none() {
        return Err(Problem::field("/tier", "unknown_tier", "no such tier"));
    }
    find_version(&state, &version).await?;
    let now = state.now();
    let before = last_of(&state, &body.tier).await?;
    let rollout = Rollout {
        id: RolloutId::new(state.chance.uuid(now)),
        tier: body.tier,
        version,
        canaries: body.canaries.unwrap_or(1),
        wave_percent: body.wave_percent.unwrap_or(10),
        max_failures: body.max_failures.unwrap_or(0),
        soak_s: body.soak_s.unwrap_or(600),
        state: RolloutState::Running,
        reason: None,
        created_at: now,
        finished_at: None,
    };
    if state.store.start_rollout(&rollout, now).await? == Transition::NotPossible {
        let detail = "another one was started for this tier at the same moment";
        return Err(Problem::new(Code::NotPossible, detail));
    }
    state.doorbell.ring(Ring::Events);
    if let Some(before) = before {
        ring_members(&*state.store, &state.doorbell, before.id).await?;
    }
    Ok((StatusCode::CREATED, Json(view(&state, rollout).await?)))
}

/// Halts a tier's rollout: nothing more is begun. Orders are taken back; a server that has begun with one goes on, and
/// its outcome counts.
#[utoipa::path(post, path = "/v1/rollouts/{tier}/halt", tag = "rollouts", params(("tier" = String, Path)),
    responses((status = 200, body = RolloutView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn halt(
    State(state): State<Arc<ApiState>>,
    Path(tier): Path<String>,
) -> Result<Json<RolloutView>, Problem> {
    let rollout = of_tier(&state, &tier).await?;
    let (why, now) = ("halted by hand", state.now());
    let moved = state.store.halt_rollout(rollout.id, why, now).await?;
    ring_members(&*state.store, &state.doorbell, rollout.id).await?;
    answer(&state, &tier, &rollout, moved).await
}

/// Resumes a halted rollout. Whoever failed so far is left as it is, and does not halt it again; another canary takes
/// the place of one that failed.
#[utoipa::path(post, path = "/v1/rollouts/{tier}/resume", tag = "rollouts", params(("tier" = String, Path)),
    responses((status = 200, body = RolloutView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn resume(
    State(state): State<Arc<ApiState>>,
    Path(tier): Path<String>,
) -> Result<Json<RolloutView>, Problem> {
    let rollout = of_tier(&state, &tier).await?;
    let members = state.store.rollout_members(rollout.id).await?;
    let now = state.now();
    let forgiven: Vec<_> = faulty(&rollout, &members, now)
        .map(|member| member.instance)
        .collect();
    let moved = state
        .store
        .resume_rollout(rollout.id, &forgiven, now)
        .await?;
    answer(&state, &tier, &rollout, moved).await
}

async fn of_tier(state: &ApiState, tier: &str) -> Result<Rollout, Problem> {
    let found = last_of(state, tier).await?;
    found.ok_or_else(|| Problem::new(Code::NotFound, "no rollout of this tier"))
}

async fn last_of(state: &ApiState, tier: &str) -> Result<Option<Rollout>, Problem> {
    let rollouts = state.store.rollouts().await?;
    Ok(rollouts.into_iter().find(|rollout| rollout.tier == tier))
}

async fn answer(
    state: &ApiState,
    tier: &str,
    before: &Rollout,
    moved: Transition,
) -> Result<Json<RolloutView>, Problem> {
    if moved == Transition::NotPossible {
        let detail = format!("it is {}", before.state.word());
        return Err(Problem::new(Code::NotPossible, detail));
    }
    state.doorbell.ring(Ring::Events);
    Ok(Json(view(state, of_tier(state, tier).await?).await?))
}

async fn view(state: &ApiState, rollout: Rollout) -> Result<RolloutView, Problem> {
    let members = state.store.rollout_members(rollout.id).await?;
    let candidates = state.store.rollout_candidates(&rollout.tier).await?;
    let outlook = Outlook::of(&rollout, &members, &candidates, state.now());
    let unseen = members.len().saturating_sub(MEMBERS_SHOWN);
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    Ok(RolloutView {
        id: rollout.id.to_string(),
        version: rollout.version.to_string(),
        tier: rollout.tier,
        state: rollout.state,
        reason: rollout.reason,
        canaries: rollout.canaries,
        wave_percent: rollout.wave_percent,
        max_failures: rollout.max_failures,
        soak_s: rollout.soak_s,
        left: count(outlook.left),
        ready: count(outlook.ready),
        reached: count(members.len()),
        members: members.into_iter().skip(unseen).map(Into::into).collect(),
        created_at: rollout.created_at.rfc3339(),
        finished_at: rollout.finished_at.map(Moment::rfc3339),
    })
}

impl From<RolloutMember> for RolloutMemberView {
    fn from(member: RolloutMember) -> Self {
        Self {
            instance_id: member.instance.to_string(),
            name: member.name,
            operation_id: member.operation.to_string(),
            state: member.state,
            error: member.error,
        }
    }
}
