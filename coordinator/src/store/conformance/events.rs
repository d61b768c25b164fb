//! The event log.

use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    Outcome,
    world::{at, kinds, new_instance, new_server, operation_id, running, server_id, warm},
};
use crate::{model::Blame, store::Store};

pub async fn sequence_numbers_have_no_gaps_under_concurrency<S: Store>(store: Arc<S>) -> Outcome {
    assert_eq!(store.last_sequence().await?, 0);
    let mut writers = JoinSet::new();
    for number in 1..=16 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            warm(&*store, number).await?;
            store.create_instance(&new_instance(number), at(5)).await?;
            // Refused, and so without an event.
            let again = store.create_instance(&new_instance(number), at(6)).await;
            anyhow::ensure!(again.is_err());
            Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    let events = store.events_after(0, None, 1000).await?;
    let numbers: Vec<_> = events.iter().map(|event| event.sequence).collect();
    let last = store.last_sequence().await?;
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>());
    // Planned, booting, warm, created, and claimed or pool.empty; but see `nobody_overtakes_who_waits`.
    assert!(last >= 16 * 4, "{last}");
    Ok(())
}

pub async fn events_are_read_onwards_and_by_instance<S: Store>(store: Arc<S>) -> Outcome {
    let first = running(&*store, 1).await?;
    running(&*store, 2).await?;
    let two = store.events_after(3, None, 2).await?;
    let numbers: Vec<_> = two.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, [4, 5]);
    let own = store.events_after(0, Some(first), 100).await?;
    assert!(!own.is_empty());
    assert!(own.iter().all(|event| event.instance == Some(first)));
    let after = own.get(1).context("one event only")?.sequence;
    let rest = store.events_after(after, Some(first), 100).await?;
    assert_eq!(rest.len(), own.len() - 2);
    let end = store.last_sequence().await?;
    assert!(store.events_after(end, None, 100).await?.is_empty());
    assert!(store.events_after(u64::MAX, None, 100).await?.is_empty());
    Ok(())
}

pub async fn old_events_are_forgotten_from_the_oldest_on<S: Store>(store: Arc<S>) -> Outcome {
    let month = 30 * 24 * 3600;
    let server = Some(server_id(1));
    // The third was begun before the second and is older, but came after it.
    for moment in [0, 20, 10, 30] {
        store.audit("seen", server, json!({}), at(moment)).await?;
    }
    let left = async |now| -> anyhow::Result<Vec<u64>> {
        store.forget_expired(at(now)).await?;
        let events = store.events_after(0, None, 100).await?;
        Ok(events.iter().map(|event| event.sequence).collect())
    };
    assert_eq!(left(month - 1).await?, [1, 2, 3, 4]);
    assert_eq!(left(month + 15).await?, [2, 3, 4]);
    assert_eq!(left(month * 2).await?, [4]);
    assert_eq!(store.last_sequence().await?, 4);
    store
        .audit("seen", server, json!({}), at(month * 2))
        .await?;
    assert_eq!(store.last_sequence().await?, 5);
    Ok(())
}

pub async fn an_event_is_found_by_its_id<S: Store>(store: Arc<S>) -> Outcome {
    running(&*store, 1).await?;
    for event in store.events_after(0, None, 100).await? {
        let found = store.event_sequence(&event.id.to_string()).await?;
        assert_eq!(found, Some(event.sequence));
    }
    assert_eq!(store.event_sequence("evt_nonsense").await?, None);
    Ok(())
}

pub async fn a_servers_life_is_told<S: Store>(store: Arc<S>) -> Outcome {
    let id = warm(&*store, 1).await?;
    store.retire_unclaimed(id, at(5)).await?;
    store.mark_deleting(id, at(6)).await?;
    store.mark_gone(id, at(7)).await?;
    store.plan_server(&new_server(2), at(8)).await?;
    store
        .mark_failed(server_id(2), "no capacity", Blame::Nobody, at(9))
        .await?;
    assert_eq!(
        kinds(&*store).await?,
        [
            "server.planned",
            "server.booting",
            "server.warm",
            "server.draining",
            "server.gone",
            "server.planned",
            "server.failed",
        ]
    );
    Ok(())
}

pub async fn an_instances_life_is_told<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    store
        .delete_instance(id, operation_id(101), at(8), at(8))
        .await?;
    store.mark_deleting(server_id(1), at(9)).await?;
    store.mark_gone(server_id(1), at(10)).await?;
    let mut told = kinds(&*store).await?;
    told.drain(..3);
    assert_eq!(
        told,
        [
            "instance.created",
            "server.claimed",
            "instance.health_changed",
            "config.applied",
            "instance.status_changed",
            "operation.succeeded",
            "instance.ready",
            "instance.deleted",
            "instance.purged",
            "server.draining",
            "server.gone",
            "operation.succeeded",
        ]
    );
    Ok(())
}
