//! Customers' own names: asked for by many, held by one, and leading somewhere only while they are served.

use std::sync::Arc;

use anyhow::Context as _;
use tidepool_shared::{id::InstanceId, sealed_place::SealedPlace};

use super::{
    Outcome,
    world::{
        at, change, count, instance_id, operation_id, purged, rename, report, running, server_id,
    },
};
use crate::{
    ambient::Moment,
    model::{Certificate, DocumentChange, DomainState, DomainStep, Validity},
    store::{
        DOMAIN_RESTS, DOMAINS_MAX, DomainRefused, ORDERS_OF_ALL, ORDERS_OF_INSTANCE, OrdersSpent,
        Store, Transition,
    },
};

const CHAT: &str = "chat.example";

fn step(instance: InstanceId, from: DomainState, to: DomainState, next: Moment) -> DomainStep {
    DomainStep {
        name: CHAT.to_owned(),
        instance,
        from,
        to,
        problem: None,
        attempts: 0,
        failing_since: None,
        next_check_at: Some(next),
        events: vec!["domain.moved"],
    }
}

fn certificate(instance: InstanceId, issued: u64) -> Certificate {
    Certificate {
        name: CHAT.to_owned(),
        instance,
        chain: format!("chain-{issued}"),
        sealed_key: b"sealed".to_vec(),
        validity: Validity {
            issued_at: at(issued),
            expires_at: at(issued + 100),
        },
    }
}

/// Asks for the name, and moves it on to a state.
async fn asked<S: Store>(store: &S, instance: InstanceId, to: &[DomainState]) -> Outcome {
    store.add_domain(CHAT, instance, "token", at(8)).await?;
    let mut from = DomainState::PendingDns;
    for to in to {
        let moved = store
            .move_domain(&step(instance, from, *to, at(9)), at(9))
            .await?;
        anyhow::ensure!(moved == Transition::Done, "{from:?} -> {to:?}");
        from = *to;
    }
    Ok(())
}

async fn hosts<S: Store>(store: &S, id: InstanceId) -> anyhow::Result<Vec<String>> {
    let routes = store.routes_of(id).await?;
    let mut hosts: Vec<_> = routes.into_iter().map(|route| route.host).collect();
    hosts.sort();
    Ok(hosts)
}

const OWN: [&str; 2] = ["a1.localhost", "www.a1.localhost"];

pub async fn a_name_is_asked_for_by_many_and_held_by_one<S: Store>(store: Arc<S>) -> Outcome {
    let [one, two] = [running(&*store, 1).await?, running(&*store, 2).await?];
    let added = store.add_domain(CHAT, one, "token-1", at(8)).await?;
    assert_eq!(added.state, DomainState::PendingDns);
    assert_eq!(added.next_check_at, Some(at(8)));
    store.add_domain(CHAT, two, "token-2", at(9)).await?;
    let again = store.add_domain(CHAT, one, "token-3", at(9)).await;
    assert!(matches!(again, Err(DomainRefused::Taken)), "{again:?}");
    let own = store.add_domain(OWN[0], two, "token", at(9)).await;
    assert!(matches!(own, Err(DomainRefused::Taken)), "{own:?}");
    assert_eq!(store.domain_holder(CHAT).await?, None);
    let proven = |of| step(of, DomainState::PendingDns, DomainState::Issuing, at(10));
    assert_eq!(
        store.move_domain(&proven(one), at(10)).await?,
        Transition::Done
    );
    // What was seen is not so any more.
    assert_eq!(
        store.move_domain(&proven(one), at(10)).await?,
        Transition::NotPossible
    );
    assert_eq!(
        store.move_domain(&proven(two), at(10)).await?,
        Transition::NotPossible
    );
    let holder = store.domain_holder(CHAT).await?.context("none")?;
    assert_eq!((holder.instance, holder.token.as_str()), (one, "token-1"));
    let given_up = step(one, DomainState::Issuing, DomainState::Failed, at(11));
    store.move_domain(&given_up, at(11)).await?;
    assert_eq!(
        store.move_domain(&proven(two), at(12)).await?,
        Transition::Done
    );
    let rested = at(11).plus(DOMAIN_RESTS);
    assert_eq!(
        store.check_domain(CHAT, one, at(13)).await?,
        Transition::NotPossible
    );
    assert_eq!(
        store.check_domain(CHAT, one, rested).await?,
        Transition::Done
    );
    let begun_anew = store.domain(CHAT, one).await?.context("none")?;
    assert_eq!(begun_anew.state, DomainState::PendingDns);
    assert_eq!(
        (begun_anew.state_since, begun_anew.next_check_at),
        (rested, Some(rested))
    );
    assert_eq!(count(&*store, "domain.added").await?, 2);
    assert_eq!(count(&*store, "domain.moved").await?, 3);
    Ok(())
}

