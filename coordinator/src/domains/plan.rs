//! What becomes of a domain: a pure function of what the store has, what DNS says and the time.

use std::time::Duration;

use super::dns::{Look, Said};
use crate::{
    ambient::Moment,
    model::{Domain, DomainState, DomainStep},
};

/// So long a domain may take from one state to the next before it is given up.
pub const GIVEN_UP_AFTER: Duration = Duration::from_hours(7 * 24);
/// So long a domain that was active may lead elsewhere before it is anybody's again.
pub const RELEASED_AFTER: Duration = Duration::from_hours(14 * 24);

/// Between looks at records that are not there yet: the first, and the longest.
const LOOK_FIRST: Duration = Duration::from_secs(10);
const LOOK_LONGEST: Duration = Duration::from_mins(10);
/// Between orders that failed. An authority counts them.
const ORDER_FIRST: Duration = Duration::from_mins(5);
const ORDER_LONGEST: Duration = Duration::from_hours(6);
/// Between looks at the server that must learn the name.
const SERVER: Duration = Duration::from_secs(1);
/// Between looks at a domain that is active, at most.
const ACTIVE: Duration = Duration::from_hours(1);
/// A certificate is renewed when a third of its time is left, and when there is a sixth somebody is told.
const RENEWED_AT: u32 = 3;
const TOLD_AT: u32 = 6;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Write this.
    Step(DomainStep),
    /// Ask for a certificate, then decide by [`not_ordered`] or [`renewed`].
    Order,
}

/// Whether the instance's server answers to the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Answers,
    NotYet,
}

/// Decides after a look.
pub(super) fn plan(domain: &Domain, look: &Look, server: Server, now: Moment) -> Plan {
    match domain.state {
        DomainState::PendingDns => Plan::Step(pending(domain, look, now)),
        DomainState::Issuing => issuing(domain, look, server, now),
        DomainState::Active | DomainState::Expiring => active(domain, look, now),
        // Only a person asks again.
        DomainState::Failed => Plan::Step(DomainStep {
            next_check_at: None,
            ..stay(domain, now)
        }),
    }
}

/// Decides after an order of a certificate failed; the next is not before `earliest`.
pub(super) fn not_ordered(
    domain: &Domain,
    why: String,
    earliest: Moment,
    now: Moment,
) -> DomainStep {
    let attempts = domain.attempts.saturating_add(1);
    let usual = now.plus(backoff(ORDER_FIRST, ORDER_LONGEST, attempts));
    let step = DomainStep {
        problem: Some(why),
        attempts,
        next_check_at: Some(usual.max(earliest)),
        events: first_time(domain, "domain.failing"),
        ..stay(domain, now)
    };
    match domain.state {
        DomainState::Issuing if is_given_up(domain, now) => failed(step),
        DomainState::Active | DomainState::Expiring => alarmed(domain, step, now),
        DomainState::PendingDns | DomainState::Issuing | DomainState::Failed => step,
    }
}

/// Decides after a certificate was renewed.
pub(super) fn renewed(domain: &Domain, now: Moment) -> DomainStep {
    DomainStep {
        to: DomainState::Active,
        events: vec!["domain.renewed"],
        ..stay(domain, now)
    }
}

/// Whether another certificate is due, for one that is there.
pub(super) fn is_renewal_due(domain: &Domain, now: Moment) -> bool {
    is_left(domain, RENEWED_AT, now)
}

fn pending(domain: &Domain, look: &Look, now: Moment) -> DomainStep {
    match (&look.is_proven, &look.leads_here) {
        (Said::Yes, Said::Yes) => DomainStep {
            to: DomainState::Issuing,
            events: vec!["domain.proven"],
            ..stay(domain, now)
        },
        (Said::No(why) | Said::Nothing(why), _) | (_, Said::No(why) | Said::Nothing(why)) => {
            waiting(domain, why.clone(), now)
        }
    }
}

fn issuing(domain: &Domain, look: &Look, server: Server, now: Moment) -> Plan {
    if let Said::No(why) | Said::Nothing(why) = &look.leads_here {
        return Plan::Step(waiting(domain, why.clone(), now));
    }
    let has_certificate = domain
        .certificate
        .is_some_and(|certificate| certificate.expires_at > now);
    if !has_certificate || is_renewal_due(domain, now) {
        return Plan::Order;
    }
    Plan::Step(match server {
        Server::Answers => DomainStep {
            to: DomainState::Active,
            next_check_at: Some(next_look(domain, ACTIVE, RENEWED_AT, now)),
            events: vec!["domain.active"],
            ..stay(domain, now)
        },
        Server::NotYet if is_given_up(domain, now) => failed(DomainStep {
            problem: Some("its server does not take the name in".to_owned()),
            ..stay(domain, now)
        }),
        Server::NotYet => DomainStep {
            next_check_at: Some(now.plus(SERVER)),
            ..stay(domain, now)
        },
    })
}

