//! Which version its agent should be, as a session tells it, and what the agent says became of it.

use quinn::SendStream;
use tidepool_shared::{
    id::ServerId,
    message::{AgentOutcome, Ending, WantedAgent},
};
use tracing::{error, info};

use super::{Context, report, wire};
use crate::{
    doorbell::Ring,
    model::{AgentEnding, AgentRollout},
    store::{StoreError, Transition},
};

/// How long a new agent has to bring up its link and to be well.
const TRIAL_S: u32 = 120;

/// What this session has told its agent.
#[derive(Debug, Default)]
pub(super) struct Told {
    rollout: Option<u64>,
    /// Of which rollout the agent has said what became of it.
    heard: Option<u64>,
}

impl Told {
    /// Says what the store wants, if that is something else than was said.
    pub(super) async fn tell(
        &mut self,
        wanted: Option<AgentRollout>,
        epoch: u64,
        send: &mut SendStream,
    ) -> Result<(), wire::WireError> {
        let rollout = wanted.as_ref().map(|wanted| wanted.id);
        if self.rollout == rollout {
            return Ok(());
        }
        // Nothing is wanted any more of what was said last: it was halted.
        let last = self.rollout.unwrap_or_default();
        let message = WantedAgent {
            epoch,
            rollout: rollout.unwrap_or(last),
            signed: wanted.map(|wanted| wanted.signed).unwrap_or_default(),
            trial_s: TRIAL_S,
        };
        wire::write(send, &message).await?;
        self.rollout = rollout;
        Ok(())
    }

    /// Takes in what the agent says: once of what it was told, and once of what it was told in another session.
    /// More it has no reason to say, and would cost a write each.
    pub(super) async fn hear(
        &mut self,
        context: &Context,
        server: ServerId,
        outcome: AgentOutcome,
    ) -> Result<(), StoreError> {
        let rollout = outcome.rollout;
        let is_told = self.rollout == Some(rollout);
        if self.heard == Some(rollout) || !(is_told || self.heard.is_none()) {
            return Ok(());
        }
        let ending = match outcome.ending {
            Ending::Kept => AgentEnding::Kept,
            Ending::Refused => AgentEnding::Refused,
            Ending::RolledBack => AgentEnding::RolledBack,
        };
        let reason = outcome.reason.as_deref().map(report::cut);
        let noted = context
            .store
            .agent_ended(
                server,
                rollout,
                ending,
                reason.as_deref(),
                context.clock.now(),
            )
            .await?;
        self.heard = Some(rollout);
        if noted == Transition::NotPossible {
            return Ok(());
        }
        match ending {
            AgentEnding::Kept => info!(server.id = %server, rollout, "agent was updated"),
            AgentEnding::Refused | AgentEnding::RolledBack => {
                error!(server.id = %server, rollout, reason, "agent was not updated");
            }
        }
        context.doorbell.ring(Ring::Events);
        Ok(())
    }
}