pub async fn of_two_who_prove_a_name_at_once_one_holds_it<S: Store>(store: Arc<S>) -> Outcome {
    let ids = [running(&*store, 1).await?, running(&*store, 2).await?];
    for id in ids {
        store.add_domain(CHAT, id, "token", at(8)).await?;
    }
    let prove = async |id| {
        let step = step(id, DomainState::PendingDns, DomainState::Issuing, at(9));
        store.move_domain(&step, at(9)).await
    };
    let (one, two) = tokio::join!(prove(ids[0]), prove(ids[1]));
    // With a unique index behind it the loser may meet an error instead.
    let won = [one, two].map(|moved| matches!(moved, Ok(Transition::Done)));
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    Ok(())
}

pub async fn a_name_leads_to_its_instance_only_while_it_is_served<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    asked(&*store, id, &[DomainState::Issuing]).await?;
    assert_eq!(hosts(&*store, id).await?, OWN);
    let active = step(id, DomainState::Issuing, DomainState::Active, at(10));
    store.move_domain(&active, at(10)).await?;
    let all = [OWN[0], CHAT, OWN[1]];
    assert_eq!(hosts(&*store, id).await?, all);
    assert_eq!(store.routes().await?.len(), 3);
    // Traefik's own routes are for our names only.
    let destinations = store.destinations().await?;
    let mut led: Vec<_> = destinations.into_iter().flat_map(|to| to.hosts).collect();
    led.sort();
    assert_eq!(led, OWN);
    let expiring = step(id, DomainState::Active, DomainState::Expiring, at(11));
    store.move_domain(&expiring, at(11)).await?;
    assert_eq!(hosts(&*store, id).await?, all);
    // Another name of ours leaves it alone.
    store
        .rename_instance(&rename(1, 2, "other", at(50)), at(12))
        .await?;
    let routes = store.routes_of(id).await?;
    let chat = routes.iter().find(|route| route.host == CHAT);
    assert_eq!(chat.context("none")?.moved_to, None);
    assert_eq!(
        store.remove_domain(CHAT, id, at(13)).await?,
        Transition::Done
    );
    assert_eq!(
        store.remove_domain(CHAT, id, at(13)).await?,
        Transition::NotPossible
    );
    assert!(!hosts(&*store, id).await?.contains(&CHAT.to_owned()));
    Ok(())
}

pub async fn an_instance_asks_for_so_many_names_and_no_more<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    for number in 0..DOMAINS_MAX {
        let name = format!("{number}.example");
        store.add_domain(&name, id, "token", at(8)).await?;
    }
    let refused = store.add_domain(CHAT, id, "token", at(9)).await;
    assert!(
        matches!(refused, Err(DomainRefused::TooMany)),
        "{refused:?}"
    );
    let nobody = store.add_domain(CHAT, instance_id(9), "token", at(9)).await;
    assert!(matches!(nobody, Err(DomainRefused::NotFound)), "{nobody:?}");
    let all = store.domains_of(id).await?;
    assert_eq!(all.len(), usize::try_from(DOMAINS_MAX)?);
    Ok(())
}

pub async fn whatever_is_due_is_looked_at_unless_its_instance_is_deleted<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    store.add_domain(CHAT, id, "token", at(20)).await?;
    store.add_domain("b.example", id, "token", at(10)).await?;
    let due = async |now| {
        let due = store.due_domains(at(now), 10).await?;
        let names = due.into_iter().map(|domain| domain.name);
        anyhow::Ok(names.collect::<Vec<_>>())
    };
    assert_eq!(due(9).await?, Vec::<String>::new());
    assert_eq!(due(10).await?, ["b.example"]);
    assert_eq!(due(20).await?, ["b.example", CHAT]);
    let mut parked = step(id, DomainState::PendingDns, DomainState::Failed, at(0));
    parked.next_check_at = None;
    store.move_domain(&parked, at(21)).await?;
    assert_eq!(due(99).await?, ["b.example"]);
    store
        .delete_instance(id, operation_id(99), at(90), at(30))
        .await?;
    assert_eq!(due(99).await?, Vec::<String>::new());
    assert_eq!(store.domains_of(id).await?.len(), 2);
    Ok(())
}

