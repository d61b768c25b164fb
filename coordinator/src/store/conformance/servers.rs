//! A server's life, and its place in the trust table.

use std::sync::Arc;

use anyhow::Context as _;

use super::{
    Outcome,
    world::{
        address, at, booting, change, claimed, cloud_id, coordinator_id, count, made, new_server,
        operation_id, pool, running, server_id, warm,
    },
};
use crate::{
    cloud::CloudServer,
    model::{Blame, DocumentChange, InstanceStatus, OperationKind, OperationState, ServerState},
    store::{Store, Transition},
};

pub async fn a_planned_server_reads_back_as_planned<S: Store>(store: Arc<S>) -> Outcome {
    store.plan_server(&new_server(1), at(0)).await?;
    let server = store.server(server_id(1)).await?.context("no server")?;
    assert_eq!(server.id, server_id(1));
    assert_eq!(server.name, "tp-1");
    assert_eq!(server.pool, pool());
    assert_eq!(server.placement, new_server(1).placement);
    assert_eq!(server.state, ServerState::Planned);
    assert_eq!((server.epoch, server.address), (0, None));
    assert_eq!((server.created_at, server.state_since), (at(0), at(0)));
    assert!(!server.revoked);
    Ok(())
}

pub async fn a_name_is_used_once_for_ever<S: Store>(store: Arc<S>) -> Outcome {
    let first = new_server(1);
    store.plan_server(&first, at(0)).await?;
    store.retire_unclaimed(first.id, at(1)).await?;
    store.mark_deleting(first.id, at(2)).await?;
    store.mark_gone(first.id, at(3)).await?;
    let mut second = new_server(2);
    second.name = first.name;
    assert!(store.plan_server(&second, at(4)).await.is_err());
    assert_eq!(store.server(second.id).await?, None);
    Ok(())
}

pub async fn creating_follows_planned_and_may_be_repeated<S: Store>(store: Arc<S>) -> Outcome {
    let id = server_id(1);
    store.plan_server(&new_server(1), at(0)).await?;
    assert_eq!(store.mark_creating(id, at(1)).await?, Transition::Done);
    assert_eq!(store.mark_creating(id, at(2)).await?, Transition::Done);
    let server = store.server(id).await?.context("no server")?;
    assert_eq!(
        (server.state, server.state_since),
        (ServerState::Creating, at(1))
    );
    store.record_created(id, &made(1), at(3)).await?;
    assert_eq!(
        store.mark_creating(id, at(4)).await?,
        Transition::NotPossible
    );
    Ok(())
}

pub async fn a_created_server_boots_and_is_trusted_without_an_instance<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = booting(&*store, 1).await?;
    let server = store.server(id).await?.context("no server")?;
    assert_eq!(server.state, ServerState::Booting);
    assert_eq!(server.cloud_id, Some(cloud_id(1)));
    assert_eq!(server.address, Some(address(1)));
    assert_eq!(store.trusted(address(1)).await?, Some((id, None)));
    assert_eq!(store.trusted(address(2)).await?, None);
    Ok(())
}

pub async fn recording_the_same_facts_again_is_done_other_facts_are_not_possible<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = booting(&*store, 1).await?;
    let made = made(1);
    let again = store.record_created(id, &made, at(9));
    assert_eq!(again.await?, Transition::Done);
    let elsewhere = CloudServer {
        address: address(2),
        ..made.clone()
    };
    let other = store.record_created(id, &elsewhere, at(9));
    assert_eq!(other.await?, Transition::NotPossible);
    assert_eq!(store.trusted(address(2)).await?, None);
    assert_eq!(count(&*store, "server.booting").await?, 1);
    store.retire_unclaimed(id, at(10)).await?;
    let late = store.record_created(id, &made, at(11));
    assert_eq!(late.await?, Transition::NotPossible);
    assert_eq!(store.trusted(address(1)).await?, None);
    Ok(())
}

pub async fn an_address_is_trusted_for_one_server_only<S: Store>(store: Arc<S>) -> Outcome {
    let first = booting(&*store, 1).await?;
    store.plan_server(&new_server(2), at(0)).await?;
    let second = store.record_created(server_id(2), &made(1), at(9)).await;
    assert!(second.is_err());
    assert_eq!(store.trusted(address(1)).await?, Some((first, None)));
    let server = store.server(server_id(2)).await?.context("no server")?;
    assert_eq!(server.state, ServerState::Planned);
    Ok(())
}

pub async fn a_mapped_address_is_the_same_address<S: Store>(store: Arc<S>) -> Outcome {
    let id = booting(&*store, 1).await?;
    let mapped = "::ffff:10.0.0.1".parse()?;
    assert_eq!(store.trusted(mapped).await?, Some((id, None)));
    Ok(())
}

pub async fn each_session_raises_the_epoch<S: Store>(store: Arc<S>) -> Outcome {
    let id = booting(&*store, 1).await?;
    let (first, _) = store
        .open_session(id, "1", coordinator_id(1), at(3))
        .await?
        .context("first")?;
    let (second, server) = store
        .open_session(id, "2", coordinator_id(1), at(4))
        .await?
        .context("second")?;
    assert_eq!((first, second, server.epoch), (1, 2, 2));
    assert_eq!(server.openclaw_version.as_deref(), Some("2"));
    assert_eq!(store.server(id).await?, Some(server));
    Ok(())
}

