//! Who is calling: the peer address of the connection, looked up in the store for every request.
//!
//! Nothing is remembered, so an address that left the table is refused from the next request on. An
//! address that cannot be looked up is not let in. Forwarding headers are never read.

use std::{net::IpAddr, path::Path, str::FromStr as _, time::Duration};

use sqlx::{
    Row as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tidepool_shared::id::{InstanceId, ServerId};

/// Readers at the same time. A look-up takes microseconds; more would only wait for the same disk.
const READERS: u32 = 4;
/// Longer than the coordinator holds a lock, shorter than a caller gives up.
const PATIENCE: Duration = Duration::from_secs(2);

/// A caller that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub server: ServerId,
    /// `None`: a server of the pool that belongs to nobody yet.
    pub instance: Option<InstanceId>,
}

/// Why a caller was not identified.
#[derive(Debug, thiserror::Error)]
pub enum NotTrusted {
    #[error("address is unknown")]
    Unknown,
    #[error("read the trust table")]
    Database(#[source] sqlx::Error),
    #[error("the trust table holds an id that is none")]
    Corrupt(#[source] tidepool_shared::id::InvalidId),
}

/// The trust table, read-only.
#[derive(Debug, Clone)]
pub struct Trust(SqlitePool);

impl Trust {
    /// Names the database; it is opened when first asked, so that the proxy may start before it is
    /// there.
    pub fn at(database: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(database)
            .read_only(true)
            .busy_timeout(PATIENCE);
        Self(
            SqlitePoolOptions::new()
                .max_connections(READERS)
                .acquire_timeout(PATIENCE)
                .connect_lazy_with(options),
        )
    }

    /// Whose address this is.
    pub async fn caller(&self, address: IpAddr) -> Result<Caller, NotTrusted> {
        let row = sqlx::query("SELECT server_id, instance_id FROM trust WHERE address = ?")
            .bind(address.to_canonical().to_string())
            .fetch_optional(&self.0)
            .await
            .map_err(NotTrusted::Database)?
            .ok_or(NotTrusted::Unknown)?;
        let server: String = row.try_get(0).map_err(NotTrusted::Database)?;
        let instance: Option<String> = row.try_get(1).map_err(NotTrusted::Database)?;
        Ok(Caller {
            server: ServerId::from_str(&server).map_err(NotTrusted::Corrupt)?,
            instance: instance
                .map(|id| InstanceId::from_str(&id))
                .transpose()
                .map_err(NotTrusted::Corrupt)?,
        })
    }
}
