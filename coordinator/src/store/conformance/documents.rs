//! Changes of an instance's document, and the operations that watch them.

use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};
use tidepool_shared::{document::Generation, networks::Networks};

use super::{
    Outcome,
    world::{
        at, change, claimed, count, document, new_instance, operation_id, report, running,
        server_id, warm,
    },
};
use crate::{
    model::{DocumentChange, EdgeLimits, NewInstance, OperationKind, OperationState, ServerReport},
    store::{ChangeRefused, Store},
};

pub async fn a_change_replaces_the_document_with_an_operation_under_way<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    let instance = store.change_document(&change(1, 2), at(8)).await?;
    assert_eq!(instance.generation, Generation(2));
    assert_eq!(instance.observed, Generation(1));
    assert_eq!(instance.config, change(1, 2).config);
    assert_eq!(
        store.document_for(server_id(1)).await?,
        Some(document(1, 2))
    );
    let operation = store.current_operation(id).await?.context("none")?;
    assert_eq!(operation.id, operation_id(102));
    assert_eq!(operation.kind, OperationKind::Configure);
    assert_eq!(operation.generation, Some(Generation(2)));
    Ok(())
}

pub async fn where_channels_take_web_hooks_follows_the_configuration_and_is_in_the_route<
    S: Store,
>(
    store: Arc<S>,
) -> Outcome {
    let slack = |path: &str| -> Value {
        json!({"channels": {"slack": {"mode": "http", "webhookPath": path}}})
    };
    warm(&*store, 1).await?;
    let new = NewInstance {
        config: slack("/slack/first"),
        ..new_instance(1)
    };
    let created = store.create_instance(&new, at(5)).await?;
    let first = store.routes_of(created.id).await?;
    assert!(first.iter().all(|route| route.hooks == ["/slack/first"]));
    store.record_report(server_id(1), &report(1), at(6)).await?;
    store.mark_running(created.id, &[], at(7)).await?;
    let change = DocumentChange {
        config: slack("/slack/second"),
        ..change(1, 2)
    };
    store.change_document(&change, at(8)).await?;
    let second = store.routes().await?;
    assert!(!second.is_empty());
    assert!(second.iter().all(|route| route.hooks == ["/slack/second"]));
    Ok(())
}

pub async fn bounds_for_visitors_come_with_a_document_and_are_in_the_route<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    let limits = EdgeLimits {
        max_body_bytes: Some(5_000_000_000),
        requests_per_second: Some(7),
        request_burst: None,
    };
    let change = DocumentChange {
        edge_limits: limits,
        kind: OperationKind::Limit,
        ..change(1, 2)
    };
    let instance = store.change_document(&change, at(8)).await?;
    assert_eq!(instance.edge_limits, limits);
    let routes = store.routes_of(id).await?;
    assert!(routes.iter().all(|route| route.limits == limits));
    assert_eq!(
        store.routes().await?.first().map(|it| it.limits),
        Some(limits)
    );
    store.record_report(server_id(1), &report(2), at(9)).await?;
    assert_eq!(store.current_operation(id).await?, None);
    Ok(())
}

pub async fn networks_come_with_a_document_and_stay_until_another_takes_them_away<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    let networks: Networks = serde_json::from_value(json!(["10.20.0.0/16", "fd00::/8"]))?;
    let allowing = DocumentChange {
        networks: networks.clone(),
        kind: OperationKind::Networks,
        ..change(1, 2)
    };
    let changed = store.change_document(&allowing, at(8)).await?;
    assert_eq!(changed.networks, networks);
    let read = store.instance(id).await?.context("none")?;
    assert_eq!(read.networks, networks);
    // Done when the server says so.
    store.record_report(server_id(1), &report(2), at(9)).await?;
    assert_eq!(store.current_operation(id).await?, None);
    let changed = store.change_document(&change(1, 3), at(10)).await?;
    assert!(changed.networks.are_none());
    Ok(())
}

pub async fn a_change_ends_when_its_generation_is_observed<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    let mut restart = change(1, 2);
    restart.kind = OperationKind::Restart;
    restart.restarts = 1;
    let instance = store.change_document(&restart, at(8)).await?;
    assert_eq!(instance.restarts, 1);
    store.record_report(server_id(1), &report(1), at(9)).await?;
    assert!(store.current_operation(id).await?.is_some());
    store
        .record_report(server_id(1), &report(2), at(10))
        .await?;
    assert_eq!(store.current_operation(id).await?, None);
    let operation = store.operation(operation_id(102)).await?.context("none")?;
    assert_eq!(operation.state, OperationState::Succeeded);
    assert_eq!(operation.finished_at, Some(at(10)));
    assert_eq!(operation.steps.len(), 1);
    let applied = count(&*store, "config.applied").await?;
    let succeeded = count(&*store, "operation.succeeded").await?;
    assert_eq!((applied, succeeded), (2, 2));
    Ok(())
}