pub async fn a_session_names_its_holder_until_it_is_closed<S: Store>(store: Arc<S>) -> Outcome {
    let id = booting(&*store, 1).await?;
    let server = store.server(id).await?.context("no server")?;
    assert_eq!(server.holder, None);
    let opened = store
        .open_session(id, "1", coordinator_id(7), at(3))
        .await?;
    let (epoch, server) = opened.context("no session")?;
    assert_eq!(server.holder, Some(coordinator_id(7)));
    store.close_session(id, epoch).await?;
    let server = store.server(id).await?.context("no server")?;
    assert_eq!((server.holder, server.epoch), (None, epoch));
    Ok(())
}

pub async fn the_end_of_an_old_session_leaves_the_new_ones_holder<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = booting(&*store, 1).await?;
    let opened = store
        .open_session(id, "1", coordinator_id(7), at(3))
        .await?;
    let (old, _) = opened.context("no session")?;
    store
        .open_session(id, "1", coordinator_id(8), at(4))
        .await?
        .context("no session")?;
    store.close_session(id, old).await?;
    let server = store.server(id).await?.context("no server")?;
    assert_eq!(server.holder, Some(coordinator_id(8)));
    Ok(())
}

pub async fn an_unknown_or_revoked_server_gets_no_session<S: Store>(store: Arc<S>) -> Outcome {
    assert_eq!(
        store
            .open_session(server_id(9), "1", coordinator_id(1), at(3))
            .await?,
        None
    );
    let id = booting(&*store, 1).await?;
    store.revoke(id, at(3)).await?;
    assert_eq!(
        store
            .open_session(id, "1", coordinator_id(1), at(4))
            .await?,
        None
    );
    let server = store.server(id).await?.context("no server")?;
    assert!(server.revoked);
    Ok(())
}

pub async fn a_revoked_server_is_out_of_trust_and_no_route_leads_to_it<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let instance = claimed(&*store, 1).await?.id;
    let other = claimed(&*store, 2).await?.id;
    store.revoke(server_id(1), at(6)).await?;
    assert_eq!(store.trusted(address(1)).await?, None);
    let routes = store.routes_of(instance).await?;
    assert_eq!(routes.len(), 2, "the names stay the instance's");
    assert!(routes.iter().all(|route| route.upstream.is_none()));
    let all = store.routes().await?;
    assert!(
        all.iter()
            .all(|route| route.upstream.is_some() == (route.instance == other))
    );
    let destinations = store.destinations().await?;
    let led: Vec<_> = destinations.iter().map(|to| to.upstream.server).collect();
    assert_eq!(led, [server_id(2)]);
    assert!(store.trusted(address(2)).await?.is_some());
    Ok(())
}

pub async fn a_server_that_is_revoked_before_it_has_an_address_is_never_trusted<S: Store>(
    store: Arc<S>,
) -> Outcome {
    store.plan_server(&new_server(1), at(0)).await?;
    store.mark_creating(server_id(1), at(1)).await?;
    store.revoke(server_id(1), at(2)).await?;
    let created = store.record_created(server_id(1), &made(1), at(3)).await?;
    assert_eq!(created, Transition::Done);
    assert_eq!(store.trusted(address(1)).await?, None);
    Ok(())
}

pub async fn a_server_past_claimed_gets_no_session<S: Store>(store: Arc<S>) -> Outcome {
    let id = claimed(&*store, 1).await?.id;
    let server = server_id(1);
    assert!(
        store
            .open_session(server, "1", coordinator_id(1), at(6))
            .await?
            .is_some()
    );
    store
        .delete_instance(id, operation_id(101), at(7), at(7))
        .await?;
    assert_eq!(
        store
            .open_session(server, "1", coordinator_id(1), at(8))
            .await?,
        None
    );
    Ok(())
}

pub async fn a_failed_server_is_out_of_trust_and_is_deleted_by_way_of_deleting<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = warm(&*store, 1).await?;
    assert_eq!(
        store.mark_failed(id, "lost", Blame::Server, at(5)).await?,
        Transition::Done
    );
    let again = store.mark_failed(id, "again", Blame::Server, at(6)).await?;
    assert_eq!(again, Transition::NotPossible);
    let server = store.server(id).await?.context("no server")?;
    assert_eq!(server.failure.as_deref(), Some("lost"));
    assert_eq!(store.trusted(address(1)).await?, None);
    assert_eq!(store.mark_deleting(id, at(7)).await?, Transition::Done);
    assert_eq!(store.mark_gone(id, at(8)).await?, Transition::Done);
    assert_eq!(store.mark_gone(id, at(9)).await?, Transition::NotPossible);
    Ok(())
}

