//! Rollouts of agents: who gets the new version next.
//!
//! A few servers first, idle ones before customers', and the others once all of those have kept it; then so many
//! percent at a time. Who has no room for it is passed by and takes it later. The first failure halts it, which the store does by itself. Level, not edge: a server that is
//! made later of an older image gets the version as well. `next` is a pure function; [`AgentRollouts`] executes.

use std::{sync::Arc, time::Duration};

use tidepool_certs::release;
use tidepool_shared::{
    artefact::{SignedArtefact, Statement, Version},
    id::ServerId,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    ambient::{Clock, Moment},
    causes::chain,
    doorbell::{Doorbell, Ring},
    model::{Agent, AgentEnding, AgentRollout, ServerState},
    store::{Store, StoreError, Transition},
};

/// Between two looks; a step takes an agent some seconds.
const INTERVAL: Duration = Duration::from_secs(2);
/// To fetch a version and to try it out takes minutes at the most.
const PATIENCE: Duration = Duration::from_mins(15);

/// Puts servers into the newest rollout.
pub struct AgentRollouts {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub doorbell: Doorbell,
}

impl AgentRollouts {
    /// Looks again and again, until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        while cancel.run_until_cancelled(sleep(INTERVAL)).await.is_some() {
            if let Err(failure) = self.turn().await {
                error!(error = %chain(&failure), "no agent was put in a rollout");
            }
        }
    }

    /// One look, and what follows from it.
    pub async fn turn(&self) -> Result<(), StoreError> {
        let Some(rollout) = self.store.agent_rollout().await? else {
            return Ok(());
        };
        if rollout.halted.is_some() {
            return Ok(());
        }
        let agents = self.store.agents().await?;
        let now = self.clock.now();
        for server in next(&rollout, &agents, now) {
            let put = self.store.put_in_rollout(rollout.id, server, now);
            if put.await? == Transition::Done {
                info!(server.id = %server, rollout = rollout.id, version = rollout.version, "agent is to be updated");
                self.doorbell.ring(Ring::Server(server));
            }
        }
        Ok(())
    }
}

/// The servers that are to get the version now.
fn next(rollout: &AgentRollout, agents: &[Agent], now: Moment) -> Vec<ServerId> {
    let Some(statement) = statement(rollout) else {
        return Vec::new();
    };
    let of_this = |agent: &&Agent| agent.rollout == Some(rollout.id);
    let kept = |agent: &&Agent| agent.ending == Some(AgentEnding::Kept);
    let count = |agents: usize| u32::try_from(agents).unwrap_or(u32::MAX);
    let tried = |agent: &&Agent| of_this(agent) && !is_put_off(agent, now);
    let begun = count(agents.iter().filter(tried).count());
    let passed = count(agents.iter().filter(of_this).filter(kept).count());
    let under_way = begun.saturating_sub(passed);
    let room = if passed < rollout.canary {
        rollout.canary.saturating_sub(begun)
    } else {
        let share = u64::from(count(agents.len())) * u64::from(rollout.percent) / 100;
        let at_once = u32::try_from(share).unwrap_or(u32::MAX).max(1);
        at_once.saturating_sub(under_way)
    };
    let mut due: Vec<_> = agents
        .iter()
        .filter(|agent| !of_this(agent) && may_have(agent, &statement))
        .collect();
    // The sort is stable: the oldest first among each.
    due.sort_by_key(|agent| agent.server_state == ServerState::Claimed);
    due.into_iter()
        .take(usize::try_from(room).unwrap_or(usize::MAX))
        .map(|agent| agent.server)
        .collect()
}

/// Whether an agent that has the link still goes on as it was: its disk is full, and nobody else shall wait for
/// that. One without a link may have been lost by the new version, and everybody waits.
fn is_put_off(agent: &Agent, now: Moment) -> bool {
    let is_late = |since: Moment| now.since(since) > PATIENCE;
    agent.ending.is_none() && agent.is_linked && agent.since.is_some_and(is_late)
}

/// Whether the version would be taken there, and somebody could say what became of it.
fn may_have(agent: &Agent, statement: &Statement) -> bool {
    let settled = matches!(agent.server_state, ServerState::Warm | ServerState::Claimed);
    let version = agent.version.parse::<Version>();
    let is_next =
        version.is_ok_and(|held| held != statement.version && statement.may_replace(&held));
    settled && agent.is_linked && is_next
}