pub async fn a_rejected_configuration_fails_its_operation<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store.change_document(&change(1, 2), at(8)).await?;
    let rejected = ServerReport {
        served: Generation(2),
        rejected: Some((Generation(2), "`ui.name` is no text".to_owned())),
        ..report(2)
    };
    store.record_report(server_id(1), &rejected, at(9)).await?;
    let operation = store.operation(operation_id(102)).await?.context("none")?;
    assert_eq!(operation.state, OperationState::Failed);
    assert_eq!(operation.error.as_deref(), Some("`ui.name` is no text"));
    assert_eq!(store.current_operation(id).await?, None);
    assert_eq!(count(&*store, "config.rejected").await?, 1);
    assert_eq!(count(&*store, "config.applied").await?, 1);
    // The next try is free to come, and may succeed.
    store.change_document(&change(1, 3), at(10)).await?;
    store
        .record_report(server_id(1), &report(3), at(11))
        .await?;
    let operation = store.operation(operation_id(103)).await?.context("none")?;
    assert_eq!(operation.state, OperationState::Succeeded);
    Ok(())
}

pub async fn a_stale_change_is_refused<S: Store>(store: Arc<S>) -> Outcome {
    running(&*store, 1).await?;
    let refused = store.change_document(&change(1, 3), at(8)).await;
    assert!(matches!(refused, Err(ChangeRefused::Stale(Generation(1)))));
    assert_eq!(
        store.document_for(server_id(1)).await?,
        Some(document(1, 1))
    );
    Ok(())
}

pub async fn one_change_at_a_time<S: Store>(store: Arc<S>) -> Outcome {
    running(&*store, 1).await?;
    store.change_document(&change(1, 2), at(8)).await?;
    let refused = store.change_document(&change(1, 3), at(9)).await;
    let running = operation_id(102);
    assert!(matches!(refused, Err(ChangeRefused::OperationInProgress(id)) if id == running));
    assert_eq!(store.operation(operation_id(103)).await?, None);
    Ok(())
}

pub async fn a_change_during_creation_is_refused<S: Store>(store: Arc<S>) -> Outcome {
    claimed(&*store, 1).await?;
    store.create_instance(&new_instance(2), at(5)).await?;
    for number in [1, 2] {
        let refused = store.change_document(&change(number, 2), at(6)).await;
        let create = operation_id(number);
        assert!(matches!(refused, Err(ChangeRefused::OperationInProgress(id)) if id == create));
    }
    Ok(())
}

pub async fn a_change_of_no_instance_is_refused<S: Store>(store: Arc<S>) -> Outcome {
    let refused = store.change_document(&change(9, 2), at(8)).await;
    assert!(matches!(refused, Err(ChangeRefused::NotFound)));
    let id = running(&*store, 1).await?;
    store
        .delete_instance(id, operation_id(101), at(8), at(8))
        .await?;
    let refused = store.change_document(&change(1, 2), at(9)).await;
    assert!(matches!(refused, Err(ChangeRefused::NotFound)));
    Ok(())
}

pub async fn a_mislabelled_document_is_an_error<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    let mut other = change(1, 2);
    other.document = document(1, 7);
    let refused = store.change_document(&other, at(8)).await;
    assert!(matches!(refused, Err(ChangeRefused::Store(_))));
    other.document = document(2, 2);
    let refused = store.change_document(&other, at(8)).await;
    assert!(matches!(refused, Err(ChangeRefused::Store(_))));
    assert_eq!(store.current_operation(id).await?, None);
    Ok(())
}

pub async fn of_two_changes_at_once_one_wins<S: Store>(store: Arc<S>) -> Outcome {
    running(&*store, 1).await?;
    let one = change(1, 2);
    let mut other = change(1, 2);
    other.operation = operation_id(150);
    let (one, other) = tokio::join!(
        store.change_document(&one, at(8)),
        store.change_document(&other, at(8)),
    );
    assert_ne!(one.is_ok(), other.is_ok());
    let refused = if one.is_ok() { other } else { one };
    assert!(matches!(
        refused,
        Err(ChangeRefused::OperationInProgress(_))
    ));
    Ok(())
}
