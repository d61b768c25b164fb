//! Orders for versions of OpenClaw: each is told once with its outcome, and rollouts give no order they should not.

use std::sync::Arc;

use anyhow::Context as _;
use tidepool_shared::{
    document::{DesiredDocument, Generation, OpenClawOrder, SealedDocument},
    id::{InstanceId, RolloutId},
    openclaw_version::OpenClawVersion,
};
use uuid::Uuid;

use super::{
    Outcome,
    world::{
        at, change, claimed, count, document, instance_id, operation_id, pool, report, running,
        server_id,
    },
};
use crate::{
    model::{
        AgentEnding, DocumentChange, Health, NewAgentRollout, OperationKind, OperationState,
        ReportedOpenClaw, Rollout, RolloutState, ServerReport,
    },
    store::{ChangeRefused, Store, Transition},
};

const OLD: &str = "2026.9.6";
const NEW: &str = "2026.9.7";

fn version(text: &str) -> anyhow::Result<OpenClawVersion> {
    text.parse().context("a version")
}

/// The order of this number, by generation `generation`, with operation 100 + `generation`.
fn upgrade(instance: u8, generation: u8, number: u64) -> anyhow::Result<DocumentChange> {
    let openclaw = Some(OpenClawOrder {
        number,
        version: version(NEW)?,
        signed: Some("the artefact".to_owned()),
    });
    let document = DesiredDocument {
        openclaw: openclaw.clone(),
        ..document(instance, generation.into()).open()?
    };
    Ok(DocumentChange {
        kind: OperationKind::Upgrade,
        openclaw,
        document: SealedDocument::seal(&document),
        ..change(instance, generation)
    })
}

/// The number of the order in the document of server 1, and the document's generation.
async fn ordered(store: &impl Store) -> anyhow::Result<(Option<u64>, Generation)> {
    let sealed = store.document_for(server_id(1)).await?;
    let document = sealed.context("no document")?.open()?;
    Ok((
        document.openclaw.map(|order| order.number),
        document.generation,
    ))
}

/// An instance whose agent knows orders, both of number 1.
async fn ready(store: &impl Store) -> anyhow::Result<InstanceId> {
    let id = running(store, 1).await?;
    store
        .record_report(server_id(1), &says(1, OLD, 0, None), at(8))
        .await?;
    Ok(id)
}

fn says(observed: u64, running: &str, settled: u64, failed: Option<&str>) -> ServerReport {
    ServerReport {
        openclaw: Some(ReportedOpenClaw {
            version: running.to_owned(),
            settled,
            failed: failed.map(str::to_owned),
        }),
        ..report(observed)
    }
}

fn rollout(number: u8) -> anyhow::Result<Rollout> {
    Ok(Rollout {
        id: RolloutId::new(Uuid::from_u128(number.into())),
        tier: pool().tier,
        version: version(NEW)?,
        canaries: 1,
        wave_percent: 10,
        max_failures: 0,
        soak_s: 600,
        state: RolloutState::Running,
        reason: None,
        created_at: at(8),
        finished_at: None,
    })
}

async fn state(store: &impl Store, generation: u8) -> anyhow::Result<OperationState> {
    let operation = store.operation(operation_id(100 + generation)).await?;
    Ok(operation.context("no operation")?.state)
}

pub async fn an_order_ends_when_its_agent_says_so_and_is_told_once<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let (id, server) = (running(&*store, 1).await?, server_id(1));
    let ordered = store.begin_upgrade(&upgrade(1, 2, 1)?, None, at(9)).await?;
    assert_eq!(ordered.openclaw, upgrade(1, 2, 1)?.openclaw);
    // Observed or not: the order's number says that it is over.
    store
        .record_report(server, &says(2, "2026.9.6", 0, None), at(10))
        .await?;
    assert_eq!(state(&*store, 2).await?, OperationState::Running);
    for second in 11..14 {
        store
            .record_report(server, &says(2, NEW, 1, None), at(second))
            .await?;
    }
    assert_eq!(state(&*store, 2).await?, OperationState::Succeeded);
    let server = store.server(server).await?.context("no server")?;
    assert_eq!(server.openclaw_version.as_deref(), Some(NEW));
    assert_eq!(count(&*store, "upgrade.started").await?, 1);
    assert_eq!(count(&*store, "upgrade.done").await?, 1);
    let instance = store.instance(id).await?.context("no instance")?;
    assert_eq!(instance.openclaw_settled, 1);
    assert_eq!(instance.observed, Generation(2));
    Ok(())
}