fn active(domain: &Domain, look: &Look, now: Moment) -> Plan {
    match &look.leads_here {
        // Nothing is concluded from silence.
        Said::Nothing(_) => Plan::Step(alarmed(
            domain,
            DomainStep {
                problem: domain.problem.clone(),
                attempts: domain.attempts,
                failing_since: domain.failing_since,
                next_check_at: Some(next_look(domain, LOOK_LONGEST, TOLD_AT, now)),
                ..stay(domain, now)
            },
            now,
        )),
        Said::No(why) => Plan::Step(astray(domain, why.clone(), now)),
        Said::Yes if is_renewal_due(domain, now) => Plan::Order,
        Said::Yes => {
            let recovered = domain.failing_since.is_some() || domain.problem.is_some();
            Plan::Step(DomainStep {
                to: DomainState::Active,
                next_check_at: Some(next_look(domain, ACTIVE, RENEWED_AT, now)),
                events: if recovered {
                    vec!["domain.recovered"]
                } else {
                    Vec::new()
                },
                ..stay(domain, now)
            })
        }
    }
}

/// When to look again: not later than when this part of its certificate's time is left.
fn next_look(domain: &Domain, usual: Duration, part: u32, now: Moment) -> Moment {
    let usual = now.plus(usual);
    let due = domain.certificate.map(|certificate| {
        let life = certificate.expires_at.since(certificate.issued_at);
        certificate.expires_at.minus(life / part)
    });
    due.filter(|at| *at > now).map_or(usual, |at| usual.min(at))
}

/// It does not lead here any more.
fn astray(domain: &Domain, why: String, now: Moment) -> DomainStep {
    let since = domain.failing_since.unwrap_or(now);
    let events = match domain.failing_since {
        None => vec!["domain.failing"],
        Some(_) => Vec::new(),
    };
    let step = DomainStep {
        problem: Some(why),
        attempts: domain.attempts,
        failing_since: Some(since),
        next_check_at: Some(next_look(domain, LOOK_LONGEST, TOLD_AT, now)),
        events,
        ..stay(domain, now)
    };
    if now.since(since) >= RELEASED_AFTER {
        failed(step)
    } else {
        alarmed(domain, step, now)
    }
}

/// Tells, once, that a certificate ends soon.
fn alarmed(domain: &Domain, mut step: DomainStep, now: Moment) -> DomainStep {
    if is_left(domain, TOLD_AT, now) {
        if domain.state == DomainState::Active {
            step.events.push("domain.expiring");
        }
        step.to = DomainState::Expiring;
    }
    step
}

/// Looks again later, or gives up.
fn waiting(domain: &Domain, why: String, now: Moment) -> DomainStep {
    let attempts = domain.attempts.saturating_add(1);
    let step = DomainStep {
        problem: Some(why),
        attempts,
        next_check_at: Some(now.plus(backoff(LOOK_FIRST, LOOK_LONGEST, attempts))),
        ..stay(domain, now)
    };
    if is_given_up(domain, now) {
        failed(step)
    } else {
        step
    }
}

fn failed(step: DomainStep) -> DomainStep {
    DomainStep {
        to: DomainState::Failed,
        next_check_at: None,
        events: vec!["domain.failed"],
        ..step
    }
}

/// No change but that all is well, and another look at once.
fn stay(domain: &Domain, now: Moment) -> DomainStep {
    DomainStep {
        name: domain.name.clone(),
        instance: domain.instance,
        from: domain.state,
        to: domain.state,
        problem: None,
        attempts: 0,
        failing_since: None,
        next_check_at: Some(now),
        events: Vec::new(),
    }
}

fn is_given_up(domain: &Domain, now: Moment) -> bool {
    now.since(domain.state_since) >= GIVEN_UP_AFTER
}

fn first_time(domain: &Domain, kind: &'static str) -> Vec<&'static str> {
    match domain.attempts {
        0 => vec![kind],
        _ => Vec::new(),
    }
}

/// Whether at most this part of a certificate's time is left.
fn is_left(domain: &Domain, part: u32, now: Moment) -> bool {
    domain.certificate.is_some_and(|certificate| {
        let life = certificate.expires_at.since(certificate.issued_at);
        certificate.expires_at.since(now) <= life / part
    })
}

fn backoff(first: Duration, longest: Duration, attempts: u32) -> Duration {
    let doubled = 1_u32.checked_shl(attempts.saturating_sub(1).min(16));
    first
        .saturating_mul(doubled.unwrap_or(u32::MAX))
        .min(longest)
}

#[cfg(test)]
mod tests;
