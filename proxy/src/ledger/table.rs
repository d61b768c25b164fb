//! The table `usage_records`, in either database.
//!
//! A batch is one statement with one argument, a JSON list of rows: its text does not change with the
//! number of rows, so it is planned once, and no limit on arguments is near. A row whose id is there
//! already is passed over: a batch may be written any number of times.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, SqliteConnection,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};
use tidepool_shared::database_url::DatabaseUrl;
use tokio::time::timeout;

use super::row::Row;

/// For a statement, connecting included.
const PATIENCE: Duration = Duration::from_secs(5);
/// Shorter, so that SQLite itself gives up first: a statement under way cannot be called back.
const BUSY: Duration = Duration::from_secs(4);
/// What is acknowledged survives a power cut, whatever the server's default: the journal forgets it.
const SETTINGS: [(&str, &str); 2] = [("synchronous_commit", "on"), ("statement_timeout", "5s")];

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
     ON CONFLICT (id) DO NOTHING";

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
     ON CONFLICT (id) DO NOTHING";

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

/// One connection, opened when it is needed and given up after any error.
#[derive(Debug)]
pub(super) struct Table {
    place: Place,
    connection: Option<Connection>,
}

#[derive(Debug)]
enum Place {
    Sqlite(Box<SqliteConnectOptions>),
    Postgres(Box<PgConnectOptions>),
}

#[derive(Debug)]
enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Table {
    /// Names the database, which need not be there yet.
    pub(super) fn of(database: &DatabaseUrl) -> sqlx::Result<Self> {
        let place = match database {
            DatabaseUrl::Sqlite(path) => Place::Sqlite(Box::new(
                SqliteConnectOptions::new()
                    .filename(path)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(BUSY),
            )),
            DatabaseUrl::Postgres(url) => Place::Postgres(Box::new(
                PgConnectOptions::from_str(url)?
                    .application_name("tidepool-proxy ledger")
                    .options(SETTINGS),
            )),
        };
        Ok(Self {
            place,
            connection: None,
        })
    }

    /// Writes all rows that are not there yet, or none. After an error they may
    /// have been written all the same.
    pub(super) async fn insert(&mut self, rows: &[&Row]) -> Result<(), NotWritten> {
        let rows = serde_json::to_string(rows)?;
        timeout(PATIENCE, self.insert_json(rows))
            .await
            .unwrap_or(Err(NotWritten::Late))
    }

    pub(super) async fn close(&mut self) -> sqlx::Result<()> {
        match self.connection.take() {
            Some(Connection::Sqlite(connection)) => connection.close().await,
            Some(Connection::Postgres(connection)) => connection.close().await,
            None => Ok(()),
        }
    }

    async fn insert_json(&mut self, rows: String) -> Result<(), NotWritten> {
        // Taken: whoever stops waiting for this leaves no half-used connection.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.place.connect().await?,
        };
        match &mut connection {
            Connection::Sqlite(connection) => {
                let insert = sqlx::query(INSERT_SQLITE).bind(rows);
                insert.execute(connection).await?;
            }
            Connection::Postgres(connection) => {
                let insert = sqlx::query(INSERT_POSTGRES).bind(rows);
                insert.execute(connection).await?;
            }
        }
        self.connection = Some(connection);
        Ok(())
    }
}

impl Place {
    async fn connect(&self) -> sqlx::Result<Connection> {
        match self {
            Self::Sqlite(options) => options.connect().await.map(Connection::Sqlite),
            Self::Postgres(options) => options.connect().await.map(Connection::Postgres),
        }
    }
}