pub async fn a_failed_order_fails_its_operation_with_its_reason<S: Store>(
    store: Arc<S>,
) -> Outcome {
    running(&*store, 1).await?;
    store.begin_upgrade(&upgrade(1, 2, 1)?, None, at(9)).await?;
    let failed = says(2, "2026.9.6", 1, Some("it ended"));
    for second in 10..12 {
        store
            .record_report(server_id(1), &failed, at(second))
            .await?;
    }
    let operation = store.operation(operation_id(102)).await?.context("none")?;
    assert_eq!(operation.state, OperationState::Failed);
    assert_eq!(operation.error.as_deref(), Some("it ended"));
    assert_eq!(count(&*store, "upgrade.failed").await?, 1);
    assert_eq!(count(&*store, "upgrade.done").await?, 0);
    Ok(())
}

pub async fn an_agent_cannot_settle_what_was_never_ordered<S: Store>(store: Arc<S>) -> Outcome {
    running(&*store, 1).await?;
    store
        .record_report(server_id(1), &says(1, "2026.9.6", 7, Some("no")), at(9))
        .await?;
    assert_eq!(count(&*store, "upgrade.failed").await?, 0);
    store
        .begin_upgrade(&upgrade(1, 2, 1)?, None, at(10))
        .await?;
    store
        .record_report(server_id(1), &says(2, "2026.9.6", 7, Some("no")), at(11))
        .await?;
    assert_eq!(state(&*store, 2).await?, OperationState::Running);
    Ok(())
}

pub async fn an_agent_of_before_upgrades_fails_an_order_that_it_has_taken_for_another<S: Store>(
    store: Arc<S>,
) -> Outcome {
    running(&*store, 1).await?;
    store.begin_upgrade(&upgrade(1, 2, 1)?, None, at(9)).await?;
    store
        .record_report(server_id(1), &report(1), at(10))
        .await?;
    assert_eq!(state(&*store, 2).await?, OperationState::Running);
    store
        .record_report(server_id(1), &report(2), at(11))
        .await?;
    assert_eq!(state(&*store, 2).await?, OperationState::Failed);
    // One that is updated later does not find it.
    assert_eq!(ordered(&*store).await?, (None, Generation(3)));
    assert_eq!(count(&*store, "upgrade.failed").await?, 1);
    Ok(())
}

pub async fn a_pinned_instance_takes_no_other_version<S: Store>(store: Arc<S>) -> Outcome {
    let id = ready(&*store).await?;
    let pinned = version(OLD)?;
    assert_eq!(
        store.pin_instance(id, Some(&pinned), at(8)).await?,
        Transition::Done
    );
    let refused = store.begin_upgrade(&upgrade(1, 2, 1)?, None, at(9)).await;
    assert!(matches!(refused, Err(ChangeRefused::Pinned(_))));
    let instance = store.instance(id).await?.context("no instance")?;
    assert_eq!(
        (instance.generation, instance.pin),
        (Generation(1), Some(pinned))
    );
    let candidates = store.rollout_candidates(&pool().tier).await?;
    assert_eq!(candidates.len(), 1);
    assert!(candidates[0].pin.is_some() && candidates[0].ready);
    assert_eq!(count(&*store, "instance.pinned").await?, 1);
    store.pin_instance(id, None, at(10)).await?;
    store
        .begin_upgrade(&upgrade(1, 2, 1)?, None, at(11))
        .await?;
    let candidates = store.rollout_candidates(&pool().tier).await?;
    assert!(!candidates[0].ready, "something is under way");
    Ok(())
}

