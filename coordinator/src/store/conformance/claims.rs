//! The claim: no server twice, nobody overtaken, nothing by halves.

use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::{
    Outcome,
    world::{
        address, at, booting, claimed, coordinator_id, count, document, elsewhere, host,
        instance_id, made, new_instance, new_server, operation_id, pool, report, server_id,
        upstream, warm,
    },
};
use crate::{
    model::{Destination, Door, InstanceStatus, OperationState, ServerState},
    store::{CreateRefused, Store, StoreError, Transition},
};

pub async fn a_new_instance_gets_the_oldest_warm_server_of_its_tier<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let mut large = new_server(1);
    large.pool = elsewhere();
    store.plan_server(&large, at(0)).await?;
    store.record_created(large.id, &made(1), at(1)).await?;
    store
        .open_session(large.id, "1", coordinator_id(1), at(2))
        .await?;
    store.record_report(large.id, &report(0), at(3)).await?;
    warm(&*store, 3).await?;
    warm(&*store, 2).await?;
    let instance = store.create_instance(&new_instance(1), at(5)).await?;
    // Two and three are of the same moment: then the smaller id is the older.
    assert_eq!(instance.server, Some(server_id(2)));
    Ok(())
}

pub async fn a_claim_is_whole<S: Store>(store: Arc<S>) -> Outcome {
    let server = warm(&*store, 1).await?;
    let instance = store.create_instance(&new_instance(1), at(5)).await?;
    assert_eq!(instance.status, InstanceStatus::Starting);
    assert_eq!(instance.claimed_at, Some(at(5)));
    assert!(instance.warm);
    assert_eq!(instance.queue_position, None);
    assert_eq!((instance.generation.0, instance.observed.0), (1, 0));
    assert_eq!(instance.hosts, new_instance(1).hosts);
    assert_eq!(store.instance(instance.id).await?, Some(instance.clone()));
    let held = store.server(server).await?.context("no server")?;
    assert_eq!(held.state, ServerState::Claimed);
    assert_eq!(held.instance, Some(instance.id));
    let trusted = store.trusted(address(1)).await?;
    assert_eq!(trusted, Some((server, Some(instance.id))));
    assert_eq!(store.document_for(server).await?, Some(document(1, 1)));
    let operation = store.current_operation(instance.id).await?;
    let operation = operation.context("no operation")?;
    assert_eq!(operation.id, operation_id(1));
    assert_eq!(operation.state, OperationState::Running);
    let routes = store.routes_of(instance.id).await?;
    assert_eq!(routes.len(), 2);
    for route in &routes {
        assert_eq!(route.upstream, Some(upstream(1)));
        assert_eq!(route.edge_proof, instance.edge_proof);
        assert_eq!(route.status, InstanceStatus::Starting);
    }
    assert_eq!(store.routes().await?.len(), 2);
    Ok(())
}

pub async fn without_a_warm_server_it_waits_and_the_pool_is_told_empty<S: Store>(
    store: Arc<S>,
) -> Outcome {
    booting(&*store, 1).await?;
    let instance = store.create_instance(&new_instance(1), at(5)).await?;
    assert_eq!(instance.status, InstanceStatus::Pending);
    assert_eq!((instance.server, instance.claimed_at), (None, None));
    assert_eq!(instance.queue_position, Some(1));
    assert!(!instance.warm);
    assert_eq!(store.pending_count(&pool()).await?, 1);
    assert_eq!(store.pending_count(&elsewhere()).await?, 0);
    assert_eq!(count(&*store, "pool.empty").await?, 1);
    let operation = store.operation(operation_id(1)).await?.context("none")?;
    assert_eq!(operation.state, OperationState::Queued);
    let routes = store.routes_of(instance.id).await?;
    assert!(routes.iter().all(|route| route.upstream.is_none()));
    Ok(())
}