fn statement(rollout: &AgentRollout) -> Option<Statement> {
    let signed: SignedArtefact = serde_json::from_str(&rollout.signed).ok()?;
    release::consistent(&signed).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidepool_certs::release::ReleaseKey;
    use tidepool_shared::artefact::{Kind, Sha256};
    use uuid::Uuid;

    use super::*;

    const NOW: Moment = Moment(3_600_000_000);

    fn rollout(canary: u32, percent: u32, replaces_up_to: Option<&str>) -> AgentRollout {
        let dir = tempfile::tempdir().unwrap();
        let key = ReleaseKey::create(&dir.path().join("key")).unwrap();
        let signed = key.sign(&Statement {
            kind: Kind::Agent,
            version: "0.2.0".parse().unwrap(),
            sha256: Sha256([1; 32]),
            size: 1,
            replaces_up_to: replaces_up_to.map(|text| text.parse().unwrap()),
        });
        AgentRollout {
            id: 7,
            version: "0.2.0".to_owned(),
            signed: serde_json::to_string(&signed).unwrap(),
            canary,
            percent,
            halted: None,
            created_at: Moment(0),
        }
    }

    fn id(number: usize) -> ServerId {
        ServerId::new(Uuid::from_u128(u128::try_from(number).unwrap()))
    }

    fn agent(number: usize) -> Agent {
        Agent {
            server: id(number),
            server_name: number.to_string(),
            server_state: ServerState::Claimed,
            is_linked: true,
            version: "0.1.0".to_owned(),
            rollout: None,
            since: None,
            ending: None,
            reason: None,
        }
    }

    fn kept(number: usize) -> Agent {
        Agent {
            version: "0.2.0".to_owned(),
            rollout: Some(7),
            ending: Some(AgentEnding::Kept),
            ..agent(number)
        }
    }

    #[test]
    fn canaries_come_first_and_idle_servers_before_customers() {
        let idle = Agent {
            server_state: ServerState::Warm,
            ..agent(3)
        };
        let agents = [agent(1), agent(2), idle];
        assert_eq!(next(&rollout(2, 50, None), &agents, NOW), [id(3), id(1)]);
    }

    #[test]
    fn nobody_else_gets_it_before_all_canaries_have_kept_it() {
        let under_way = Agent {
            rollout: Some(7),
            ..agent(2)
        };
        let agents = [kept(1), under_way, agent(3), agent(4)];
        assert_eq!(next(&rollout(2, 100, None), &agents, NOW), []);
        let agents = [kept(1), kept(2), agent(3), agent(4)];
        assert_eq!(next(&rollout(2, 50, None), &agents, NOW), [id(3), id(4)]);
    }

    #[test]
    fn nobody_waits_for_who_has_no_room_and_everybody_for_who_is_lost() {
        let full = Agent {
            rollout: Some(7),
            since: Some(Moment(NOW.0 - 901_000_000)),
            ..agent(1)
        };
        let agents = [full.clone(), agent(2), agent(3)];
        assert_eq!(next(&rollout(1, 100, None), &agents, NOW), [id(2)]);
        let lost = Agent {
            is_linked: false,
            ..full.clone()
        };
        let fetches = Agent {
            since: Some(Moment(NOW.0 - 899_000_000)),
            ..full
        };
        for waited_for in [lost, fetches] {
            let agents = [waited_for, agent(2), agent(3)];
            assert_eq!(next(&rollout(1, 100, None), &agents, NOW), []);
        }
    }

    #[test]
    fn who_has_it_or_would_not_take_it_is_left_alone() {
        let has_it = Agent {
            version: "0.2.0".to_owned(),
            ..agent(1)
        };
        let newer = Agent {
            version: "0.3.0".to_owned(),
            ..agent(2)
        };
        let away = Agent {
            is_linked: false,
            ..agent(3)
        };
        let boots = Agent {
            server_state: ServerState::Booting,
            ..agent(4)
        };
        let unknown = Agent {
            version: "test".to_owned(),
            ..agent(5)
        };
        let agents = [has_it, newer, away, boots, unknown];
        assert_eq!(next(&rollout(9, 100, None), &agents, NOW), []);
        assert_eq!(next(&rollout(9, 100, Some("0.3.0")), &agents, NOW), [id(2)]);
    }

    proptest! {
        #[test]
        fn never_more_at_once_than_was_said_and_all_in_the_end(
            canary in 1u32..5, percent in 1u32..=100, fleet in 1usize..60
        ) {
            let rollout = rollout(canary, percent, None);
            let mut agents: Vec<_> = (0..fleet).map(agent).collect();
            let share = u32::try_from(fleet).unwrap() * percent / 100;
            for _ in 0..=fleet {
                let chosen = next(&rollout, &agents, NOW);
                prop_assert!(u32::try_from(chosen.len()).unwrap() <= canary.max(share).max(1));
                for agent in agents.iter_mut().filter(|agent| chosen.contains(&agent.server)) {
                    agent.rollout = Some(7);
                }
                prop_assert!(next(&rollout, &agents, NOW).is_empty(), "they are under way");
                for agent in agents.iter_mut().filter(|agent| chosen.contains(&agent.server)) {
                    agent.version = "0.2.0".to_owned();
                    agent.ending = Some(AgentEnding::Kept);
                }
            }
            prop_assert!(agents.iter().all(|agent| agent.version == "0.2.0"));
        }
    }
}
