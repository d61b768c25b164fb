//! Stopping and suspending: every door is shut in one commit, nothing is lost, and it all comes back.

use std::sync::Arc;

use anyhow::Context as _;
use tidepool_shared::document::{DesiredDocument, Generation, Power};

use super::{
    Outcome,
    world::{
        address, at, change, claimed, document, hash, host, new_instance, operation_id, report,
        running, server_id, step, upstream,
    },
};
use crate::{
    model::{
        DocumentChange, InstanceStatus, OperationKind, OperationState, ServerState,
        SuspensionReason,
    },
    store::{Store, Transition},
};

const ABUSE: (SuspensionReason, Option<&str>) = (SuspensionReason::Abuse, Some("<b>Call us</b>"));

async fn wanted(store: &impl Store, number: u8) -> anyhow::Result<DesiredDocument> {
    let sealed = store.document_for(server_id(number)).await?;
    Ok(sealed.context("no document")?.open()?)
}

pub async fn a_suspension_shuts_every_door_and_keeps_what_is_behind<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    for number in [1, 2] {
        store
            .create_login_link(hash(number), id, at(99), at(8))
            .await?;
    }
    store
        .redeem_login_link(hash(1), id, hash(11), at(99), at(8))
        .await?;
    store.change_document(&change(1, 2), at(8)).await?;
    let done = store.suspend_instance(id, operation_id(110), ABUSE, at(9));
    assert_eq!(done.await?, Transition::Done);

    let instance = store.instance(id).await?.context("no instance")?;
    assert_eq!(instance.status, InstanceStatus::Suspended);
    let suspension = instance.suspension.context("no suspension")?;
    assert_eq!((suspension.reason, suspension.since), (ABUSE.0, at(9)));
    for route in store.routes_of(id).await? {
        assert_eq!((route.upstream, route.notice.as_deref()), (None, ABUSE.1));
    }
    assert_eq!(store.routes().await?.len(), 2);
    let destinations = store.destinations().await?;
    assert!(destinations.iter().all(|to| to.hosts.is_empty()));
    assert_eq!(store.session(hash(11), at(10)).await?, None);
    let opened = store.redeem_login_link(hash(2), id, hash(12), at(99), at(10));
    assert!(!opened.await?);
    store.create_login_link(hash(3), id, at(99), at(10)).await?;
    let opened = store.redeem_login_link(hash(3), id, hash(13), at(99), at(10));
    assert!(!opened.await?);

    let superseded = store.operation(operation_id(102)).await?.context("none")?;
    assert_eq!(superseded.state, OperationState::Canceled);
    let document = wanted(&*store, 1).await?;
    assert_eq!((document.power, document.evictions), (Power::Off, 1));
    assert_eq!(document.generation, instance.generation);
    let server = store.server(server_id(1)).await?.context("no server")?;
    assert_eq!(server.state, ServerState::Claimed);
    // The proxy knows whom it refuses.
    let trusted = store.trusted(address(1)).await?;
    assert_eq!(trusted, Some((server_id(1), Some(id))));
    Ok(())
}

pub async fn switching_off_has_succeeded_when_the_agent_has_observed_it<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    store
        .suspend_instance(id, operation_id(110), ABUSE, at(9))
        .await?;
    let operation = store.current_operation(id).await?.context("none")?;
    assert_eq!(operation.kind, OperationKind::Suspend);
    assert_eq!(operation.generation, Some(Generation(2)));
    store
        .record_report(server_id(1), &report(2), at(10))
        .await?;
    assert_eq!(store.current_operation(id).await?, None);
    let operation = store.operation(operation_id(110)).await?.context("none")?;
    assert_eq!(operation.state, OperationState::Succeeded);
    Ok(())
}