pub async fn an_order_that_failed_waits_for_its_time_whoever_asks<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    asked(&*store, id, &[DomainState::Issuing]).await?;
    let next = async |asked| {
        store.check_domain(CHAT, id, at(asked)).await?;
        let domain = store.domain(CHAT, id).await?.context("none")?;
        anyhow::Ok((domain.attempts, domain.next_check_at))
    };
    assert_eq!(next(10).await?, (0, Some(at(10))));
    let mut failed = step(id, DomainState::Issuing, DomainState::Issuing, at(300));
    failed.attempts = 2;
    store.move_domain(&failed, at(11)).await?;
    assert_eq!(next(12).await?, (2, Some(at(300))));
    let looked_for = DomainStep {
        to: DomainState::PendingDns,
        ..failed
    };
    store.move_domain(&looked_for, at(13)).await?;
    assert_eq!(next(14).await?, (0, Some(at(14))));
    Ok(())
}

pub async fn orders_are_counted_for_each_instance_and_for_all<S: Store>(store: Arc<S>) -> Outcome {
    let [one, two] = [running(&*store, 1).await?, running(&*store, 2).await?];
    store.add_domain(CHAT, one, "token", at(8)).await?;
    for number in 0..ORDERS_OF_INSTANCE.orders {
        let begun = store.begin_order(one, at(10 + u64::from(number))).await?;
        assert_eq!(begun, Ok(()));
    }
    let spent = OrdersSpent {
        limit: ORDERS_OF_INSTANCE,
        until: at(10).plus(ORDERS_OF_INSTANCE.within),
    };
    // Whatever becomes of the domain.
    store.remove_domain(CHAT, one, at(50)).await?;
    store.forget_expired(at(50)).await?;
    assert_eq!(store.begin_order(one, at(50)).await?, Err(spent));
    assert_eq!(store.begin_order(two, at(50)).await?, Ok(()));
    store.forget_expired(spent.until).await?;
    assert_eq!(store.begin_order(one, spent.until).await?, Ok(()));
    assert_eq!(
        store
            .begin_order(one, spent.until)
            .await?
            .map_err(|it| it.until),
        Err(at(11).plus(ORDERS_OF_INSTANCE.within))
    );
    let later = at(0).plus(ORDERS_OF_INSTANCE.within * 3);
    for number in 0..ORDERS_OF_ALL.orders {
        let id = instance_id(u8::try_from(number)?);
        assert_eq!(store.begin_order(id, later).await?, Ok(()));
    }
    let spent = OrdersSpent {
        limit: ORDERS_OF_ALL,
        until: later.plus(ORDERS_OF_ALL.within),
    };
    assert_eq!(store.begin_order(two, later).await?, Err(spent));
    assert_eq!(store.begin_order(two, spent.until).await?, Ok(()));
    Ok(())
}

pub async fn a_purged_instance_has_no_names_and_a_deleted_one_keeps_them<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let [one, two] = [running(&*store, 1).await?, running(&*store, 2).await?];
    asked(&*store, one, &[DomainState::Issuing, DomainState::Active]).await?;
    store
        .delete_instance(one, operation_id(98), at(90), at(20))
        .await?;
    assert_eq!(store.routes_of(one).await?, Vec::new());
    store.add_domain(CHAT, two, "token", at(21)).await?;
    let proven = step(two, DomainState::PendingDns, DomainState::Issuing, at(22));
    assert_eq!(
        store.move_domain(&proven, at(22)).await?,
        Transition::NotPossible
    );
    store.purge_instance(one, at(90), at(90)).await?;
    assert_eq!(store.domains_of(one).await?, Vec::new());
    assert_eq!(store.move_domain(&proven, at(91)).await?, Transition::Done);
    purged(&*store, two).await?;
    assert_eq!(store.domain_holder(CHAT).await?, None);
    Ok(())
}