pub async fn nobody_overtakes_who_waits<S: Store>(store: Arc<S>) -> Outcome {
    store.create_instance(&new_instance(1), at(5)).await?;
    warm(&*store, 1).await?;
    let second = store.create_instance(&new_instance(2), at(6)).await?;
    assert_eq!(second.status, InstanceStatus::Pending);
    assert_eq!(second.queue_position, Some(2));
    // A server was warm: it was not for want of one.
    assert_eq!(count(&*store, "pool.empty").await?, 1);
    Ok(())
}

pub async fn who_waits_is_served_in_order<S: Store>(store: Arc<S>) -> Outcome {
    // Neither the clock nor the ids say who came first.
    for number in [7, 3, 5] {
        store.create_instance(&new_instance(number), at(5)).await?;
    }
    warm(&*store, 1).await?;
    warm(&*store, 2).await?;
    let mut served = Vec::new();
    while let Some(instance) = store.claim_for_pending(&pool(), at(6)).await? {
        served.push((instance.id, instance.server));
    }
    assert_eq!(
        served,
        [
            (instance_id(7), Some(server_id(1))),
            (instance_id(3), Some(server_id(2)))
        ]
    );
    let left = store.instance(instance_id(5)).await?.context("lost")?;
    assert_eq!(left.queue_position, Some(1));
    assert_eq!(store.claim_for_pending(&elsewhere(), at(7)).await?, None);
    Ok(())
}

pub async fn a_pending_claim_is_whole<S: Store>(store: Arc<S>) -> Outcome {
    store.create_instance(&new_instance(1), at(5)).await?;
    let server = warm(&*store, 2).await?;
    let claimed = store.claim_for_pending(&pool(), at(6)).await?;
    let claimed = claimed.context("nobody")?;
    assert_eq!(claimed.status, InstanceStatus::Starting);
    assert_eq!(claimed.claimed_at, Some(at(6)));
    assert!(!claimed.warm);
    let trusted = store.trusted(address(2)).await?;
    assert_eq!(trusted, Some((server, Some(claimed.id))));
    assert_eq!(store.document_for(server).await?, Some(document(1, 1)));
    let operation = store.operation(operation_id(1)).await?.context("none")?;
    assert_eq!(operation.state, OperationState::Running);
    let routes = store.routes_of(claimed.id).await?;
    assert!(routes.iter().all(|it| it.upstream == Some(upstream(2))));
    assert_eq!(store.pending_count(&pool()).await?, 0);
    Ok(())
}

pub async fn a_revoked_server_is_not_claimed<S: Store>(store: Arc<S>) -> Outcome {
    let id = warm(&*store, 1).await?;
    store.revoke(id, at(5)).await?;
    let instance = store.create_instance(&new_instance(1), at(6)).await?;
    assert_eq!(instance.server, None);
    assert_eq!(store.claim_for_pending(&pool(), at(7)).await?, None);
    Ok(())
}

pub async fn a_taken_name_takes_no_server<S: Store>(store: Arc<S>) -> Outcome {
    claimed(&*store, 1).await?;
    let free = warm(&*store, 2).await?;
    let mut second = new_instance(2);
    second.name = new_instance(1).name;
    let events = store.last_sequence().await?;
    let refused = store.create_instance(&second, at(6)).await;
    assert!(matches!(refused, Err(CreateRefused::NameTaken)));
    let server = store.server(free).await?.context("no server")?;
    assert_eq!((server.state, server.instance), (ServerState::Warm, None));
    assert_eq!(store.trusted(address(2)).await?, Some((free, None)));
    assert_eq!(store.instance(second.id).await?, None);
    assert_eq!(store.last_sequence().await?, events);
    Ok(())
}

pub async fn a_taken_host_is_a_taken_name<S: Store>(store: Arc<S>) -> Outcome {
    claimed(&*store, 1).await?;
    let mut second = new_instance(2);
    second.hosts = vec![host(2), host(1)];
    let refused = store.create_instance(&second, at(6)).await;
    assert!(matches!(refused, Err(CreateRefused::NameTaken)));
    assert_eq!(store.routes().await?.len(), 2);
    assert_eq!(store.instance(second.id).await?, None);
    Ok(())
}

