//! The agents' versions over HTTP, and their rollouts. What is rolled out was signed elsewhere and added to this
//! coordinator's artefacts; nothing here can make an agent.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use tidepool_shared::artefact::{Kind, Version};
use tokio::task::spawn_blocking;
use utoipa::ToSchema;

use super::{
    ApiState,
    body::{Parsed, request_bodies},
    problem::{Code, Problem, ProblemBody},
};
use crate::{
    doorbell::Ring,
    model::{Agent, AgentEnding, AgentRollout, NewAgentRollout},
    store::Transition,
};

/// A rollout to begin; the one before it goes nowhere else.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginAgentRollout {
    /// A version whose signed file was added to this coordinator.
    #[schema(max_length = 48)]
    pub version: String,
    /// So many servers must keep it before others get it.
    #[serde(default = "canary")]
    #[schema(minimum = 1, maximum = 1000)]
    pub canary: u32,
    /// After that, how many of all servers are updated at a time.
    #[serde(default = "percent")]
    #[schema(minimum = 1, maximum = 100)]
    pub percent: u32,
}

request_bodies!(BeginAgentRollout);

fn canary() -> u32 {
    1
}

fn percent() -> u32 {
    10
}

/// All agents, and the newest rollout.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AgentsView {
    pub rollout: Option<AgentRolloutView>,
    pub agents: Vec<AgentView>,
}

/// A version on its way to the servers.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AgentRolloutView {
    pub id: u64,
    pub version: String,
    pub canary: u32,
    pub percent: u32,
    /// Why no other server gets it; absent while it goes on.
    pub halted: Option<String>,
    pub created_at: String,
}

/// A server's agent.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AgentView {
    pub server_id: String,
    pub server_name: String,
    /// What it called itself when its link came up.
    pub version: String,
    /// Whether its link is up.
    pub linked: bool,
    /// The last rollout that it was in.
    pub rollout: Option<u64>,
    /// What became of that; absent while it is under way.
    pub ending: Option<AgentEnding>,
    pub reason: Option<String>,
}

impl From<AgentRollout> for AgentRolloutView {
    fn from(rollout: AgentRollout) -> Self {
        Self {
            id: rollout.id,
            version: rollout.version,
            canary: rollout.canary,
            percent: rollout.percent,
            halted: rollout.halted,
            created_at: rollout.created_at.rfc3339(),
        }
    }
}

impl From<Agent> for AgentView {
    fn from(agent: Agent) -> Self {
        Self {
            server_id: agent.server.to_string(),
            server_name: agent.server_name,
            version: agent.version,
            linked: agent.is_linked,
            rollout: agent.rollout,
            ending: agent.ending,
            reason: agent.reason,
        }
    }
}

/// Lists the agents of all servers, and shows the newest rollout.
#[utoipa::path(get, path = "/v1/agents", tag = "pool",
    responses((status = 200, body = AgentsView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(State(state): State<Arc<ApiState>>) -> Result<Json<AgentsView>, Problem> {
    let rollout = state.store.agent_rollout().await?.map(Into::into);
    let agents = state.store.agents().await?;
    let agents = agents.into_iter().map(Into::into).collect();
    Ok(Json(AgentsView { rollout, agents }))
}

/// Begins to bring a version to all servers. It halts at the first one that refuses it or goes back.
#[utoipa::path(post, path = "/v1/agents/rollouts", tag = "pool", request_body = BeginAgentRollout,
    responses((status = 201, body = AgentRolloutView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn begin(
    State(state): State<Arc<ApiState>>,
    Parsed(body): Parsed<BeginAgentRollout>,
) -> Result<(StatusCode, Json<AgentRolloutView>), Problem> {
    let version: Version = body
        .version
        .parse()
        .map_err(|_| Problem::new(Code::InvalidParameter, "not a version such as 1.2.3"))?;
    let (artefacts, wanted) = (state.artefacts.clone(), version.clone());
    let found = spawn_blocking(move || artefacts.version(Kind::Agent, &wanted))
        .await
        .map_err(Problem::internal)?
        .map_err(Problem::internal)?;
    let artefact = found.ok_or_else(|| {
        let detail = format!("this coordinator has no agent {version}: `tidepool artefact add`");
        Problem::new(Code::NotFound, detail)
    })?;
    let new = NewAgentRollout {
        version: version.to_string(),
        signed: serde_json::to_string(&artefact.signed).map_err(Problem::internal)?,
        canary: body.canary,
        percent: body.percent,
    };
    let begun = state.store.begin_agent_rollout(&new, state.now()).await?;
    state.doorbell.ring(Ring::Events);
    Ok((StatusCode::CREATED, Json(begun.into())))
}

/// Halts the newest rollout: no other server gets it, and those on trial go back.
#[utoipa::path(post, path = "/v1/agents/rollouts/halt", tag = "pool",
    responses((status = 200, body = AgentRolloutView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn halt(
    State(state): State<Arc<ApiState>>,
) -> Result<Json<AgentRolloutView>, Problem> {
    let nothing = || Problem::new(Code::NotPossible, "no rollout is under way");
    let rollout = state.store.agent_rollout().await?.ok_or_else(nothing)?;
    let why = "an operator said so";
    let halted = state
        .store
        .halt_agent_rollout(rollout.id, why, state.now())
        .await?;
    if halted == Transition::NotPossible {
        return Err(nothing());
    }
    state.doorbell.ring(Ring::Events);
    for agent in state.store.agents().await? {
        if agent.rollout == Some(rollout.id) && agent.ending.is_none() {
            state.doorbell.ring(Ring::Server(agent.server));
        }
    }
    let rollout = state.store.agent_rollout().await?.ok_or_else(nothing)?;
    Ok(Json(rollout.into()))
}
