//! The table `usage_records`, in either database.
//!
//! A batch is one statement with one argument, a JSON list of rows: its text does not change with the
//! number of rows, so it is planned once, and no limit on arguments is near. A row whose id is there
//! already is passed over: a batch may be written any number of times. What the others add to the
//! spending of their instances, and take off the grants for it, is added up and written in the same
//! transaction, in the order of the keys, so that several proxies do not wait for each other in a ring.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tidepool_shared::{database_url::DatabaseUrl, id::InstanceId};
use tokio::time::timeout;

use super::row::Row;
use crate::{
    budget::Written,
    database::{Connection, Link},
};

/// For a batch, connecting included.
const PATIENCE: Duration = Duration::from_secs(5);

const INSERT_POSTGRES: &str = "INSERT INTO usage_records \
     (id, request_id, server_id, instance_id, provider, model, asked_model, dialect, input, \
     cache_read, cache_write_5m, cache_write_1h, output, reasoning, cost_microcents, payer, status, \
     outcome, estimated, first_token_ms, total_ms, at) \
     SELECT id, request_id, server_id, instance_id, provider, model, asked_model, dialect, input, \
     cache_read, cache_write_5m, cache_write_1h, output, reasoning, cost_microcents, payer, status, \
     outcome, estimated, first_token_ms, total_ms, at \
     FROM json_to_recordset($1::json) AS list \
     (id TEXT, request_id TEXT, server_id TEXT, instance_id TEXT, provider TEXT, model TEXT, \
     asked_model TEXT, dialect TEXT, input BIGINT, cache_read BIGINT, cache_write_5m BIGINT, \
     cache_write_1h BIGINT, output BIGINT, reasoning BIGINT, cost_microcents BIGINT, payer TEXT, \
     status INTEGER, outcome TEXT, estimated BOOLEAN, first_token_ms BIGINT, total_ms BIGINT, \
     at BIGINT) \
     ON CONFLICT (id) DO NOTHING RETURNING id";

// `WHERE true`: without it SQLite takes `ON` for a join's.
const INSERT_SQLITE: &str = "INSERT INTO usage_records \
     (id, request_id, server_id, instance_id, provider, model, asked_model, dialect, input, \
     cache_read, cache_write_5m, cache_write_1h, output, reasoning, cost_microcents, payer, status, \
     outcome, estimated, first_token_ms, total_ms, at) \
     SELECT value ->> 'id', value ->> 'request_id', value ->> 'server_id', value ->> 'instance_id', \
     value ->> 'provider', value ->> 'model', value ->> 'asked_model', value ->> 'dialect', \
     value ->> 'input', value ->> 'cache_read', value ->> 'cache_write_5m', \
     value ->> 'cache_write_1h', value ->> 'output', value ->> 'reasoning', \
     value ->> 'cost_microcents', value ->> 'payer', value ->> 'status', value ->> 'outcome', \
     value ->> 'estimated', value ->> 'first_token_ms', value ->> 'total_ms', value ->> 'at' \
     FROM json_each($1) WHERE true \
     ON CONFLICT (id) DO NOTHING RETURNING id";

