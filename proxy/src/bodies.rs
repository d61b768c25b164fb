//! Places for requests in memory: so many for one server, and so many in all.
//!
//! A server's own bound comes first. Else one server that sends slowly would hold every place there
//! is, and no other would get an answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tidepool_shared::id::ServerId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Requests held in memory at the same time, so at most this many times 20 MB.
const ALL: usize = 32;
/// Of these for one server.
const OF_ONE: usize = 4;
/// For a place.
const PATIENCE: Duration = Duration::from_secs(10);
/// Servers remembered before those are forgotten that hold and want no place.
const REMEMBERED: usize = 1024;

/// The places.
#[derive(Debug)]
pub(crate) struct Bodies {
    all: Arc<Semaphore>,
    each: Mutex<HashMap<ServerId, Arc<Semaphore>>>,
}

/// One place, given back by dropping it.
#[derive(Debug)]
pub(crate) struct Place {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

impl Default for Bodies {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(ALL)),
            each: Mutex::default(),
        }
    }
}

impl Bodies {
    /// Waits for a place for a request of this server; `None` when that takes too long.
    pub(crate) async fn place(&self, server: ServerId) -> Option<Place> {
        let own = self.own(server);
        timeout(PATIENCE, async {
            Some(Place {
                _own: own.acquire_owned().await.ok()?,
                _shared: Arc::clone(&self.all).acquire_owned().await.ok()?,
            })
        })
        .await
        .ok()?
    }

    fn own(&self, server: ServerId) -> Arc<Semaphore> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if each.len() >= REMEMBERED {
            each.retain(|_, own| Arc::strong_count(own) > 1);
        }
        let own = each
            .entry(server)
            .or_insert_with(|| Arc::new(Semaphore::new(OF_ONE)));
        Arc::clone(own)
    }
}
