//! Deletion: every door is shut in one commit.

use std::sync::Arc;

use anyhow::Context as _;
use tidepool_shared::document::Power;

use super::{
    Outcome,
    world::{
        address, at, change, document, hash, host, instance_id, new_instance, operation_id, pool,
        report, running, server_id, step, warm,
    },
};
use crate::{
    model::{DocumentChange, InstanceStatus, OperationKind, OperationState, ServerState},
    store::{ChangeRefused, Store, Transition},
};

pub async fn a_deletion_takes_routes_trust_sessions_and_links<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.create_login_link(hash(1), id, at(99), at(8)).await?;
    store.create_login_link(hash(2), id, at(99), at(8)).await?;
    store
        .redeem_login_link(hash(1), id, hash(11), at(99), at(8))
        .await?;
    let done = store
        .delete_instance(id, operation_id(101), at(9), at(9))
        .await?;
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
    let last = store.document_for(server.id).await?.context("none")?;
    assert_eq!(last.open()?.power, Power::Off);
    Ok(())
}

pub async fn a_deletion_supersedes_a_change<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.change_document(&change(1, 2), at(8)).await?;
    store
        .delete_instance(id, operation_id(101), at(9), at(9))
        .await?;
    let change = store.operation(operation_id(102)).await?.context("none")?;
    assert_eq!(change.state, OperationState::Canceled);
    assert_eq!(change.finished_at, Some(at(9)));
    let current = store.current_operation(id).await?.context("none")?;
    assert_eq!(current.id, operation_id(101));
    Ok(())
}

pub async fn a_deletion_succeeds_when_the_server_is_gone<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store
        .delete_instance(id, operation_id(101), at(8), at(8))
        .await?;
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
    store
        .delete_instance(id, operation_id(101), at(6), at(6))
        .await?;
    let delete = store.operation(operation_id(101)).await?.context("none")?;
    assert_eq!(delete.state, OperationState::Succeeded);
    assert_eq!(store.pending_count(&pool()).await?, 0);
    warm(&*store, 1).await?;
    assert_eq!(store.claim_for_pending(&pool(), at(7)).await?, None);
    Ok(())
}

pub async fn a_deletion_is_not_repeated<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store
        .delete_instance(id, operation_id(101), at(8), at(8))
        .await?;
    let again = store
        .delete_instance(id, operation_id(102), at(9), at(9))
        .await?;
    assert_eq!(again, Transition::NotPossible);
    assert_eq!(store.operation(operation_id(102)).await?, None);
    let unknown = store
        .delete_instance(instance_id(9), operation_id(103), at(9), at(9))
        .await?;
    assert_eq!(unknown, Transition::NotPossible);
    Ok(())
}

pub async fn a_deleted_name_is_free_again<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store
        .delete_instance(id, operation_id(101), at(8), at(8))
        .await?;
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

/// The way back of the instance of this number, which was created and deleted; its operation is 110.
fn back(number: u8) -> DocumentChange {
    DocumentChange {
        operation: operation_id(110),
        kind: OperationKind::Undelete,
        document: document(number, 3),
        ..change(number, 3)
    }
}

pub async fn within_its_grace_an_instance_is_out_of_reach_and_keeps_its_server_and_its_name<
    S: Store,
>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    store
        .delete_instance(id, operation_id(101), at(99), at(9))
        .await?;
    assert!(store.routes().await?.is_empty());
    assert_eq!(store.trusted(address(1)).await?, None);
    let server = store.server(server_id(1)).await?.context("no server")?;
    assert_eq!(server.state, ServerState::Claimed);
    let delete = store.operation(operation_id(101)).await?.context("none")?;
    assert_eq!(delete.state, OperationState::Succeeded);
    let mut second = new_instance(2);
    second.name = new_instance(1).name;
    assert!(store.create_instance(&second, at(10)).await.is_err());
    assert_eq!(store.to_be_purged(at(98)).await?, []);
    assert_eq!(store.to_be_purged(at(99)).await?, [id]);
    Ok(())
}

