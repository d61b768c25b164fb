use std::collections::BTreeSet;

use tidepool_shared::id::InstanceId;
use uuid::Uuid;

use super::*;
use crate::model::Validity;

const DAY: Duration = Duration::from_hours(24);

fn at(days: u32) -> Moment {
    Moment(1_700_000_000_000_000).plus(DAY * days)
}

/// In this state since day 0, with a certificate of 90 days from then.
fn domain(state: DomainState) -> Domain {
    let is_certified = matches!(state, DomainState::Active | DomainState::Expiring);
    Domain {
        name: "chat.example".to_owned(),
        instance: InstanceId::new(Uuid::from_u128(1)),
        token: "token".to_owned(),
        state,
        problem: None,
        attempts: 0,
        created_at: at(0),
        state_since: at(0),
        failing_since: None,
        next_check_at: Some(at(0)),
        certificate: is_certified.then(|| Validity {
            issued_at: at(0),
            expires_at: at(90),
        }),
    }
}

fn look(is_proven: Said, leads_here: Said) -> Look {
    Look {
        is_proven,
        leads_here,
        proofs: BTreeSet::new(),
    }
}

fn well() -> Look {
    look(Said::Yes, Said::Yes)
}

fn elsewhere() -> Look {
    look(Said::Yes, Said::No("elsewhere".to_owned()))
}

fn silent() -> Look {
    look(
        Said::Nothing("silence".to_owned()),
        Said::Nothing("silence".to_owned()),
    )
}

fn step(domain: &Domain, look: &Look, now: Moment) -> DomainStep {
    match plan(domain, look, Server::NotYet, now) {
        Plan::Step(step) => step,
        Plan::Order => panic!("an order"),
    }
}

/// As it is after a step.
fn after(domain: &Domain, step: &DomainStep, now: Moment) -> Domain {
    Domain {
        state: step.to,
        problem: step.problem.clone(),
        attempts: step.attempts,
        failing_since: step.failing_since,
        next_check_at: step.next_check_at,
        state_since: if step.to == domain.state {
            domain.state_since
        } else {
            now
        },
        ..domain.clone()
    }
}

#[test]
fn a_domain_is_proven_by_both_records_and_by_nothing_less() {
    let domain = domain(DomainState::PendingDns);
    let proven = step(&domain, &well(), at(0));
    assert_eq!(proven.to, DomainState::Issuing);
    assert_eq!(proven.events, ["domain.proven"]);
    let unproven = look(Said::No("no record".to_owned()), Said::Yes);
    for (look, why) in [
        (unproven, "no record"),
        (elsewhere(), "elsewhere"),
        (silent(), "silence"),
    ] {
        let waits = step(&domain, &look, at(0));
        assert_eq!(waits.to, DomainState::PendingDns);
        assert_eq!(waits.problem.as_deref(), Some(why));
        assert_eq!(waits.events, Vec::<&str>::new());
    }
}

#[test]
fn looks_become_rarer_and_end_after_a_week() {
    let mut waiting = domain(DomainState::PendingDns);
    let mut now = at(0);
    let mut pauses = Vec::new();
    let given_up = loop {
        let waits = step(&waiting, &elsewhere(), now);
        waiting = after(&waiting, &waits, now);
        let Some(next) = waits.next_check_at else {
            break waits;
        };
        pauses.push(next.since(now));
        now = next;
    };
    assert_eq!(pauses[..3], [10, 20, 40].map(Duration::from_secs));
    assert_eq!(pauses.iter().max(), Some(&LOOK_LONGEST));
    assert_eq!(given_up.to, DomainState::Failed);
    assert_eq!(given_up.events, ["domain.failed"]);
    let took = now.since(at(0));
    assert!((GIVEN_UP_AFTER..GIVEN_UP_AFTER + LOOK_LONGEST).contains(&took));
    // Then nobody looks, until a person asks.
    assert_eq!(step(&waiting, &well(), now).next_check_at, None);
}

