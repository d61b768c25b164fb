//! Orders for versions of OpenClaw: each is told once with its outcome, and rollouts give no order they should not.

use std::sync::Arc;

use anyhow::Context as _;
use tidepool_shared::{
    document::{Generation, OpenClawOrder},
    id::RolloutId,
    openclaw_version::OpenClawVersion,
};
use uuid::Uuid;

use super::{
    Outcome,
    world::{
        at, change, claimed, count, instance_id, operation_id, pool, report, running, server_id,
    },
};
use crate::{
    model::{
        DocumentChange, OperationKind, OperationState, ReportedOpenClaw, Rollout, RolloutState,
        ServerReport,
    },
    store::{ChangeRefused, Store, Transition},
};

const NEW: &str = "2026.9.7";

fn version(text: &str) -> anyhow::Result<OpenClawVersion> {
    text.parse().context("a version")
}

/// The order of this number, by generation `generation`, with operation 100 + `generation`.
fn upgrade(instance: u8, generation: u8, number: u64) -> anyhow::Result<DocumentChange> {
    Ok(DocumentChange {
        kind: OperationKind::Upgrade,
        openclaw: Some(OpenClawOrder {
            number,
            version: version(NEW)?,
        }),
        ..change(instance, generation)
    })
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
        forgiven: 0,
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
    assert_eq!(ordered.openclaw.map(|order| order.number), Some(1));
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
    Ok(())
}

pub async fn a_pinned_instance_takes_no_other_version<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    let pinned = version("2026.9.6")?;
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
    store.resume_rollout(rollout.id, 1, at(11)).await?;
    store
        .begin_upgrade(&order, Some(rollout.id), at(12))
        .await?;
    let members = store.rollout_members(rollout.id).await?;
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].instance, instance_id(1));
    assert_eq!(members[0].state, OperationState::Running);
    let now = store.rollouts().await?;
    assert_eq!((now[0].state, now[0].forgiven), (RolloutState::Running, 1));
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
    let resumed = store.resume_rollout(rollout(1)?.id, 0, at(10)).await?;
    assert_eq!(resumed, Transition::NotPossible);
    Ok(())
}

pub async fn an_instance_that_does_not_run_yet_is_no_candidate<S: Store>(store: Arc<S>) -> Outcome {
    claimed(&*store, 1).await?;
    assert!(store.rollout_candidates(&pool().tier).await?.is_empty());
    Ok(())
}