/// Why rows were not written, as far as is known.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotWritten {
    #[error("write rows as JSON")]
    Json(#[from] serde_json::Error),
    #[error("insert into `usage_records`")]
    Database(#[from] sqlx::Error),
    #[error("the database did not answer in time")]
    Late,
}

impl NotWritten {
    /// Whether the rows are at fault, so that they will never be taken.
    pub(super) fn is_final(&self) -> bool {
        /// "Data exception" in SQLSTATE.
        const DATA: &str = "22";
        match self {
            Self::Json(_) => true,
            Self::Database(sqlx::Error::Database(error)) => {
                error.is_check_violation()
                    || matches!(error.kind(), sqlx::error::ErrorKind::NotNullViolation)
                    || error
                        .code()
                        .is_some_and(|code| code.len() == 5 && code.starts_with(DATA))
            }
            Self::Database(_) | Self::Late => false,
        }
    }
}

const SPEND_POSTGRES: &str = "INSERT INTO spending (instance_id, period, microcents) \
     SELECT instance_id, period, microcents FROM json_to_recordset($1::json) AS list \
     (instance_id TEXT, period TEXT, microcents BIGINT) \
     ON CONFLICT (instance_id, period) \
     DO UPDATE SET microcents = spending.microcents + excluded.microcents";
const SPEND_SQLITE: &str = "INSERT INTO spending (instance_id, period, microcents) \
     SELECT value ->> 'instance_id', value ->> 'period', value ->> 'microcents' \
     FROM json_each($1) WHERE true ON CONFLICT (instance_id, period) \
     DO UPDATE SET microcents = spending.microcents + excluded.microcents";
const TAKE_POSTGRES: &str = "UPDATE spending_grants AS held \
     SET microcents = greatest(0, held.microcents - list.microcents) \
     FROM json_to_recordset($1::json) AS list (instance_id TEXT, holder TEXT, microcents BIGINT) \
     WHERE held.instance_id = list.instance_id AND held.holder = list.holder \
     RETURNING held.instance_id, held.holder, held.microcents";
const TAKE_SQLITE: &str = "UPDATE spending_grants \
     SET microcents = max(0, spending_grants.microcents - list.microcents) \
     FROM (SELECT value ->> 'instance_id' AS instance, value ->> 'holder' AS whose, \
         value ->> 'microcents' AS microcents FROM json_each($1)) AS list \
     WHERE instance_id = list.instance AND holder = list.whose \
     RETURNING instance_id, holder, spending_grants.microcents";

/// The table, over one connection.
#[derive(Debug)]
pub(super) struct Table {
    link: Link,
    holder: String,
}

/// What is left of a grant.
type Left = (String, String, i64);

impl Table {
    /// Names the database, which need not be there yet. Grants that are reported are this holder's.
    pub(super) fn of(database: &DatabaseUrl, holder: &str) -> sqlx::Result<Self> {
        Ok(Self {
            link: Link::of(database, "ledger")?,
            holder: holder.to_owned(),
        })
    }

    /// Writes all rows that are not there yet, or none; what is left of our grants to their instances.
    /// After an error they may have been written all the same.
    pub(super) async fn insert(&mut self, rows: &[&Row]) -> Result<Vec<Written>, NotWritten> {
        timeout(PATIENCE, self.insert_all(rows))
            .await
            .unwrap_or(Err(NotWritten::Late))
    }

    pub(super) async fn close(&mut self) -> sqlx::Result<()> {
        self.link.close().await
    }

    async fn insert_all(&mut self, rows: &[&Row]) -> Result<Vec<Written>, NotWritten> {
        let json = serde_json::to_string(rows)?;
        let mut connection = self.link.take().await?;
        let left = match &mut connection {
            Connection::Sqlite(connection) => sqlite(connection, rows, json).await?,
            Connection::Postgres(connection) => postgres(connection, rows, json).await?,
        };
        self.link.give_back(connection);
        Ok(left
            .into_iter()
            .filter(|(_, holder, _)| *holder == self.holder)
            .filter_map(written)
            .collect())
    }
}

/// The steps are the same in both databases; the types of their drivers are not.
macro_rules! write_rows {
    ($tx:ident, $rows:ident, $json:ident, $insert:ident, $spend:ident, $take:ident) => {{
        let insert = sqlx::query_scalar($insert).bind($json);
        let new: Vec<String> = insert.fetch_all(&mut *$tx).await?;
        let (spending, taken) = sums($rows, &new);
        if let Some(spending) = spending {
            let spend = sqlx::query($spend).bind(spending);
            spend.execute(&mut *$tx).await?;
        }
        match taken {
            Some(taken) => {
                sqlx::query_as($take)
                    .bind(taken)
                    .fetch_all(&mut *$tx)
                    .await?
            }
            None => Vec::new(),
        }
    }};
}

async fn sqlite(
    connection: &mut SqliteConnection,
    rows: &[&Row],
    json: String,
) -> sqlx::Result<Vec<Left>> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    let left = write_rows!(tx, rows, json, INSERT_SQLITE, SPEND_SQLITE, TAKE_SQLITE);
    tx.commit().await?;
    Ok(left)
}

async fn postgres(
    connection: &mut PgConnection,
    rows: &[&Row],
    json: String,
) -> sqlx::Result<Vec<Left>> {
    let mut tx = connection.begin().await?;
    let left = write_rows!(
        tx,
        rows,
        json,
        INSERT_POSTGRES,
        SPEND_POSTGRES,
        TAKE_POSTGRES
    );
    tx.commit().await?;
    Ok(left)
}

/// What the new ones of these rows cost their instances in each period, and what they take off grants;
/// as JSON lists in the order of the keys.
fn sums(rows: &[&Row], new: &[String]) -> (Option<String>, Option<String>) {
    let new: HashSet<_> = new.iter().map(String::as_str).collect();
    let mut spending: BTreeMap<(String, String), i64> = BTreeMap::new();
    let mut taken: BTreeMap<(String, &str), i64> = BTreeMap::new();
    for row in rows.iter().filter(|row| new.contains(row.id.as_str())) {
        let Some((instance, cost)) = row.charged() else {
            continue;
        };
        let add = |sum: &mut i64| *sum = sum.saturating_add(cost);
        let instance = instance.to_string();
        for period in row.periods() {
            add(spending.entry((instance.clone(), period)).or_default());
        }
        if let Some(holder) = row.holder() {
            add(taken.entry((instance, holder)).or_default());
        }
    }
    let spending = spending.into_iter().map(|((instance, period), cost)| {
        json!({"instance_id": instance, "period": period, "microcents": cost})
    });
    let taken = taken.into_iter().map(|((instance, holder), cost)| {
        json!({"instance_id": instance, "holder": holder, "microcents": cost})
    });
    (list(spending), list(taken))
}

fn list(items: impl Iterator<Item = Value>) -> Option<String> {
    let items: Vec<_> = items.collect();
    (!items.is_empty()).then(|| Value::from(items).to_string())
}

fn written((instance, _, microcents): Left) -> Option<Written> {
    Some(Written {
        instance: instance.parse::<InstanceId>().ok()?,
        microcents: u64::try_from(microcents).unwrap_or(0),
    })
}
