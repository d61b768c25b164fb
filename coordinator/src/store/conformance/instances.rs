//! Instances that exist: their status, and how they are found.

use std::sync::Arc;

use anyhow::Context as _;

use super::{
    Outcome,
    world::{
        at, claimed, count, instance_id, new_instance, operation_id, running, server_id, step, warm,
    },
};
use crate::{
    model::{InstanceStatus, OperationState},
    store::{Page, Store, Transition},
};

pub async fn running_ends_the_create_operation<S: Store>(store: Arc<S>) -> Outcome {
    let id = claimed(&*store, 1).await?.id;
    let timings = [step("claim", 3), step("route", 9)];
    let done = store.mark_running(id, &timings, at(6)).await?;
    assert_eq!(done, Transition::Done);
    let instance = store.instance(id).await?.context("no instance")?;
    assert_eq!(instance.status, InstanceStatus::Running);
    assert_eq!(instance.ready_at, Some(at(6)));
    assert_eq!(instance.timings, timings);
    assert_eq!(store.current_operation(id).await?, None);
    let operation = store.operation(operation_id(1)).await?.context("none")?;
    assert_eq!(operation.state, OperationState::Succeeded);
    assert_eq!(operation.finished_at, Some(at(6)));
    let steps: Vec<_> = operation.steps.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(steps, ["claim", "route"]);
    Ok(())
}

pub async fn only_a_starting_instance_becomes_running<S: Store>(store: Arc<S>) -> Outcome {
    let waiting = store.create_instance(&new_instance(1), at(5)).await?.id;
    let done = store.mark_running(waiting, &[], at(6)).await?;
    assert_eq!(done, Transition::NotPossible);
    store
        .mark_instance_failed(waiting, "no server", at(6))
        .await?;
    let id = running(&*store, 2).await?;
    let again = store.mark_running(id, &[], at(8)).await?;
    assert_eq!(again, Transition::NotPossible);
    let unknown = store.mark_running(instance_id(9), &[], at(8)).await?;
    assert_eq!(unknown, Transition::NotPossible);
    Ok(())
}

pub async fn a_failed_instance_leaves_the_queue<S: Store>(store: Arc<S>) -> Outcome {
    let first = store.create_instance(&new_instance(1), at(5)).await?.id;
    let second = store.create_instance(&new_instance(2), at(5)).await?.id;
    let failed = store.mark_instance_failed(first, "too long", at(6)).await?;
    assert_eq!(failed, Transition::Done);
    let instance = store.instance(first).await?.context("no instance")?;
    assert_eq!(instance.status, InstanceStatus::Failed);
    assert_eq!(instance.problem.as_deref(), Some("too long"));
    let operation = store.operation(operation_id(1)).await?.context("none")?;
    assert_eq!(operation.state, OperationState::Failed);
    assert_eq!(operation.error.as_deref(), Some("too long"));
    assert_eq!(count(&*store, "operation.failed").await?, 1);
    let next = store.instance(second).await?.context("no instance")?;
    assert_eq!(next.queue_position, Some(1));
    Ok(())
}

pub async fn a_running_instance_does_not_fail_by_itself<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    let failed = store.mark_instance_failed(id, "no", at(8)).await?;
    assert_eq!(failed, Transition::NotPossible);
    let starting = claimed(&*store, 2).await?.id;
    let failed = store
        .mark_instance_failed(starting, "silent", at(8))
        .await?;
    assert_eq!(failed, Transition::Done);
    let instance = store.instance(starting).await?.context("no instance")?;
    assert_eq!(instance.server, Some(server_id(2)));
    Ok(())
}

pub async fn an_instance_is_found_by_name_and_external_id_until_purged<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    let by_name = store.instance_named("a1").await?;
    assert_eq!(by_name.map(|it| it.id), Some(id));
    let by_theirs = store.instance_with_external_id("customer-1").await?;
    assert_eq!(by_theirs.map(|it| it.id), Some(id));
    store
        .delete_instance(id, operation_id(101), at(8), at(8))
        .await?;
    assert_eq!(store.instance_named("a1").await?, None);
    assert_eq!(store.instance_with_external_id("customer-1").await?, None);
    let deleted = store.instance(id).await?.context("forgotten")?;
    assert_eq!(deleted.status, InstanceStatus::Purged);
    assert_eq!(deleted.deleted_at, Some(at(8)));
    Ok(())
}

pub async fn pages_are_oldest_first_and_go_on<S: Store>(store: Arc<S>) -> Outcome {
    for number in [1, 2, 3, 4] {
        store
            .create_instance(&new_instance(number), at(number.into()))
            .await?;
    }
    store
        .delete_instance(instance_id(2), operation_id(102), at(8), at(8))
        .await?;
    let page = async |status, after, limit| -> anyhow::Result<Vec<_>> {
        let page = Page { after, limit };
        let found = store.instances(status, &page).await?;
        Ok(found.into_iter().map(|it| it.id).collect())
    };
    assert_eq!(page(None, None, 2).await?, [instance_id(1), instance_id(3)]);
    let rest = page(None, Some(instance_id(3)), 2).await?;
    assert_eq!(rest, [instance_id(4)]);
    let after_a_deleted = page(None, Some(instance_id(2)), 1).await?;
    assert_eq!(after_a_deleted, [instance_id(3)]);
    let deleted = page(Some(InstanceStatus::Purged), None, 9).await?;
    assert_eq!(deleted, [instance_id(2)]);
    assert!(
        page(Some(InstanceStatus::Running), None, 9)
            .await?
            .is_empty()
    );
    assert!(page(None, Some(instance_id(9)), 9).await?.is_empty());
    Ok(())
}

pub async fn basic_auth_is_set_and_removed_in_the_route<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    for (generation, credentials) in (2..).zip([Some("me:$2b$…"), None]) {
        let set = store.set_basic_auth(id, credentials, at(8)).await?;
        assert_eq!(set, Transition::Done);
        let routes = store.routes_of(id).await?;
        assert_eq!(routes.len(), 2);
        for route in routes {
            assert_eq!(route.basic_auth.as_deref(), credentials);
        }
        let instance = store.instance(id).await?.context("no instance")?;
        assert_eq!(instance.basic_auth.as_deref(), credentials);
        // So that the server hears of it.
        assert_eq!(instance.generation.0, generation);
    }
    let unknown = store.set_basic_auth(instance_id(9), None, at(8)).await?;
    assert_eq!(unknown, Transition::NotPossible);
    Ok(())
}

pub async fn nothing_is_found_by_unknown_ids<S: Store>(store: Arc<S>) -> Outcome {
    assert_eq!(store.instance(instance_id(9)).await?, None);
    assert_eq!(store.operation(operation_id(9)).await?, None);
    assert_eq!(store.current_operation(instance_id(9)).await?, None);
    assert_eq!(store.document_for(server_id(9)).await?, None);
    assert!(store.routes_of(instance_id(9)).await?.is_empty());
    let failed = store
        .mark_instance_failed(instance_id(9), "x", at(1))
        .await?;
    assert_eq!(failed, Transition::NotPossible);
    warm(&*store, 1).await?;
    assert_eq!(store.document_for(server_id(1)).await?, None);
    Ok(())
}