pub async fn an_unsuspended_instance_runs_again_as_it_did<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.create_login_link(hash(1), id, at(99), at(8)).await?;
    store
        .redeem_login_link(hash(1), id, hash(11), at(99), at(8))
        .await?;
    let before = store.instance(id).await?.context("no instance")?;
    store
        .suspend_instance(id, operation_id(110), ABUSE, at(9))
        .await?;
    // Its agent never said that it had observed it.
    let back = store.unsuspend_instance(id, operation_id(111), at(20));
    assert_eq!(back.await?, Transition::Done);
    let starting = store.instance(id).await?.context("no instance")?;
    assert_eq!(starting.status, InstanceStatus::Starting);
    assert_eq!(starting.suspension, None);
    // The time to start begins now.
    assert_eq!(starting.claimed_at, Some(at(20)));
    assert_eq!(wanted(&*store, 1).await?.power, Power::On);
    let routes = store.routes_of(id).await?;
    assert!(
        routes
            .iter()
            .all(|route| route.upstream == Some(upstream(1)))
    );
    let destinations = store.destinations().await?;
    assert!(destinations.iter().any(|to| to.hosts.contains(&host(1))));
    assert_eq!(store.session(hash(11), at(21)).await?, Some(id));
    store.mark_running(id, &[step("wait", 99)], at(22)).await?;
    let operation = store.operation(operation_id(111)).await?.context("none")?;
    assert_eq!(operation.state, OperationState::Succeeded);
    let after = store.instance(id).await?.context("no instance")?;
    assert_eq!(after.status, InstanceStatus::Running);
    assert_eq!(
        (after.timings, after.ready_at),
        (before.timings, before.ready_at)
    );
    Ok(())
}

pub async fn what_its_customer_had_stopped_is_stopped_after_a_suspension<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    let stopped = store.stop_instance(id, operation_id(110), at(9)).await?;
    assert_eq!(stopped, Transition::Done);
    store
        .suspend_instance(id, operation_id(111), ABUSE, at(10))
        .await?;
    store
        .unsuspend_instance(id, operation_id(112), at(11))
        .await?;
    let instance = store.instance(id).await?.context("no instance")?;
    assert_eq!(instance.status, InstanceStatus::Stopped);
    assert_eq!(wanted(&*store, 1).await?.power, Power::Off);
    assert_eq!(store.current_operation(id).await?, None);
    let started = store.start_instance(id, operation_id(113), at(12)).await?;
    assert_eq!(started, Transition::Done);
    assert_eq!(wanted(&*store, 1).await?.power, Power::On);
    store.mark_running(id, &[], at(13)).await?;
    let operation = store.operation(operation_id(113)).await?.context("none")?;
    assert_eq!(operation.state, OperationState::Succeeded);
    Ok(())
}

pub async fn what_failed_on_its_server_is_shut_like_any_other<S: Store>(store: Arc<S>) -> Outcome {
    let id = claimed(&*store, 1).await?.id;
    store.mark_instance_failed(id, "too slow", at(8)).await?;
    // Its server may answer all the same.
    let routes = store.routes_of(id).await?;
    assert!(routes.iter().any(|route| route.upstream.is_some()));
    let suspended = store.suspend_instance(id, operation_id(110), ABUSE, at(9));
    assert_eq!(suspended.await?, Transition::Done);
    let routes = store.routes_of(id).await?;
    assert!(routes.iter().all(|route| route.upstream.is_none()));
    assert_eq!(wanted(&*store, 1).await?.power, Power::Off);
    store
        .unsuspend_instance(id, operation_id(111), at(10))
        .await?;
    let instance = store.instance(id).await?.context("no instance")?;
    assert_eq!(instance.status, InstanceStatus::Starting);
    assert_eq!((instance.suspension, instance.problem), (None, None));
    store.mark_instance_failed(id, "too slow", at(11)).await?;
    let stopped = store.stop_instance(id, operation_id(112), at(12)).await?;
    assert_eq!(stopped, Transition::Done);
    let routes = store.routes_of(id).await?;
    assert!(routes.iter().all(|route| route.upstream.is_none()));
    store.start_instance(id, operation_id(113), at(13)).await?;
    store.mark_running(id, &[], at(14)).await?;
    let instance = store.instance(id).await?.context("no instance")?;
    assert_eq!(instance.status, InstanceStatus::Running);
    Ok(())
}

