//! Places for connections: so many of visitors, so many by the door for customers' own names, so many of one address;
//! and some that are kept for Traefik's questions, so that a full edge does not shut what Traefik carries itself.

use std::{net::IpAddr, sync::Arc};

use tidepool_shared::quota::{Place, Quota, neighbourhood};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::EdgeSettings;

/// Kept for questions. Each is a request and its answer, so few go far.
const FOR_QUESTIONS: usize = 256;

/// The places that there are.
pub(super) struct Places {
    visitors: Arc<Semaphore>,
    domains: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    of_one: Arc<Quota<IpAddr>>,
}

/// A connection's place, given back by dropping it.
pub(super) struct ConnectionPlace {
    /// Of its peer's; a hop has none.
    _own: Option<Place<IpAddr>>,
    _shared: OwnedSemaphorePermit,
    /// There was none for a visitor: it carries one question of a hop's, and nothing else.
    pub(super) is_for_a_question: bool,
}

/// From where a connection comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Visitor(IpAddr),
    /// It brings many visitors, and questions if hops ask any.
    Hop,
}

/// The address has all that it may.
struct Full;

impl Places {
    pub(super) fn new(settings: &EdgeSettings) -> Self {
        let most = settings.max_connections.min(Semaphore::MAX_PERMITS);
        let questions = settings.questions.as_ref().map_or(0, |_| FOR_QUESTIONS);
        Self {
            visitors: Arc::new(Semaphore::new(most)),
            domains: Arc::new(Semaphore::new(most)),
            questions: Arc::new(Semaphore::new(questions)),
            of_one: Quota::new(settings.max_connections_of_one),
        }
    }

    /// A place by the plain door. Whoever is over a bound is refused instead of left waiting, as others would wait
    /// behind.
    pub(super) fn take(&self, peer: Peer) -> Option<ConnectionPlace> {
        let own = self.own(peer).ok()?;
        let free = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let (shared, is_for_a_question) = match (free(&self.visitors), peer) {
            (Some(shared), _) => (shared, false),
            (None, Peer::Hop) => (free(&self.questions)?, true),
            (None, Peer::Visitor(_)) => return None,
        };
        Some(ConnectionPlace {
            _own: own,
            _shared: shared,
            is_for_a_question,
        })
    }

    /// A place by the door for customers' own names.
    pub(super) fn take_by_domains(&self, peer: Peer) -> Option<ConnectionPlace> {
        Some(ConnectionPlace {
            _own: self.own(peer).ok()?,
            _shared: Arc::clone(&self.domains).try_acquire_owned().ok()?,
            is_for_a_question: false,
        })
    }

    /// The place of a visitor's who came by a hop, in exchange for the hop's.
    pub(super) fn passed_on(
        &self,
        place: ConnectionPlace,
        visitor: IpAddr,
    ) -> Option<ConnectionPlace> {
        Some(ConnectionPlace {
            _own: self.own(Peer::Visitor(visitor)).ok()?,
            ..place
        })
    }

    /// The place of an address; a hop needs none.
    fn own(&self, peer: Peer) -> Result<Option<Place<IpAddr>>, Full> {
        match peer {
            Peer::Visitor(address) => {
                let place = self.of_one.take(neighbourhood(address));
                place.map(Some).ok_or(Full)
            }
            Peer::Hop => Ok(None),
        }
    }
}
