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

/// For a copy that is newer than the request: longer than a reading may take, and the pause before it.
const PATIENCE: Duration = Duration::from_secs(7);

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
    pub standing: Standing,
}

/// Whether a customer is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// By the operator.
    Suspended,
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
        if !self.newer_than(asked_at).await {
            // Whose it is now is not known: a customer must not be answered as the pool is.
            return Err(NotTrusted::Stale);
        }
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

    /// Waits for a copy whose reading began after this; `false` when there is none for long.
    async fn newer_than(&self, moment: Instant) -> bool {
        let mut read_at = self.0.read_at.subscribe();
        self.refresh();
        let newer = read_at.wait_for(|at| at.is_some_and(|at| at > moment));
        matches!(timeout(PATIENCE, newer).await, Ok(Ok(_)))
    }

    fn replace(&self, copy: Copy, read_at: Instant) {
        self.0.copy.store(Arc::new(copy));
        self.0.read_at.send_replace(Some(read_at));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    fn copy(customer: Option<Customer>) -> Copy {
        let caller = Caller {
            server: ServerId::new(Uuid::from_u128(7)),
            customer,
        };
        Copy {
            callers: HashMap::from([(ADDRESS, caller)]),
            catalog: Arc::default(),
        }
    }

    /// One that nobody fills but the test.
    fn directory() -> Directory {
        let url = DatabaseUrl::Sqlite("/nowhere/tidepool.db".into());
        Directory::of(&url, Keyring::default()).unwrap().0
    }

    #[tokio::test(start_paused = true)]
    async fn a_pools_server_is_one_only_by_a_copy_that_is_newer_than_the_request() {
        let directory = directory();
        directory.replace(copy(None), Instant::now());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(directory.caller(ADDRESS).await, Err(NotTrusted::Stale));
        let reading = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            directory.replace(copy(None), Instant::now());
        };
        let (caller, ()) = tokio::join!(directory.caller(ADDRESS), reading);
        assert_eq!(caller.unwrap().customer, None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_claimed_a_moment_ago_is_found_out() {
        let directory = directory();
        directory.replace(copy(None), Instant::now());
        let customer = Customer {
            instance: InstanceId::new(Uuid::from_u128(8)),
            tier: "basic".into(),
            limits: Limits::default(),
            standing: Standing::Good,
        };
        let reading = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            directory.replace(copy(Some(customer.clone())), Instant::now());
        };
        let (caller, ()) = tokio::join!(directory.caller(ADDRESS), reading);
        assert_eq!(caller.unwrap().customer.as_ref(), Some(&customer));
    }
}