pub async fn what_failed_without_a_server_is_not_switched<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.mark_lost(server_id(1), "not there", at(9)).await?;
    let no = Transition::NotPossible;
    let suspended = store.suspend_instance(id, operation_id(110), ABUSE, at(10));
    assert_eq!(suspended.await?, no);
    let stopped = store.stop_instance(id, operation_id(110), at(10)).await?;
    assert_eq!(stopped, no);
    assert_eq!(store.operation(operation_id(110)).await?, None);
    Ok(())
}

pub async fn what_cannot_be_switched_is_left_as_it_is<S: Store>(store: Arc<S>) -> Outcome {
    let waiting = store.create_instance(&new_instance(2), at(5)).await?.id;
    let of = operation_id;
    let no = Transition::NotPossible;
    assert_eq!(
        store
            .suspend_instance(waiting, of(120), ABUSE, at(6))
            .await?,
        no
    );
    assert_eq!(store.stop_instance(waiting, of(120), at(6)).await?, no);
    store
        .delete_instance(waiting, of(121), at(6), at(6))
        .await?;
    let id = running(&*store, 1).await?;
    assert_eq!(store.start_instance(id, of(120), at(9)).await?, no);
    assert_eq!(store.unsuspend_instance(id, of(120), at(9)).await?, no);
    store.stop_instance(id, of(110), at(9)).await?;
    assert_eq!(store.stop_instance(id, of(120), at(9)).await?, no);
    assert_eq!(store.unsuspend_instance(id, of(120), at(9)).await?, no);
    store.suspend_instance(id, of(111), ABUSE, at(9)).await?;
    let before = store.instance(id).await?;
    assert_eq!(store.suspend_instance(id, of(120), ABUSE, at(9)).await?, no);
    assert_eq!(store.start_instance(id, of(120), at(9)).await?, no);
    assert_eq!(store.stop_instance(id, of(120), at(9)).await?, no);
    assert_eq!(store.operation(of(120)).await?, None);
    assert_eq!(store.instance(id).await?, before);
    Ok(())
}

pub async fn a_deletion_does_not_end_a_suspension<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store
        .suspend_instance(id, operation_id(110), ABUSE, at(9))
        .await?;
    store
        .delete_instance(id, operation_id(111), at(99), at(10))
        .await?;
    let generation = store.instance(id).await?.context("no instance")?.generation;
    assert_eq!(generation, Generation(3));
    let back = DocumentChange {
        operation: operation_id(112),
        kind: OperationKind::Undelete,
        document: document(1, 4),
        ..change(1, 4)
    };
    let instance = store.undelete_instance(&back, at(11)).await?;
    assert_eq!(instance.status, InstanceStatus::Suspended);
    assert!(instance.suspension.is_some());
    assert_eq!(store.current_operation(id).await?, None);
    Ok(())
}

pub async fn whoever_was_let_in_is_cut_off_when_access_changes<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.set_basic_auth(id, Some("ann:hash"), at(8)).await?;
    let document = wanted(&*store, 1).await?;
    assert_eq!((document.power, document.evictions), (Power::On, 1));
    let instance = store.instance(id).await?.context("no instance")?;
    assert_eq!(
        (instance.generation, instance.evictions),
        (document.generation, 1)
    );
    assert_eq!(store.current_operation(id).await?, None);
    store.end_sessions(id, None).await?;
    assert_eq!(wanted(&*store, 1).await?.evictions, 2);
    // One browser that signs out leaves the others alone.
    store.end_sessions(id, Some(hash(1))).await?;
    assert_eq!(wanted(&*store, 1).await?.evictions, 2);
    store
        .delete_instance(id, operation_id(110), at(9), at(9))
        .await?;
    assert_eq!(store.end_sessions(id, None).await?, 0);
    let server = store.server(server_id(1)).await?.context("no server")?;
    assert_eq!(server.state, ServerState::Draining);
    let document = wanted(&*store, 1).await?;
    assert_eq!((document.power, document.evictions), (Power::Off, 3));
    Ok(())
}
