//! What the proxy knows of the deployment: who calls from which address, who serves models, under
//! which names, and with whose keys. A copy in memory of a few small tables, replaced whole.
//!
//! Identity fails closed. A copy that has not been confirmed for [`TRUSTED_FOR`] identifies nobody, and
//! the coordinator lets longer than that pass before it lets a distrusted server's address go. Whoever
//! is not in the copy, or belongs to nobody in it, waits for one newer than the request: a server may
//! have been claimed a moment ago. Waiting requests share a reading, and [`Pace`] bounds readings, so
//! strangers cannot make it read without end.

mod database;
mod follow;

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tidepool_shared::{
    database_url::DatabaseUrl,
    id::{InstanceId, ServerId},
    quota::neighbourhood,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use self::database::Database;
pub use self::follow::Follower;
use crate::{
    catalog::{Catalog, Keyring},
    limits::Limits,
};

/// How long a copy may identify callers without having been confirmed.
pub const TRUSTED_FOR: Duration = Duration::from_mins(1);

/// For a copy that is newer than the request. A reading takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// A caller that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub server: ServerId,
    /// `None`: a server of the pool that belongs to nobody yet.
    pub customer: Option<Customer>,
}

/// Whom a server belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    pub instance: InstanceId,
    pub tier: Arc<str>,
    pub limits: Limits,
}

/// Why a caller was not identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTrusted {
    #[error("address is unknown")]
    Unknown,
    #[error("the tables could not be read for too long")]
    Stale,
}

/// The copy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    copy: ArcSwap<Copy>,
    /// When the reading of the newest copy began; `None`: there is none yet.
    read_at: watch::Sender<Option<Instant>>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Copy {
    callers: HashMap<IpAddr, Caller>,
    catalog: Arc<Catalog>,
}

impl Directory {
    /// An empty one, and what must run to fill it and keep it true.
    pub fn of(database: &DatabaseUrl, keyring: Keyring) -> sqlx::Result<(Self, Follower)> {
        let directory = Self(Arc::new(Inner {
            copy: ArcSwap::default(),
            read_at: watch::Sender::new(None),
            wanted: Notify::new(),
        }));
        let follower = Follower::new(directory.clone(), Database::of(database)?, keyring);
        Ok((directory, follower))
    }

    /// Whose address this is.
    pub async fn caller(&self, address: IpAddr) -> Result<Caller, NotTrusted> {
        let asked_at = Instant::now();
        let address = neighbourhood(address);
        let known = self.known(address);
        if let Ok(caller) = &known
            && caller.customer.is_some()
        {
            return known;
        }
        self.newer_than(asked_at).await;
        self.known(address)
    }

    /// Whether this address was somebody's when the tables were last read.
    pub(crate) fn is_known(&self, address: IpAddr) -> bool {
        self.known(neighbourhood(address)).is_ok()
    }

    /// Who serves models, under which names.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.copy.load().catalog)
    }

    /// How old the copy is; `None`: there is none yet.
    pub fn age(&self) -> Option<Duration> {
        self.0.read_at.borrow().map(|at| at.elapsed())
    }

    /// Reads again soon, whether or not a bell rang.
    pub fn refresh(&self) {
        self.0.wanted.notify_one();
    }

    fn known(&self, address: IpAddr) -> Result<Caller, NotTrusted> {
        let read_at = *self.0.read_at.borrow();
        if read_at.is_none_or(|at| at.elapsed() > TRUSTED_FOR) {
            return Err(NotTrusted::Stale);
        }
        let copy = self.0.copy.load();
        copy.callers
            .get(&address)
            .cloned()
            .ok_or(NotTrusted::Unknown)
    }

    /// Waits for a copy whose reading began after this; gives up when there is none for long.
    async fn newer_than(&self, moment: Instant) {
        let mut read_at = self.0.read_at.subscribe();
        self.refresh();
        let newer = read_at.wait_for(|at| at.is_some_and(|at| at > moment));
        // The caller looks again in either case, and an old copy says the same as before.
        drop(timeout(PATIENCE, newer).await);
    }

    fn replace(&self, copy: Copy, read_at: Instant) {
        self.0.copy.store(Arc::new(copy));
        self.0.read_at.send_replace(Some(read_at));
    }
}