#[test]
fn a_proven_domain_is_active_once_it_has_a_certificate_and_its_server_answers() {
    let mut proven = domain(DomainState::Issuing);
    assert_eq!(plan(&proven, &well(), Server::Answers, at(0)), Plan::Order);
    let waits = step(&proven, &elsewhere(), at(0));
    assert_eq!(waits.to, DomainState::Issuing);
    proven.certificate = domain(DomainState::Active).certificate;
    assert_eq!(step(&proven, &well(), at(0)).to, DomainState::Issuing);
    let Plan::Step(active) = plan(&proven, &well(), Server::Answers, at(0)) else {
        panic!("an order");
    };
    assert_eq!(active.to, DomainState::Active);
    assert_eq!(active.events, ["domain.active"]);
}

#[test]
fn orders_that_fail_are_told_once_and_repeated_ever_later() {
    let mut issuing = domain(DomainState::Issuing);
    let failed = not_ordered(&issuing, "refused".to_owned(), at(0), at(0));
    assert_eq!(failed.to, DomainState::Issuing);
    assert_eq!(failed.events, ["domain.failing"]);
    assert_eq!(failed.next_check_at, Some(at(0).plus(ORDER_FIRST)));
    issuing = after(&issuing, &failed, at(0));
    let failed = not_ordered(&issuing, "refused".to_owned(), at(0), at(1));
    assert_eq!(failed.events, Vec::<&str>::new());
    assert_eq!(failed.next_check_at, Some(at(1).plus(ORDER_FIRST * 2)));
    let told_to_wait = not_ordered(&issuing, "later".to_owned(), at(2), at(1));
    assert_eq!(told_to_wait.next_check_at, Some(at(2)));
    let failed = not_ordered(&issuing, "refused".to_owned(), at(0), at(8));
    assert_eq!(
        (failed.to, failed.next_check_at),
        (DomainState::Failed, None)
    );
}

#[test]
fn a_certificate_is_renewed_when_a_third_is_left_and_told_of_when_a_sixth_is() {
    let domain = domain(DomainState::Active);
    let look = step(&domain, &well(), at(59));
    assert_eq!(
        (look.to, look.next_check_at),
        (DomainState::Active, Some(at(59).plus(ACTIVE)))
    );
    // It is looked at when that is due, and not an hour later.
    let shortly_before = at(60).minus(Duration::from_secs(7));
    let look = step(&domain, &well(), shortly_before);
    assert_eq!(look.next_check_at, Some(at(60)));
    assert_eq!(plan(&domain, &well(), Server::Answers, at(60)), Plan::Order);
    let failed = not_ordered(&domain, "refused".to_owned(), at(0), at(60));
    assert_eq!(failed.to, DomainState::Active);
    let late = after(&domain, &failed, at(60));
    let told = not_ordered(&late, "refused".to_owned(), at(0), at(75));
    assert_eq!(told.to, DomainState::Expiring);
    assert_eq!(told.events, ["domain.expiring"]);
    // Also while DNS is silent, and once.
    let told = step(&domain, &silent(), at(75));
    assert_eq!(
        (told.to, told.events.as_slice()),
        (DomainState::Expiring, ["domain.expiring"].as_slice())
    );
    let expiring = after(&domain, &told, at(75));
    let again = step(&expiring, &silent(), at(76));
    assert_eq!((again.to, again.events.len()), (DomainState::Expiring, 0));
    let renewed = renewed(&expiring, at(77));
    assert_eq!(renewed.to, DomainState::Active);
    assert_eq!(renewed.events, ["domain.renewed"]);
}

#[test]
fn a_domain_that_leads_elsewhere_is_told_of_once_and_released_after_two_weeks() {
    let mut domain = domain(DomainState::Active);
    let astray = step(&domain, &elsewhere(), at(10));
    assert_eq!(
        (astray.to, astray.events.as_slice()),
        (DomainState::Active, ["domain.failing"].as_slice())
    );
    domain = after(&domain, &astray, at(10));
    assert_eq!(step(&domain, &elsewhere(), at(11)).events.len(), 0);
    let back = step(&domain, &well(), at(11));
    assert_eq!(back.events, ["domain.recovered"]);
    assert_eq!(back.failing_since, None);
    // Silence is no proof of anything.
    let unknown = step(&domain, &silent(), at(30));
    assert_eq!(unknown.to, DomainState::Active);
    let released = step(&domain, &elsewhere(), at(24));
    assert_eq!(
        (released.to, released.next_check_at),
        (DomainState::Failed, None)
    );
}
