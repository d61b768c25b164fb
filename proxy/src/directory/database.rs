//! The tables, read-only.

use std::{net::IpAddr, str::FromStr as _, sync::Arc, time::Duration};

use sqlx::{
    FromRow, PgPool, SqlitePool,
    pool::PoolOptions,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tidepool_shared::{
    database_url::DatabaseUrl,
    id::{InstanceId, ServerId},
    quota::neighbourhood,
};

use super::{Caller, Copy, Customer, Standing};
use crate::{
    catalog::{AliasRow, Catalog, CustomerKeyRow, Keyring, ProviderRow},
    limits::{self, LimitsRow},
};

/// One reads, one listens.
const CONNECTIONS: u32 = 2;
/// Longer than the coordinator holds a lock.
const PATIENCE: Duration = Duration::from_secs(2);

const TRUST: &str =
    "SELECT trust.address, trust.server_id, trust.instance_id, instance.tier, instance.status
     FROM trust LEFT JOIN instances AS instance ON instance.id = trust.instance_id";
const PROVIDERS: &str = "SELECT name, kind, base_url, sealed_key FROM providers";
const ALIASES: &str = "SELECT tier, alias, targets FROM model_aliases";
const LIMITS: &str = "SELECT subject, requests_per_minute, tokens_per_minute, day_microcents,
     month_microcents FROM model_limits";
const KEYS: &str = "SELECT instance_id, provider, sealed_key FROM customer_keys";

/// Where the tables are.
#[derive(Debug)]
pub(super) enum Database {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

#[derive(Debug, FromRow)]
struct TrustRow {
    address: String,
    server_id: String,
    instance_id: Option<String>,
    tier: Option<String>,
    status: Option<String>,
}

impl Database {
    /// Names the database; it is opened when first read, so that the proxy may start before it is there.
    pub(super) fn of(database: &DatabaseUrl) -> sqlx::Result<Self> {
        match database {
            DatabaseUrl::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .read_only(true)
                    .busy_timeout(PATIENCE);
                Ok(Self::Sqlite(
                    SqlitePoolOptions::new()
                        .max_connections(CONNECTIONS)
                        .acquire_timeout(PATIENCE)
                        .connect_lazy_with(options),
                ))
            }
            DatabaseUrl::Postgres(url) => {
                let options = PgConnectOptions::from_str(url)?
                    .application_name("tidepool-proxy")
                    .options([("default_transaction_read_only", "on")]);
                Ok(Self::Postgres(
                    PoolOptions::new()
                        .max_connections(CONNECTIONS)
                        .acquire_timeout(PATIENCE)
                        .connect_lazy_with(options),
                ))
            }
        }
    }

    /// Reads everything.
    pub(super) async fn read(&self, keyring: &Keyring) -> sqlx::Result<Copy> {
        let trust: Vec<TrustRow> = self.all(TRUST).await?;
        let providers: Vec<ProviderRow> = self.all(PROVIDERS).await?;
        let aliases: Vec<AliasRow> = self.all(ALIASES).await?;
        let keys: Vec<CustomerKeyRow> = self.all(KEYS).await?;
        let limits: Vec<LimitsRow> = self.all(LIMITS).await?;
        let limits = limits::Table::of(limits);
        Ok(Copy {
            callers: trust
                .iter()
                .filter_map(|row| caller(row, &limits))
                .collect(),
            catalog: Arc::new(Catalog::of(providers, aliases, keys, &keyring.read())),
        })
    }

    async fn all<Row>(&self, statement: &'static str) -> sqlx::Result<Vec<Row>>
    where
        Row: Send + Unpin,
        Row: for<'r> FromRow<'r, sqlx::sqlite::SqliteRow>,
        Row: for<'r> FromRow<'r, sqlx::postgres::PgRow>,
    {
        match self {
            Self::Sqlite(pool) => sqlx::query_as(statement).fetch_all(pool).await,
            Self::Postgres(pool) => sqlx::query_as(statement).fetch_all(pool).await,
        }
    }
}

/// A row that is none identifies nobody; the others still do.
fn caller(row: &TrustRow, limits: &limits::Table) -> Option<(IpAddr, Caller)> {
    let read = || {
        let address: IpAddr = row.address.parse().ok()?;
        let server = ServerId::from_str(&row.server_id).ok()?;
        let customer = match (&row.instance_id, &row.tier) {
            (Some(id), Some(tier)) => {
                let instance = InstanceId::from_str(id).ok()?;
                let tier = tier.as_str().into();
                Some(Customer {
                    limits: limits.limits_of(instance, &tier),
                    instance,
                    tier,
                    standing: match row.status.as_deref() {
                        Some("suspended") => Standing::Suspended,
                        _ => Standing::Good,
                    },
                })
            }
            (None, _) => None,
            (Some(_), None) => return None,
        };
        Some((neighbourhood(address), Caller { server, customer }))
    };
    let caller = read();
    if caller.is_none() {
        tracing::error!(server.id = %row.server_id, "a row of the trust table is none");
    }
    caller
}
