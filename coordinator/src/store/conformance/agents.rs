//! Agents' versions and their rollouts.

use std::sync::Arc;

use super::{
    Outcome,
    world::{at, booting, count, running, server_id, warm},
};
use crate::{
    model::{AgentEnding, NewAgentRollout},
    store::{Store, Transition},
};

fn rollout_of(version: &str) -> NewAgentRollout {
    NewAgentRollout {
        version: version.to_owned(),
        signed: "{}".to_owned(),
        canary: 1,
        percent: 10,
    }
}

pub async fn an_agent_is_what_it_said_last<S: Store>(store: Arc<S>) -> Outcome {
    let id = warm(&*store, 1).await?;
    booting(&*store, 2).await?;
    assert_eq!(store.agents().await?, []);
    for version in ["0.1.0", "0.1.0", "0.2.0"] {
        store.agent_is(id, version).await?;
    }
    let agents = store.agents().await?;
    let [agent] = agents.as_slice() else {
        anyhow::bail!("{agents:?}");
    };
    assert_eq!((agent.server, agent.version.as_str()), (id, "0.2.0"));
    assert!(agent.is_linked && agent.rollout.is_none());
    store.close_session(id, 1).await?;
    assert!(!store.agents().await?[0].is_linked);
    store.revoke(id, at(9)).await?;
    assert_eq!(store.agents().await?, []);
    Ok(())
}

pub async fn a_server_wants_what_the_newest_rollout_wants_of_it<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let (one, two) = (warm(&*store, 1).await?, warm(&*store, 2).await?);
    store.agent_is(one, "0.1.0").await?;
    store.agent_is(two, "0.1.0").await?;
    assert_eq!(store.agent_rollout().await?, None);
    let first = store
        .begin_agent_rollout(&rollout_of("0.2.0"), at(9))
        .await?;
    assert_eq!(store.agent_rollout().await?, Some(first.clone()));
    assert_eq!(store.wanted_agent(one).await?, None);
    assert_eq!(
        store.put_in_rollout(first.id, one, at(9)).await?,
        Transition::Done
    );
    let again = store.put_in_rollout(first.id, one, at(9)).await?;
    assert_eq!(again, Transition::NotPossible);
    assert_eq!(store.wanted_agent(one).await?, Some(first.clone()));
    assert_eq!(store.wanted_agent(two).await?, None);

    let second = store
        .begin_agent_rollout(&rollout_of("0.3.0"), at(10))
        .await?;
    assert!(second.id > first.id);
    assert_eq!(store.wanted_agent(one).await?, None);
    assert_eq!(
        store.put_in_rollout(second.id, one, at(9)).await?,
        Transition::Done
    );
    let back = store.put_in_rollout(first.id, one, at(9)).await?;
    assert_eq!(back, Transition::NotPossible);
    assert_eq!(store.wanted_agent(one).await?, Some(second));
    Ok(())
}

pub async fn what_became_of_an_agent_is_told_once<S: Store>(store: Arc<S>) -> Outcome {
    running(&*store, 1).await?;
    let server = server_id(1);
    store.agent_is(server, "0.1.0").await?;
    let rollout = store
        .begin_agent_rollout(&rollout_of("0.2.0"), at(9))
        .await?;
    let kept = (server, rollout.id, AgentEnding::Kept);
    let ended = |(server, rollout, ending)| store.agent_ended(server, rollout, ending, None, at(9));
    assert_eq!(
        ended(kept).await?,
        Transition::NotPossible,
        "it is not in it"
    );
    store.put_in_rollout(rollout.id, server, at(9)).await?;
    let in_it = &store.agents().await?[0];
    assert_eq!((in_it.since, in_it.ending), (Some(at(9)), None));
    assert_eq!(ended(kept).await?, Transition::Done);
    assert_eq!(ended(kept).await?, Transition::NotPossible);
    let of_another = (server, rollout.id + 1, AgentEnding::Kept);
    assert_eq!(ended(of_another).await?, Transition::NotPossible);
    assert_eq!(store.agents().await?[0].ending, Some(AgentEnding::Kept));
    assert_eq!(count(&*store, "agent.updated").await?, 1);
    assert_eq!(count(&*store, "agent.rollout_halted").await?, 0);
    Ok(())
}

pub async fn a_rollout_that_failed_somewhere_goes_nowhere_else<S: Store>(store: Arc<S>) -> Outcome {
    let (one, two) = (warm(&*store, 1).await?, warm(&*store, 2).await?);
    for server in [one, two] {
        store.agent_is(server, "0.1.0").await?;
    }
    let rollout = store
        .begin_agent_rollout(&rollout_of("0.2.0"), at(9))
        .await?;
    store.put_in_rollout(rollout.id, one, at(9)).await?;
    let (ending, reason) = (AgentEnding::RolledBack, Some("it hung"));
    store
        .agent_ended(one, rollout.id, ending, reason, at(10))
        .await?;
    let halted = store.agent_rollout().await?.and_then(|it| it.halted);
    assert!(
        halted.is_some_and(|why| why.contains("it hung")),
        "it goes on"
    );
    assert_eq!(store.wanted_agent(one).await?, None);
    let other = store.put_in_rollout(rollout.id, two, at(9)).await?;
    assert_eq!(other, Transition::NotPossible);
    let again = store.halt_agent_rollout(rollout.id, "more", at(11)).await?;
    assert_eq!(again, Transition::NotPossible);
    assert_eq!(count(&*store, "agent.rolled_back").await?, 1);
    assert_eq!(count(&*store, "agent.rollout_halted").await?, 1);
    Ok(())
}