pub async fn a_taken_external_id_names_its_holder<S: Store>(store: Arc<S>) -> Outcome {
    let holder = claimed(&*store, 1).await?.id;
    let mut second = new_instance(2);
    second.external_id = new_instance(1).external_id;
    let refused = store.create_instance(&second, at(6)).await;
    assert!(matches!(refused, Err(CreateRefused::ExternalIdTaken(id)) if id == holder));
    for number in [3, 4] {
        let mut without = new_instance(number);
        without.external_id = None;
        store.create_instance(&without, at(7)).await?;
    }
    Ok(())
}

pub async fn sixty_four_at_once_on_eight_servers<S: Store>(store: Arc<S>) -> Outcome {
    for number in 1..=8 {
        warm(&*store, number).await?;
    }
    let mut creates = JoinSet::new();
    for number in 1..=64 {
        let store = Arc::clone(&store);
        creates.spawn(async move { store.create_instance(&new_instance(number), at(5)).await });
    }
    let mut served = HashSet::new();
    let mut waiting = Vec::new();
    while let Some(created) = creates.join_next().await {
        let instance = created??;
        match instance.server {
            Some(id) => assert!(served.insert(id), "{id} was claimed twice"),
            None => waiting.push((instance.queue_position, instance.id)),
        }
    }
    assert_eq!((served.len(), waiting.len()), (8, 56));
    waiting.sort_unstable();
    let places: Vec<_> = waiting.iter().filter_map(|(place, _)| *place).collect();
    assert_eq!(places, (1..=56).collect::<Vec<_>>());
    // Whoever was told an earlier place is served earlier.
    for (number, (_, next)) in (9..).zip(waiting) {
        warm(&*store, number).await?;
        let claimed = store.claim_for_pending(&pool(), at(6)).await?;
        assert_eq!(claimed.map(|instance| instance.id), Some(next));
    }
    Ok(())
}

pub async fn refillers_at_once_give_each_server_once<S: Store>(store: Arc<S>) -> Outcome {
    for number in 1..=16 {
        store.create_instance(&new_instance(number), at(1)).await?;
    }
    for number in 1..=8 {
        warm(&*store, number).await?;
    }
    let mut claims = JoinSet::new();
    for _ in 0..12 {
        let store = Arc::clone(&store);
        claims.spawn(async move { store.claim_for_pending(&pool(), at(5)).await });
    }
    let mut served = HashSet::new();
    while let Some(claimed) = claims.join_next().await {
        if let Some(instance) = claimed?? {
            assert!(instance.id <= instance_id(8), "{} overtook", instance.id);
            assert!(served.insert(instance.server));
        }
    }
    assert_eq!(served.len(), 8);
    assert_eq!(store.pending_count(&pool()).await?, 8);
    Ok(())
}

pub async fn a_retirement_and_a_claim_at_once_have_one_winner<S: Store>(store: Arc<S>) -> Outcome {
    for number in 1..=20 {
        let id = warm(&*store, number).await?;
        let new = new_instance(number);
        let (retired, created) = tokio::join!(
            store.retire_unclaimed(id, at(5)),
            store.create_instance(&new, at(5)),
        );
        let created = created?;
        let taken = created.server == Some(id);
        assert_ne!(retired? == Transition::Done, taken);
        // A waiting instance would get the next server.
        store
            .delete_instance(created.id, operation_id(100 + number), at(6), at(6))
            .await?;
    }
    Ok(())
}

/// Drops a future after it was waited for so many times, as a lost client or a shutdown does.
struct Interrupted<F> {
    inner: Pin<Box<F>>,
    waits_left: usize,
}

impl<F: Future> Future for Interrupted<F> {
    /// `None` when it was interrupted.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match (self.inner.as_mut().poll(task), self.waits_left) {
            (Poll::Ready(output), _) => Poll::Ready(Some(output)),
            (Poll::Pending, 0) => Poll::Ready(None),
            (Poll::Pending, _) => {
                self.waits_left -= 1;
                Poll::Pending
            }
        }
    }
}

