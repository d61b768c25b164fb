//! Which connections are let in: a ceiling for all that are not welcomed yet, one for each address that
//! they come from, and one for enrolments, which need no certificate.
//!
//! Strangers can reach the port. Whatever they open there, they must not take the places of the servers.

use std::{
    collections::{HashMap, hash_map},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tidepool_shared::quota::neighbourhood;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Settings;

/// Counts who is inside without having been welcomed.
pub(super) struct Admissions {
    all: Arc<Semaphore>,
    enrolments: Arc<Semaphore>,
    sources: Arc<Mutex<HashMap<IpAddr, usize>>>,
    retry_above: usize,
    refuse_above: usize,
    per_source: usize,
}

/// Whether a peer has shown that it receives what is sent to its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    Proved,
    Claimed,
}

/// What to do with a connection.
#[derive(Debug)]
pub(super) enum Verdict {
    Admit(Admission),
    /// The peer must first prove its address.
    Prove,
    Refuse,
}

/// A place among the handshakes, until the welcome.
#[derive(Debug)]
pub(super) struct Admission {
    permit: OwnedSemaphorePermit,
    source: Source,
}

/// A place among the enrolments.
#[derive(Debug)]
pub(super) struct Enrolling {
    _permit: OwnedSemaphorePermit,
    _source: Source,
}

impl Admissions {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            all: Arc::new(Semaphore::new(settings.refuse_above)),
            enrolments: Arc::new(Semaphore::new(settings.enrolments_at_once)),
            sources: Arc::default(),
            retry_above: settings.retry_above,
            refuse_above: settings.refuse_above,
            per_source: settings.unwelcomed_per_source,
        }
    }

    /// Decides about a connection's first packet.
    pub(super) fn ask(&self, source: IpAddr, address: Address) -> Verdict {
        let under_way = self
            .refuse_above
            .saturating_sub(self.all.available_permits());
        if address == Address::Claimed && under_way >= self.retry_above {
            return Verdict::Prove;
        }
        let Ok(permit) = Arc::clone(&self.all).try_acquire_owned() else {
            return Verdict::Refuse;
        };
        // Whoever forges a server's address fills only half of that address's places: the server itself
        // proves its address and takes one of the other half.
        let ceiling = match address {
            Address::Proved => self.per_source,
            Address::Claimed => self.per_source / 2,
        };
        match Source::enter(&self.sources, neighbourhood(source), ceiling) {
            Some(source) => Verdict::Admit(Admission { permit, source }),
            None if address == Address::Claimed => Verdict::Prove,
            None => Verdict::Refuse,
        }
    }

    /// Moves a connection that turned out to enrol among its like; nothing when there are too many.
    pub(super) fn enrols(&self, admission: Admission) -> Option<Enrolling> {
        let Admission { permit, source } = admission;
        drop(permit);
        let permit = Arc::clone(&self.enrolments).try_acquire_owned().ok()?;
        Some(Enrolling {
            _permit: permit,
            _source: source,
        })
    }
}

/// One of an address's places.
#[derive(Debug)]
struct Source {
    sources: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Source {
    fn enter(
        sources: &Arc<Mutex<HashMap<IpAddr, usize>>>,
        address: IpAddr,
        ceiling: usize,
    ) -> Option<Self> {
        let mut counts = sources.lock().unwrap_or_else(PoisonError::into_inner);
        let held = counts.get(&address).copied().unwrap_or(0);
        if held >= ceiling {
            return None;
        }
        counts.insert(address, held + 1);
        drop(counts);
        Some(Self {
            sources: Arc::clone(sources),
            address,
        })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut counts = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let hash_map::Entry::Occupied(mut count) = counts.entry(self.address) {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, path::PathBuf};

    use tidepool_shared::id::CoordinatorId;
    use uuid::Uuid;

    use super::*;

    const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    fn admissions(adjust: impl FnOnce(&mut Settings)) -> Admissions {
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let coordinator = CoordinatorId::new(Uuid::from_u128(1));
        let mut settings = Settings::new(coordinator, listen, PathBuf::new());
        adjust(&mut settings);
        Admissions::new(&settings)
    }

    fn fill(admissions: &Admissions, source: IpAddr, address: Address) -> Vec<Admission> {
        let ask = || match admissions.ask(source, address) {
            Verdict::Admit(admission) => Some(admission),
            Verdict::Prove | Verdict::Refuse => None,
        };
        std::iter::from_fn(ask).collect()
    }

    #[test]
    fn one_address_takes_its_places_and_no_others() {
        let admissions = admissions(|settings| settings.unwelcomed_per_source = 4);
        let held = fill(&admissions, STRANGER, Address::Proved);
        assert_eq!(held.len(), 4);
        let refused = admissions.ask(STRANGER, Address::Proved);
        assert!(matches!(refused, Verdict::Refuse));
        let server = admissions.ask(SERVER, Address::Proved);
        assert!(matches!(server, Verdict::Admit(_)));
        drop((held, server));
        assert!(admissions.sources.lock().unwrap().is_empty());
        assert_eq!(fill(&admissions, STRANGER, Address::Proved).len(), 4);
    }

    #[test]
    fn a_host_does_not_multiply_by_its_own_addresses() {
        let admissions = admissions(|settings| settings.unwelcomed_per_source = 2);
        let ask = |address: &str| admissions.ask(address.parse().unwrap(), Address::Proved);
        let _held = [ask("2001:db8::1"), ask("2001:db8::2")];
        assert!(matches!(ask("2001:db8::3"), Verdict::Refuse));
        assert!(matches!(ask("2001:db8:0:1::1"), Verdict::Admit(_)));
    }

    #[test]
    fn a_forged_address_leaves_places_for_its_owner() {
        let admissions = admissions(|settings| settings.unwelcomed_per_source = 4);
        let _forged = fill(&admissions, SERVER, Address::Claimed);
        let claimed = admissions.ask(SERVER, Address::Claimed);
        assert!(matches!(claimed, Verdict::Prove));
        let owner = admissions.ask(SERVER, Address::Proved);
        assert!(matches!(owner, Verdict::Admit(_)));
    }

    #[test]
    fn a_crowd_must_prove_its_addresses_and_then_is_refused() {
        let admissions = admissions(|settings| {
            (settings.retry_above, settings.refuse_above) = (2, 3);
        });
        let addresses = [3, 4, 5].map(|last| IpAddr::from([10, 0, 0, last]));
        let ask = |source, address| admissions.ask(source, address);
        let [one, other, third] = addresses;
        let _held = [one, other].map(|source| ask(source, Address::Claimed));
        assert!(matches!(ask(third, Address::Claimed), Verdict::Prove));
        let _last = ask(third, Address::Proved);
        assert!(matches!(ask(SERVER, Address::Proved), Verdict::Refuse));
    }

    #[test]
    fn enrolments_leave_the_places_of_links_free() {
        let admissions = admissions(|settings| {
            (settings.enrolments_at_once, settings.refuse_above) = (1, 1);
        });
        let ask = |source| match admissions.ask(source, Address::Proved) {
            Verdict::Admit(admission) => admission,
            other => panic!("{other:?}"),
        };
        let _enrolling = admissions.enrols(ask(STRANGER)).unwrap();
        assert!(admissions.enrols(ask(STRANGER)).is_none());
        drop(ask(SERVER));
    }
}
