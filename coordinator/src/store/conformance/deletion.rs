//! Deletion: every door is shut in one commit.

use std::sync::Arc;

use anyhow::Context as _;

use super::{
    Outcome,
    world::{
        TIER, address, at, change, hash, instance_id, new_instance, operation_id, running,
        server_id, warm,
    },
};
use crate::{
    model::{OperationKind, OperationState, ServerState},
    store::{Store, Transition},
};

pub async fn a_deletion_takes_routes_trust_sessions_and_links<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.create_login_link(hash(1), id, at(99), at(8)).await?;
    store.create_login_link(hash(2), id, at(99), at(8)).await?;
    store
        .redeem_login_link(hash(1), id, hash(11), at(99), at(8))
        .await?;
    let done = store.delete_instance(id, operation_id(101), at(9)).await?;
    assert_eq!(done, Transition::Done);
    assert!(store.routes().await?.is_empty());
    assert_eq!(store.trusted(address(1)).await?, None);
    assert_eq!(store.session(hash(11), at(10)).await?, None);
    let opened = store
        .redeem_login_link(hash(2), id, hash(12), at(99), at(10))
        .await?;
    assert!(!opened);
    let server = store.server(server_id(1)).await?.context("no server")?;
    assert_eq!(server.state, ServerState::Draining);
    assert_eq!(store.document_for(server.id).await?, None);
    Ok(())
}

pub async fn a_deletion_supersedes_a_change<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.change_document(&change(1, 2), at(8)).await?;
    store.delete_instance(id, operation_id(101), at(9)).await?;
    let change = store.operation(operation_id(102)).await?.context("none")?;
    assert_eq!(change.state, OperationState::Canceled);
    assert_eq!(change.finished_at, Some(at(9)));
    let current = store.current_operation(id).await?.context("none")?;
    assert_eq!(current.id, operation_id(101));
    Ok(())
}

pub async fn a_deletion_succeeds_when_the_server_is_gone<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.delete_instance(id, operation_id(101), at(8)).await?;
    let before = store.operation(operation_id(101)).await?.context("none")?;
    assert_eq!(before.kind, OperationKind::Delete);
    assert_eq!(before.state, OperationState::Running);
    store.mark_deleting(server_id(1), at(9)).await?;
    store.mark_gone(server_id(1), at(10)).await?;
    let after = store.operation(operation_id(101)).await?.context("none")?;
    assert_eq!(after.state, OperationState::Succeeded);
    assert_eq!(after.finished_at, Some(at(10)));
    assert_eq!(store.current_operation(id).await?, None);
    Ok(())
}

pub async fn a_pending_instance_is_deleted_at_once<S: Store>(store: Arc<S>) -> Outcome {
    let id = store.create_instance(&new_instance(1), at(5)).await?.id;
    store.delete_instance(id, operation_id(101), at(6)).await?;
    let delete = store.operation(operation_id(101)).await?.context("none")?;
    assert_eq!(delete.state, OperationState::Succeeded);
    assert_eq!(store.pending_count(TIER).await?, 0);
    warm(&*store, 1).await?;
    assert_eq!(store.claim_for_pending(TIER, at(7)).await?, None);
    Ok(())
}

pub async fn a_deletion_is_not_repeated<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.delete_instance(id, operation_id(101), at(8)).await?;
    let again = store.delete_instance(id, operation_id(102), at(9)).await?;
    assert_eq!(again, Transition::NotPossible);
    assert_eq!(store.operation(operation_id(102)).await?, None);
    let unknown = store
        .delete_instance(instance_id(9), operation_id(103), at(9))
        .await?;
    assert_eq!(unknown, Transition::NotPossible);
    Ok(())
}

pub async fn a_deleted_name_is_free_again<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.delete_instance(id, operation_id(101), at(8)).await?;
    let mut second = new_instance(2);
    let first = new_instance(1);
    second.name.clone_from(&first.name);
    second.external_id = first.external_id;
    second.hosts = first.hosts;
    store.create_instance(&second, at(9)).await?;
    let found = store.instance_named(&first.name).await?;
    assert_eq!(found.map(|it| it.id), Some(second.id));
    Ok(())
}