pub async fn a_certificate_is_of_a_proven_name_and_shown_while_it_is_served<S: Store>(
    store: Arc<S>,
) -> Outcome {
    let id = running(&*store, 1).await?;
    asked(&*store, id, &[]).await?;
    let early = store.put_certificate(&certificate(id, 1), at(9)).await?;
    assert_eq!(early, Transition::NotPossible);
    let proven = step(id, DomainState::PendingDns, DomainState::Issuing, at(9));
    store.move_domain(&proven, at(9)).await?;
    store.put_certificate(&certificate(id, 1), at(15)).await?;
    assert_eq!(store.certificate_marks(None).await?, Vec::new());
    let domain = store.domain(CHAT, id).await?.context("none")?;
    assert_eq!(domain.certificate, Some(certificate(id, 1).validity));
    assert_eq!(domain.next_check_at, Some(at(15)));
    let active = step(id, DomainState::Issuing, DomainState::Active, at(10));
    store.move_domain(&active, at(10)).await?;
    store.put_certificate(&certificate(id, 2), at(16)).await?;
    for asked in [None, Some(id)] {
        let marks = store.certificate_marks(asked).await?;
        let marks: Vec<_> = marks
            .iter()
            .map(|mark| (&*mark.name, mark.issued_at))
            .collect();
        assert_eq!(marks, [(CHAT, at(2))]);
    }
    let others = store.certificate_marks(Some(instance_id(9))).await?;
    assert_eq!(others, Vec::new());
    assert_eq!(store.certificate(CHAT, id).await?, Some(certificate(id, 2)));
    // Its key is sealed again with everything else.
    let sealed = store.sealed().await?;
    let key = sealed.first().context("nothing is sealed")?;
    let place = SealedPlace::DomainKey {
        instance: id.to_string(),
        name: CHAT.to_owned(),
    };
    assert_eq!(key.place, place);
    assert_eq!(store.reseal(key, b"anew").await?, Transition::Done);
    assert_eq!(store.reseal(key, b"anew").await?, Transition::NotPossible);
    let kept = store.certificate(CHAT, id).await?.context("none")?;
    assert_eq!(kept.sealed_key, b"anew");
    Ok(())
}

pub async fn documents_that_are_behind_are_found<S: Store>(store: Arc<S>) -> Outcome {
    let id = running(&*store, 1).await?;
    running(&*store, 2).await?;
    asked(&*store, id, &[]).await?;
    assert_eq!(store.unserved_domains().await?, Vec::new());
    let proven = step(id, DomainState::PendingDns, DomainState::Issuing, at(9));
    store.move_domain(&proven, at(9)).await?;
    let behind = store.unserved_domains().await?;
    let [unserved] = behind.as_slice() else {
        anyhow::bail!("{behind:?}");
    };
    assert_eq!(
        (unserved.instance, unserved.wanted.as_slice()),
        (id, [CHAT.to_owned()].as_slice())
    );
    let named = |generation, domains| DocumentChange {
        domains,
        ..change(1, generation)
    };
    let served = store
        .change_document(&named(2, unserved.wanted.clone()), at(10))
        .await?;
    assert_eq!(served.domains, [CHAT]);
    assert_eq!(store.unserved_domains().await?, Vec::new());
    store
        .record_report(server_id(1), &report(2), at(11))
        .await?;
    store.remove_domain(CHAT, id, at(12)).await?;
    let behind = store.unserved_domains().await?;
    assert_eq!(behind.first().context("none")?.wanted, Vec::<String>::new());
    store.change_document(&named(3, Vec::new()), at(13)).await?;
    assert_eq!(store.unserved_domains().await?, Vec::new());
    Ok(())
}

pub async fn a_challenge_is_answered_until_it_expires_and_an_account_is_kept<S: Store>(
    store: Arc<S>,
) -> Outcome {
    for (answer, expires) in [("answer", at(20)), ("other", at(30))] {
        let kept = store.put_challenge("token", answer, expires).await?;
        assert_eq!(kept, Transition::Done);
    }
    assert_eq!(
        store.challenge("token", at(29)).await?.as_deref(),
        Some("other")
    );
    assert_eq!(store.challenge("token", at(30)).await?, None);
    assert_eq!(store.challenge("guess", at(0)).await?, None);
    store.forget_expired(at(30)).await?;
    assert_eq!(store.challenge("token", at(0)).await?, None);
    for number in 0..1000 {
        let token = number.to_string();
        let kept = store.put_challenge(&token, "answer", at(40)).await?;
        assert_eq!(kept, Transition::Done);
    }
    let refused = store.put_challenge("token", "answer", at(40)).await?;
    assert_eq!(refused, Transition::NotPossible);
    let directory = "https://ca.example/directory";
    assert_eq!(store.acme_account(directory).await?, None);
    for sealed in [b"one", b"two"] {
        store.put_acme_account(directory, sealed).await?;
    }
    assert_eq!(
        store.acme_account(directory).await?.as_deref(),
        Some(b"two".as_slice())
    );
    let sealed = store.sealed().await?;
    let account = sealed.first().context("nothing is sealed")?;
    assert_eq!(
        account.place,
        SealedPlace::AcmeAccount(directory.to_owned())
    );
    assert_eq!(store.reseal(account, b"three").await?, Transition::Done);
    Ok(())
}