pub async fn whatever_is_not_claimed_can_be_retired_once<S: Store>(store: Arc<S>) -> Outcome {
    store.plan_server(&new_server(1), at(0)).await?;
    store.plan_server(&new_server(2), at(0)).await?;
    store.mark_creating(server_id(2), at(1)).await?;
    booting(&*store, 3).await?;
    warm(&*store, 4).await?;
    warm(&*store, 5).await?;
    store
        .mark_failed(server_id(5), "lost", Blame::Server, at(5))
        .await?;
    for number in 1..=5 {
        let id = server_id(number);
        assert_eq!(store.retire_unclaimed(id, at(6)).await?, Transition::Done);
        let again = store.retire_unclaimed(id, at(7)).await?;
        assert_eq!(again, Transition::NotPossible);
        assert_eq!(store.trusted(address(number)).await?, None);
        let server = store.server(id).await?.context("no server")?;
        assert_eq!(server.state, ServerState::Draining);
    }
    let unknown = store.retire_unclaimed(server_id(9), at(8)).await?;
    assert_eq!(unknown, Transition::NotPossible);
    Ok(())
}

pub async fn a_claimed_server_is_neither_retired_nor_failed<S: Store>(store: Arc<S>) -> Outcome {
    let instance = claimed(&*store, 1).await?;
    let id = server_id(1);
    let retired = store.retire_unclaimed(id, at(6)).await?;
    let failed = store.mark_failed(id, "no", Blame::Server, at(6)).await?;
    let deleting = store.mark_deleting(id, at(6)).await?;
    assert_eq!([retired, failed, deleting], [Transition::NotPossible; 3]);
    let trusted = store.trusted(address(1)).await?;
    assert_eq!(trusted, Some((id, Some(instance.id))));
    Ok(())
}

pub async fn a_server_does_not_skip_draining_on_its_way_out<S: Store>(store: Arc<S>) -> Outcome {
    let id = warm(&*store, 1).await?;
    assert_eq!(
        store.mark_deleting(id, at(5)).await?,
        Transition::NotPossible
    );
    assert_eq!(store.mark_gone(id, at(5)).await?, Transition::NotPossible);
    store.retire_unclaimed(id, at(6)).await?;
    assert_eq!(store.mark_gone(id, at(7)).await?, Transition::NotPossible);
    assert_eq!(store.mark_deleting(id, at(8)).await?, Transition::Done);
    let again = store.mark_deleting(id, at(9)).await?;
    assert_eq!(again, Transition::NotPossible);
    Ok(())
}

pub async fn gone_servers_leave_the_list_and_the_rest_is_oldest_first<S: Store>(
    store: Arc<S>,
) -> Outcome {
    store.plan_server(&new_server(3), at(1)).await?;
    store.plan_server(&new_server(2), at(2)).await?;
    store.plan_server(&new_server(1), at(3)).await?;
    let gone = server_id(2);
    store.retire_unclaimed(gone, at(4)).await?;
    store.mark_deleting(gone, at(5)).await?;
    store.mark_gone(gone, at(6)).await?;
    let left: Vec<_> = store.servers().await?.iter().map(|it| it.id).collect();
    assert_eq!(left, [server_id(3), server_id(1)]);
    let server = store.server(gone).await?.context("forgotten")?;
    assert_eq!(server.state, ServerState::Gone);
    Ok(())
}

pub async fn a_lost_server_that_is_nobodys_has_failed_and_is_out_of_trust<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = warm(&*store, 1).await?;
    assert_eq!(
        store.mark_lost(id, "not there", at(9)).await?,
        Transition::Done
    );
    let server = store.server(id).await?.context("no server")?;
    assert_eq!(server.state, ServerState::Failed);
    assert_eq!(server.failure.as_deref(), Some("not there"));
    assert_eq!(store.trusted(address(1)).await?, None);
    assert_eq!(count(&*store, "server.lost").await?, 1);
    let again = store.mark_lost(id, "not there", at(10)).await?;
    assert_eq!(again, Transition::NotPossible);
    Ok(())
}

pub async fn the_instance_of_a_lost_server_has_failed_and_has_none<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let instance = running(&*store, 1).await?;
    let upgrade = DocumentChange {
        kind: OperationKind::Upgrade,
        ..change(1, 2)
    };
    store.change_document(&upgrade, at(8)).await?;
    store.mark_lost(server_id(1), "not there", at(9)).await?;
    let under_way = store.operation(operation_id(102)).await?.context("none")?;
    assert_eq!(under_way.state, OperationState::Failed);
    assert_eq!(under_way.error.as_deref(), Some("not there"));
    let server = store.server(server_id(1)).await?.context("no server")?;
    assert_eq!(server.state, ServerState::Draining);
    assert_eq!(store.trusted(address(1)).await?, None);
    let after = store.instance(instance).await?.context("no instance")?;
    assert_eq!(after.status, InstanceStatus::Failed);
    assert_eq!(after.server, None);
    assert_eq!(after.problem.as_deref(), Some("not there"));
    let routes = store.routes_of(instance).await?;
    assert!(routes.iter().all(|route| route.upstream.is_none()));
    Ok(())
}
