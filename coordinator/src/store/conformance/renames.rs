//! Another name: both lead to the instance, and nobody else gets the old one.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;

use super::{
    Outcome,
    world::{
        at, hash, host, instance_id, new_instance, operation_id, rename, report, running, server_id,
    },
};
use crate::{
    model::{OperationKind, OperationState},
    store::{ChangeRefused, CreateRefused, Store, Transition},
};

pub async fn a_renamed_instance_is_found_by_its_new_name_and_the_old_one_leads_there<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    store.create_login_link(hash(1), id, at(99), at(8)).await?;
    store
        .redeem_login_link(hash(1), id, hash(11), at(99), at(8))
        .await?;
    let before = store.instance(id).await?.context("none")?;
    let renamed = store
        .rename_instance(&rename(1, 2, "other", at(50)), at(9))
        .await?;
    assert_eq!(renamed.name, "other");
    assert_eq!(renamed.url, "https://other.example");
    assert_eq!(renamed.generation.0, 2);
    assert_eq!(store.instance_named(&before.name).await?, None);
    assert_eq!(
        store.instance_named("other").await?.map(|it| it.id),
        Some(id)
    );
    assert_eq!(store.session(hash(11), at(10)).await?, None);
    let routes = store.routes_of(id).await?;
    let moved: BTreeMap<_, _> = routes
        .iter()
        .map(|route| (route.host.as_str(), route.moved_to.as_deref()))
        .collect();
    let there = Some("https://other.example");
    let wanted = [
        ("other.example", None),
        ("a1.localhost", there),
        ("www.a1.localhost", there),
    ];
    assert_eq!(moved, BTreeMap::from(wanted));
    assert!(routes.iter().all(|route| route.is_renaming));
    let destinations = store.destinations().await?;
    let hosts: Vec<_> = destinations.iter().flat_map(|to| &to.hosts).collect();
    assert_eq!(hosts, ["other.example"]);
    let operation = store.operation(operation_id(102)).await?.context("none")?;
    assert_eq!(operation.kind, OperationKind::Rename);
    assert_eq!(operation.state, OperationState::Running);
    // Its server has said that it serves the new name.
    store
        .record_report(server_id(1), &report(2), at(10))
        .await?;
    let routes = store.routes().await?;
    assert!(!routes.is_empty() && routes.iter().all(|route| !route.is_renaming));
    Ok(())
}

pub async fn an_old_name_is_nobody_elses_until_it_has_expired<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    let renamed = rename(1, 2, "other", at(50));
    store.rename_instance(&renamed, at(9)).await?;
    let mut new = new_instance(2);
    new.hosts = vec![host(1)];
    let refused = store.create_instance(&new, at(10)).await;
    assert!(
        matches!(refused, Err(CreateRefused::NameTaken)),
        "{refused:?}"
    );
    // Nor when it is deleted: it may come back, and its old name's bookmarks are still about.
    store
        .delete_instance(id, operation_id(101), at(11), at(11))
        .await?;
    assert!(store.routes_of(id).await?.is_empty());
    store.forget_expired(at(49)).await?;
    let refused = store.create_instance(&new, at(49)).await;
    assert!(refused.is_err());
    store.forget_expired(at(50)).await?;
    store.create_instance(&new, at(51)).await?;
    Ok(())
}

pub async fn a_name_that_somebody_has_or_had_lately_is_refused_and_nothing_changes<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    let other = running(&*store, 2).await?;
    let before = (store.instance(id).await?, store.routes_of(id).await?);
    let mut taken = rename(1, 2, "instance-2", at(50));
    taken.hosts = vec![host(2)];
    let refused = store.rename_instance(&taken, at(9)).await;
    assert!(
        matches!(refused, Err(ChangeRefused::NameTaken)),
        "{refused:?}"
    );
    // Deleted, it has no route any more, and may come back all the same.
    store
        .delete_instance(other, operation_id(101), at(90), at(9))
        .await?;
    let name = store.instance(other).await?.context("none")?.name;
    let kept = rename(1, 2, &name, at(50));
    let refused = store.rename_instance(&kept, at(10)).await;
    assert!(
        matches!(refused, Err(ChangeRefused::NameTaken)),
        "{refused:?}"
    );
    assert_eq!(
        (store.instance(id).await?, store.routes_of(id).await?),
        before
    );
    Ok(())
}

pub async fn an_instance_may_have_its_old_name_back<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    let name = store.instance(id).await?.context("none")?.name;
    store
        .rename_instance(&rename(1, 2, "other", at(50)), at(9))
        .await?;
    // The change before it is over.
    store
        .delete_instance(id, operation_id(101), at(90), at(10))
        .await?;
    assert!(store.routes_of(id).await?.is_empty());
    let mut undelete = rename(1, 4, "other", at(50)).change;
    undelete.kind = OperationKind::Undelete;
    store.undelete_instance(&undelete, at(11)).await?;
    assert_eq!(store.mark_running(id, &[], at(12)).await?, Transition::Done);
    let mut back = rename(1, 5, &name, at(60));
    back.hosts = vec![host(1)];
    store.rename_instance(&back, at(13)).await?;
    let renamed = store.instance(instance_id(1)).await?.context("none")?;
    assert_eq!(renamed.name, name);
    let routes = store.routes_of(id).await?;
    let leads = |host: &str| {
        let route = routes.iter().find(|route| route.host == host);
        route.map(|route| route.moved_to.is_some())
    };
    assert_eq!(leads("other.example"), Some(true));
    assert_eq!(leads(&self::host(1)), Some(false));
    Ok(())
}

pub async fn an_instance_keeps_only_so_many_names_from_others<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    // It began with two hosts.
    for number in 2..=9 {
        if number > 2 {
            store
                .record_report(server_id(1), &report(number - 1), at(9))
                .await?;
        }
        let generation = u8::try_from(number)?;
        let renamed = rename(1, generation, &format!("name-{number}"), at(50));
        let outcome = store.rename_instance(&renamed, at(9)).await;
        if number < 9 {
            outcome?;
        } else {
            let refused = outcome.err();
            assert!(
                matches!(refused, Some(ChangeRefused::TooManyNames(8))),
                "{refused:?}"
            );
        }
    }
    store.forget_expired(at(50)).await?;
    assert_eq!(store.routes_of(id).await?.len(), 1);
    store
        .rename_instance(&rename(1, 9, "name-9", at(90)), at(51))
        .await?;
    Ok(())
}