pub async fn only_a_running_rollout_gives_orders<S: Store>(store: Arc<S>) -> Outcome {
    running(&*store, 1).await?;
    let rollout = rollout(1)?;
    store.start_rollout(&rollout, at(8)).await?;
    let order = upgrade(1, 2, 1)?;
    let halted = store.halt_rollout(rollout.id, "it failed", at(9)).await?;
    assert_eq!(halted, Transition::Done);
    let refused = store.begin_upgrade(&order, Some(rollout.id), at(10)).await;
    assert!(matches!(refused, Err(ChangeRefused::NotRolledOut)));
    assert_eq!(
        store.halt_rollout(rollout.id, "again", at(10)).await?,
        Transition::NotPossible
    );
    store.resume_rollout(rollout.id, &[], at(11)).await?;
    store
        .begin_upgrade(&order, Some(rollout.id), at(12))
        .await?;
    let members = store.rollout_members(rollout.id).await?;
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].instance, instance_id(1));
    assert_eq!(members[0].state, OperationState::Running);
    assert_eq!(store.rollouts().await?[0].state, RolloutState::Running);
    store.finish_rollout(rollout.id, at(13)).await?;
    for kind in ["started", "halted", "resumed", "finished"] {
        assert_eq!(
            count(&*store, &format!("rollout.{kind}")).await?,
            1,
            "{kind}"
        );
    }
    Ok(())
}

pub async fn a_new_rollout_of_a_tier_ends_the_one_before<S: Store>(store: Arc<S>) -> Outcome {
    store.start_rollout(&rollout(1)?, at(8)).await?;
    store.start_rollout(&rollout(2)?, at(9)).await?;
    let rollouts = store.rollouts().await?;
    assert_eq!(rollouts.len(), 1);
    assert_eq!(rollouts[0].id, rollout(2)?.id);
    assert_eq!(count(&*store, "rollout.superseded").await?, 1);
    let resumed = store.resume_rollout(rollout(1)?.id, &[], at(10)).await?;
    assert_eq!(resumed, Transition::NotPossible);
    Ok(())
}

pub async fn an_instance_that_does_not_run_yet_is_no_candidate<S: Store>(store: Arc<S>) -> Outcome {
    claimed(&*store, 1).await?;
    assert!(store.rollout_candidates(&pool().tier).await?.is_empty());
    Ok(())
}

pub async fn a_halted_rollouts_orders_are_taken_back_and_may_be_given_again<S: Store>(
    store: Arc<S>,
) -> Outcome {
    ready(&*store).await?;
    let rollout = rollout(1)?;
    store.start_rollout(&rollout, at(8)).await?;
    store
        .begin_upgrade(&upgrade(1, 2, 1)?, Some(rollout.id), at(9))
        .await?;
    assert_eq!(ordered(&*store).await?, (Some(1), Generation(2)));
    store.halt_rollout(rollout.id, "enough", at(10)).await?;
    assert_eq!(ordered(&*store).await?, (None, Generation(3)));
    assert_eq!(count(&*store, "upgrade.withdrawn").await?, 1);
    // As long as nobody knows whether its agent has begun, it is under way.
    store
        .record_report(server_id(1), &says(2, OLD, 0, None), at(11))
        .await?;
    assert_eq!(state(&*store, 2).await?, OperationState::Running);
    store
        .record_report(server_id(1), &says(3, OLD, 0, None), at(12))
        .await?;
    assert_eq!(state(&*store, 2).await?, OperationState::Canceled);
    store.resume_rollout(rollout.id, &[], at(13)).await?;
    // The number of what was taken back is not given again.
    let change = upgrade(1, 4, 2)?;
    let found = store.instance(instance_id(1)).await?.context("none")?;
    assert_eq!((found.openclaw, found.openclaw_orders), (None, 1));
    store
        .begin_upgrade(&change, Some(rollout.id), at(14))
        .await?;
    let members = store.rollout_members(rollout.id).await?;
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].operation, change.operation);
    store
        .record_report(server_id(1), &says(4, NEW, 2, None), at(15))
        .await?;
    assert_eq!(state(&*store, 4).await?, OperationState::Succeeded);
    let change = upgrade(1, 5, 3)?;
    let again = store.begin_upgrade(&change, Some(rollout.id), at(16));
    assert!(matches!(again.await, Err(ChangeRefused::NotRolledOut)));
    Ok(())
}

