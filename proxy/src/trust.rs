//! Who is calling: the peer address of the connection, looked up in the store for every request.
//!
//! Nothing is remembered, so an address that left the table is refused from the next request on. An
//! address that cannot be looked up is not let in. Forwarding headers are never read.

use std::{net::IpAddr, path::Path, str::FromStr as _, time::Duration};

use sqlx::{
    PgPool, SqlitePool,
    pool::PoolOptions,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tidepool_shared::{
    database_url::DatabaseUrl,
    id::{InstanceId, ServerId},
};

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
pub struct Trust(Table);

/// Where it is.
#[derive(Debug, Clone)]
enum Table {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A server's and its instance's id, as text.
type Ids = (String, Option<String>);

impl Trust {
    /// Names the database; it is opened when first asked, so that the proxy may start before it is
    /// there.
    pub fn of(database: &DatabaseUrl) -> sqlx::Result<Self> {
        match database {
            DatabaseUrl::Sqlite(path) => Ok(Self::at(path)),
            DatabaseUrl::Postgres(url) => {
                let options = PgConnectOptions::from_str(url)?
                    .application_name("tidepool-proxy")
                    .options([("default_transaction_read_only", "on")]);
                let pool = PoolOptions::new()
                    .max_connections(READERS)
                    .acquire_timeout(PATIENCE)
                    .connect_lazy_with(options);
                Ok(Self(Table::Postgres(pool)))
            }
        }
    }

    /// The same with a file.
    pub fn at(database: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(database)
            .read_only(true)
            .busy_timeout(PATIENCE);
        Self(Table::Sqlite(
            SqlitePoolOptions::new()
                .max_connections(READERS)
                .acquire_timeout(PATIENCE)
                .connect_lazy_with(options),
        ))
    }

    /// Whose address this is.
    pub async fn caller(&self, address: IpAddr) -> Result<Caller, NotTrusted> {
        // The one text of an address: a dual-stack socket shows IPv4 peers as mapped IPv6 addresses.
        let (server, instance) = self
            .0
            .look_up(address.to_canonical().to_string())
            .await
            .map_err(NotTrusted::Database)?
            .ok_or(NotTrusted::Unknown)?;
        Ok(Caller {
            server: ServerId::from_str(&server).map_err(NotTrusted::Corrupt)?,
            instance: instance
                .map(|id| InstanceId::from_str(&id))
                .transpose()
                .map_err(NotTrusted::Corrupt)?,
        })
    }
}

impl Table {
    async fn look_up(&self, address: String) -> sqlx::Result<Option<Ids>> {
        const TRUST: &str = "SELECT server_id, instance_id FROM trust WHERE address = $1";
        match self {
            Self::Sqlite(pool) => {
                sqlx::query_as(TRUST)
                    .bind(address)
                    .fetch_optional(pool)
                    .await
            }
            Self::Postgres(pool) => {
                // A server that does not answer must not keep a caller waiting.
                let found = sqlx::query_as(TRUST).bind(address).fetch_optional(pool);
                tokio::time::timeout(PATIENCE, found)
                    .await
                    .unwrap_or(Err(sqlx::Error::PoolTimedOut))
            }
        }
    }
}
