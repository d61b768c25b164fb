//! A connection to the store that is opened when it is needed, and given up after any error.

use std::{
    str::FromStr as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, SqliteConnection,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};
use tidepool_shared::database_url::DatabaseUrl;

/// For a lock of SQLite's. Shorter than anybody waits for a statement: one under way cannot be called back.
const BUSY: Duration = Duration::from_secs(4);
/// What is acknowledged survives a power cut, whatever the server's default.
const SETTINGS: [(&str, &str); 2] = [("synchronous_commit", "on"), ("statement_timeout", "5s")];

/// Where the store is, and perhaps a connection to it.
#[derive(Debug)]
pub(crate) struct Link {
    place: Place,
    idle: Option<Connection>,
}

#[derive(Debug)]
enum Place {
    Sqlite(Box<SqliteConnectOptions>),
    Postgres(Box<PgConnectOptions>),
}

#[derive(Debug)]
pub(crate) enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Link {
    /// Names the database, which need not be there yet.
    pub(crate) fn of(database: &DatabaseUrl, purpose: &str) -> sqlx::Result<Self> {
        let place = match database {
            DatabaseUrl::Sqlite(path) => Place::Sqlite(Box::new(
                SqliteConnectOptions::new()
                    .filename(path)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(BUSY),
            )),
            DatabaseUrl::Postgres(url) => Place::Postgres(Box::new(
                PgConnectOptions::from_str(url)?
                    .application_name(&format!("tidepool-proxy {purpose}"))
                    .options(SETTINGS),
            )),
        };
        Ok(Self { place, idle: None })
    }

    /// Takes the connection: whoever stops waiting in the middle of its use leaves none that is half used.
    pub(crate) async fn take(&mut self) -> sqlx::Result<Connection> {
        if let Some(connection) = self.idle.take() {
            return Ok(connection);
        }
        match &self.place {
            Place::Sqlite(options) => options.connect().await.map(Connection::Sqlite),
            Place::Postgres(options) => options.connect().await.map(Connection::Postgres),
        }
    }

    /// Keeps it for the next time, if all went well.
    pub(crate) fn give_back(&mut self, connection: Connection) {
        self.idle = Some(connection);
    }

    pub(crate) async fn close(&mut self) -> sqlx::Result<()> {
        match self.idle.take() {
            Some(Connection::Sqlite(connection)) => connection.close().await,
            Some(Connection::Postgres(connection)) => connection.close().await,
            None => Ok(()),
        }
    }
}

/// As the store has numbers: at most its greatest.
pub(crate) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// As the store has moments.
pub(crate) fn microseconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}