pub async fn an_agent_that_had_begun_when_its_order_was_taken_back_has_the_last_word<S: Store>(
    store: Arc<S>,
) -> Outcome {
    ready(&*store).await?;
    store.start_rollout(&rollout(1)?, at(8)).await?;
    store
        .begin_upgrade(&upgrade(1, 2, 1)?, Some(rollout(1)?.id), at(9))
        .await?;
    // Another one takes the orders back, too.
    store.start_rollout(&rollout(2)?, at(10)).await?;
    assert_eq!(ordered(&*store).await?, (None, Generation(3)));
    store
        .record_report(server_id(1), &says(2, OLD, 1, Some("it ended")), at(11))
        .await?;
    assert_eq!(state(&*store, 2).await?, OperationState::Failed);
    assert_eq!(count(&*store, "upgrade.failed").await?, 1);
    Ok(())
}

pub async fn an_order_without_an_end_is_given_up_and_its_late_word_ends_no_other<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = ready(&*store).await?;
    store.begin_upgrade(&upgrade(1, 2, 1)?, None, at(9)).await?;
    assert_eq!(store.overdue_upgrades(at(9)).await?, []);
    let overdue = store.overdue_upgrades(at(10)).await?;
    assert_eq!(overdue, [(id, operation_id(102))]);
    let given_up = || store.give_up_upgrade(id, operation_id(102), "no word", at(11));
    assert_eq!(given_up().await?, Transition::Done);
    assert_eq!(given_up().await?, Transition::NotPossible);
    assert_eq!(state(&*store, 2).await?, OperationState::Failed);
    assert_eq!(ordered(&*store).await?, (None, Generation(3)));
    assert_eq!(count(&*store, "upgrade.failed").await?, 1);
    assert_eq!(store.overdue_upgrades(at(99)).await?, []);

    store
        .begin_upgrade(&upgrade(1, 4, 2)?, None, at(12))
        .await?;
    store
        .record_report(server_id(1), &says(2, NEW, 1, None), at(13))
        .await?;
    assert_eq!(count(&*store, "upgrade.done").await?, 1);
    assert_eq!(state(&*store, 4).await?, OperationState::Running);
    store
        .record_report(server_id(1), &says(4, NEW, 2, None), at(14))
        .await?;
    assert_eq!(state(&*store, 4).await?, OperationState::Succeeded);
    Ok(())
}

pub async fn a_pin_takes_back_the_order_for_another_version<S: Store>(store: Arc<S>) -> Outcome {
    let id = ready(&*store).await?;
    store.begin_upgrade(&upgrade(1, 2, 1)?, None, at(9)).await?;
    store.pin_instance(id, Some(&version(NEW)?), at(10)).await?;
    assert_eq!(ordered(&*store).await?, (Some(1), Generation(2)));
    store.pin_instance(id, None, at(11)).await?;
    store.pin_instance(id, Some(&version(OLD)?), at(12)).await?;
    assert_eq!(ordered(&*store).await?, (None, Generation(3)));
    store
        .record_report(server_id(1), &says(3, OLD, 0, None), at(13))
        .await?;
    assert_eq!(state(&*store, 2).await?, OperationState::Canceled);
    assert_eq!(count(&*store, "instance.unpinned").await?, 1);
    Ok(())
}