pub async fn an_interrupted_create_leaves_all_or_nothing<S: Store>(store: Arc<S>) -> Outcome {
    let (mut created, mut cut) = (0, 0);
    for number in 1..=40 {
        let server = warm(&*store, number).await?;
        let new = new_instance(number);
        let interrupted = Interrupted {
            inner: Box::pin(store.create_instance(&new, at(5))),
            waits_left: usize::from(number) - 1,
        };
        let finished = interrupted.await.is_some();
        // The same again waits for whatever was interrupted, or keeps it from happening later.
        let again = store.create_instance(&new, at(6)).await;
        assert!(!finished || again.is_err(), "created twice");
        created += usize::from(again.is_err());
        cut += usize::from(!finished);
        store.claim_for_pending(&pool(), at(7)).await?;
        let claimed = store.server(server).await?.context("no server")?;
        assert_eq!(claimed.state, ServerState::Claimed);
        let instance = store.instance(new.id).await?.context("no instance")?;
        assert_eq!(instance.server, Some(server));
        assert_eq!(store.routes_of(new.id).await?.len(), 2);
        assert!(store.operation(new.operation).await?.is_some());
        assert!(store.document_for(server).await?.is_some());
        store
            .delete_instance(new.id, operation_id(100 + number), at(8), at(8))
            .await?;
    }
    assert_eq!(count(&*store, "instance.created").await?, 40);
    assert!(
        created > 0 && cut > 0,
        "of 40, {created} were created and {cut} interrupted: both must happen"
    );
    Ok(())
}

pub async fn a_server_is_a_destination_from_its_boot_on_and_its_names_come_and_go<S: Store>(
    store: Arc<S>,
) -> Outcome {
    store.plan_server(&new_server(1), at(0)).await?;
    assert_eq!(store.destinations().await?, []);
    booting(&*store, 2).await?;
    let standing = |hosts: &[String]| Destination {
        upstream: upstream(2),
        hosts: hosts.to_vec(),
    };
    assert_eq!(store.destinations().await?, [standing(&[])]);
    let holder = coordinator_id(1);
    store
        .open_session(server_id(2), "2026.9.6", holder, at(3))
        .await?;
    store.record_report(server_id(2), &report(0), at(4)).await?;
    let id = store.create_instance(&new_instance(2), at(5)).await?.id;
    let mut found = store.destinations().await?;
    for one in &mut found {
        one.hosts.sort();
    }
    let hosts = [host(2), format!("www.{}", host(2))];
    assert_eq!(found, [standing(&hosts)]);
    store
        .delete_instance(id, operation_id(101), at(99), at(6))
        .await?;
    assert_eq!(store.destinations().await?, [standing(&[])]);
    store.purge_instance(id, at(99), at(99)).await?;
    assert_eq!(store.destinations().await?, []);
    Ok(())
}

pub async fn a_door_that_was_given_is_known_wherever_routes_lead_to_it<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = claimed(&*store, 1).await?.id;
    claimed(&*store, 2).await?;
    let doors = async || -> Result<Vec<Door>, StoreError> {
        let mut doors: Vec<_> = (store.routes_of(id).await?.iter())
            .filter_map(|route| route.upstream)
            .collect();
        doors.extend(store.routes().await?.iter().filter_map(|it| it.upstream));
        doors.extend(store.destinations().await?.iter().map(|to| to.upstream));
        doors.retain(|upstream| upstream.server == server_id(1));
        Ok(doors.iter().map(|upstream| upstream.door).collect())
    };
    assert_eq!(doors().await?, [Door::Open; 5]);
    assert_eq!(store.record_door(server_id(1)).await?, Transition::Done);
    assert_eq!(doors().await?, [Door::Mutual; 5]);
    let again = store.record_door(server_id(1)).await?;
    assert_eq!(again, Transition::NotPossible);
    let other = store.destinations().await?;
    let mut other = other.iter().map(|to| to.upstream);
    assert!(other.any(|to| to == upstream(2)), "the other one is open");
    Ok(())
}