pub async fn an_undeleted_instance_starts_again_on_its_server<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store
        .delete_instance(id, operation_id(101), at(99), at(9))
        .await?;
    let undeleted = store.undelete_instance(&back(1), at(10)).await?;
    assert_eq!(undeleted.status, InstanceStatus::Starting);
    assert_eq!((undeleted.deleted_at, undeleted.purge_at), (None, None));
    assert_eq!(
        store.trusted(address(1)).await?,
        Some((server_id(1), Some(id)))
    );
    let routes = store.routes_of(id).await?;
    assert!(routes.iter().any(|route| route.host == host(1)));
    store
        .record_report(server_id(1), &report(3), at(11))
        .await?;
    store.mark_running(id, &[step("verify", 1)], at(12)).await?;
    let operation = store.operation(operation_id(110)).await?.context("none")?;
    assert_eq!(operation.state, OperationState::Succeeded);
    assert_eq!(store.to_be_purged(at(1000)).await?, []);
    Ok(())
}

pub async fn only_a_deleted_instance_is_undeleted<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    let early = store.undelete_instance(&back(1), at(9)).await;
    assert!(matches!(early, Err(ChangeRefused::NotFound)));
    store
        .delete_instance(id, operation_id(101), at(10), at(10))
        .await?;
    let late = store.undelete_instance(&back(1), at(11)).await;
    assert!(matches!(late, Err(ChangeRefused::NotFound)));
    Ok(())
}

pub async fn a_pending_instance_waits_again_when_it_comes_back<S: Store>(store: Arc<S>) -> Outcome {
    let id = store.create_instance(&new_instance(1), at(5)).await?.id;
    store
        .delete_instance(id, operation_id(101), at(99), at(6))
        .await?;
    assert_eq!(store.pending_count(&pool()).await?, 0);
    let undeleted = store.undelete_instance(&back(1), at(7)).await?;
    assert_eq!(undeleted.status, InstanceStatus::Pending);
    assert_eq!(store.pending_count(&pool()).await?, 1);
    Ok(())
}

pub async fn a_purge_sends_the_server_away_and_frees_the_name<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    let early = store.purge_instance(id, at(99), at(8)).await?;
    assert_eq!(early, Transition::NotPossible);
    store
        .delete_instance(id, operation_id(101), at(99), at(9))
        .await?;
    assert_eq!(
        store.purge_instance(id, at(98), at(10)).await?,
        Transition::NotPossible,
        "its grace ends later"
    );
    assert_eq!(
        store.purge_instance(id, at(99), at(10)).await?,
        Transition::Done
    );
    assert_eq!(
        store.purge_instance(id, at(99), at(11)).await?,
        Transition::NotPossible
    );
    let server = store.server(server_id(1)).await?.context("no server")?;
    assert_eq!(server.state, ServerState::Draining);
    let mut second = new_instance(2);
    second.name = new_instance(1).name;
    second.hosts = new_instance(1).hosts;
    store.create_instance(&second, at(12)).await?;
    Ok(())
}

pub async fn an_undeletion_and_a_purge_at_once_have_one_winner<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store
        .delete_instance(id, operation_id(101), at(99), at(9))
        .await?;
    let change = back(1);
    let (purged, undeleted) = tokio::join!(
        store.purge_instance(id, at(99), at(10)),
        store.undelete_instance(&change, at(10)),
    );
    let is_back = undeleted.is_ok();
    assert_eq!(purged? == Transition::Done, !is_back);
    let server = store.server(server_id(1)).await?.context("no server")?;
    assert_eq!(server.state == ServerState::Claimed, is_back);
    Ok(())
}

pub async fn a_deleted_instance_whose_server_is_lost_is_purged<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store
        .delete_instance(id, operation_id(101), at(99), at(9))
        .await?;
    store.mark_lost(server_id(1), "not there", at(10)).await?;
    let after = store.instance(id).await?.context("no instance")?;
    assert_eq!(after.status, InstanceStatus::Purged);
    Ok(())
}