pub async fn whoever_is_switched_off_comes_back_without_the_order<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = ready(&*store).await?;
    store.begin_upgrade(&upgrade(1, 2, 1)?, None, at(9)).await?;
    store.stop_instance(id, operation_id(110), at(10)).await?;
    assert_eq!(state(&*store, 2).await?, OperationState::Canceled);
    assert_eq!(ordered(&*store).await?, (None, Generation(3)));
    store.start_instance(id, operation_id(111), at(11)).await?;
    assert_eq!(ordered(&*store).await?.0, None);
    let found = store.instance(id).await?.context("no instance")?;
    assert_eq!((found.openclaw, found.openclaw_orders), (None, 1));
    Ok(())
}

pub async fn another_change_leaves_the_number_of_the_last_order<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = ready(&*store).await?;
    store.begin_upgrade(&upgrade(1, 2, 1)?, None, at(9)).await?;
    store
        .give_up_upgrade(id, operation_id(102), "no word", at(10))
        .await?;
    store.change_document(&change(1, 4), at(11)).await?;
    let found = store.instance(id).await?.context("no instance")?;
    assert_eq!((found.openclaw, found.openclaw_orders), (None, 1));
    Ok(())
}

pub async fn nobody_is_ready_whose_agent_knows_no_orders_or_is_being_replaced<S: Store>(
    store: Arc<S>,
) -> Outcome {
    running(&*store, 1).await?;
    let is_ready = async || {
        let candidates = store.rollout_candidates(&pool().tier).await?;
        anyhow::Ok(candidates.first().context("no candidate")?.ready)
    };
    assert!(!is_ready().await?, "it has not said which version it has");
    store
        .record_report(server_id(1), &says(1, OLD, 0, None), at(8))
        .await?;
    assert!(is_ready().await?);
    store.agent_is(server_id(1), "0.1.0").await?;
    let new = NewAgentRollout {
        version: "0.2.0".to_owned(),
        signed: "signed".to_owned(),
        canary: 1,
        percent: 10,
    };
    let agents = store.begin_agent_rollout(&new, at(9)).await?.id;
    assert!(is_ready().await?);
    store.put_in_rollout(agents, server_id(1), at(9)).await?;
    assert!(!is_ready().await?, "its agent is on its way");
    store
        .agent_ended(server_id(1), agents, AgentEnding::Kept, None, at(10))
        .await?;
    assert!(is_ready().await?);
    Ok(())
}

pub async fn a_members_trouble_has_a_beginning_and_may_be_forgiven<S: Store>(
    store: Arc<S>,
) -> Outcome {
    ready(&*store).await?;
    let rollout = rollout(1)?;
    store.start_rollout(&rollout, at(8)).await?;
    store
        .begin_upgrade(&upgrade(1, 2, 1)?, Some(rollout.id), at(9))
        .await?;
    let down = |second| {
        let report = ServerReport {
            health: Health::Down,
            reasons: vec![format!("{second}")],
            ..says(2, NEW, 1, None)
        };
        let store = Arc::clone(&store);
        async move { store.record_report(server_id(1), &report, at(second)).await }
    };
    let member = async || {
        let members = store.rollout_members(rollout.id).await?;
        members.into_iter().next().context("no member")
    };
    down(20).await?;
    down(30).await?;
    assert_eq!(member().await?.unwell_since, Some(at(20)));
    store.mark_unheard(server_id(1), "silent", at(40)).await?;
    assert_eq!(member().await?.unwell_since, Some(at(20)), "not well yet");
    store
        .record_report(server_id(1), &says(2, NEW, 1, None), at(50))
        .await?;
    assert_eq!(member().await?.unwell_since, None);
    assert!(!member().await?.forgiven);
    store.halt_rollout(rollout.id, "down", at(51)).await?;
    let forgiven = [instance_id(1)];
    store.resume_rollout(rollout.id, &forgiven, at(52)).await?;
    assert!(member().await?.forgiven);
    Ok(())
}
