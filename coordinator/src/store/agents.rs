//! What is kept of the agents themselves.

use async_trait::async_trait;
use tidepool_shared::id::ServerId;

use super::{Stored, Transition};
use crate::{
    ambient::Moment,
    model::{Agent, AgentEnding, AgentRollout, NewAgentRollout},
};

/// Versions of agents, and their rollouts. The newest rollout counts; older ones move nothing any more.
#[async_trait]
pub trait AgentStore: Send + Sync {
    /// What a server's agent called itself when its link came up.
    async fn agent_is(&self, server: ServerId, version: &str) -> Stored<()>;
    /// The agents of all servers that may have a link, oldest server first.
    async fn agents(&self) -> Stored<Vec<Agent>>;
    /// Emits `agent.rollout_begun`.
    async fn begin_agent_rollout(&self, new: &NewAgentRollout, now: Moment)
    -> Stored<AgentRollout>;
    /// The newest.
    async fn agent_rollout(&self) -> Stored<Option<AgentRollout>>;
    /// The newest rollout, if it is not halted and the server is in it.
    async fn wanted_agent(&self, server: ServerId) -> Stored<Option<AgentRollout>>;
    /// From now on the server is to have the rollout's version. Not possible once it is halted, nor twice.
    async fn put_in_rollout(
        &self,
        rollout: u64,
        server: ServerId,
        now: Moment,
    ) -> Stored<Transition>;
    /// What became of it there; not possible if that is known, or the server is in another rollout. Emits
    /// `agent.updated`, `agent.refused` or `agent.rolled_back`; the latter two halt the rollout and emit
    /// `agent.rollout_halted`, in the same transaction.
    async fn agent_ended(
        &self,
        server: ServerId,
        rollout: u64,
        ending: AgentEnding,
        reason: Option<&str>,
        now: Moment,
    ) -> Stored<Transition>;
    /// No other server gets it, and those that do not run it yet are told so. Emits `agent.rollout_halted`, once.
    async fn halt_agent_rollout(&self, rollout: u64, why: &str, now: Moment) -> Stored<Transition>;
}
