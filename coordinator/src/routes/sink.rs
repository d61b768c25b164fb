//! The tree in Redis: read whole, written in transactions that take effect on the tree they were made for
//! or not at all.
//!
//! Every call has an end; after any error the connection is given up, and with it what was known.

use std::{collections::BTreeSet, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, Pipeline, RedisError,
    Value, aio::MultiplexedConnection, cmd,
};
use tokio::time::error::Elapsed;

use super::{
    plan::Change,
    tree::{ROOT, Revision, Tree},
};

/// For a new connection.
const CONNECT: Duration = Duration::from_secs(2);
/// For the answer to one question; a transaction of thousands of routes is one.
const ANSWER: Duration = Duration::from_secs(5);
/// Keys that one `SCAN` looks at, and one `MGET` reads.
const AT_ONCE: usize = 1000;
/// Six keys a route: more than this are not ours.
const KEYS_MAX: usize = 200_000;

/// Redis, and which database of it.
#[derive(Clone)]
pub struct RedisUrl {
    client: Client,
    database: i64,
}

/// Why a URL is not taken.
#[derive(Debug, thiserror::Error)]
pub enum InvalidUrl {
    #[error("not a Redis URL")]
    Unreadable(#[source] RedisError),
    #[error("the URL names no database of its own, such as `redis://HOST:6379/1`")]
    NoDatabase,
}

/// Why the tree was not read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    #[error("Redis: {doing}")]
    Call {
        doing: &'static str,
        #[source]
        source: RedisError,
    },
    #[error("Redis did not answer in time: {doing}")]
    TimedOut {
        doing: &'static str,
        #[source]
        source: Elapsed,
    },
    #[error("more than {KEYS_MAX} keys are in Traefik's database")]
    TooMany,
}

/// Whether a transaction took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Done,
    /// The tree is not the one that the change was made for.
    NotTheTree,
}

/// Whether Traefik is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publish {
    /// With this as the tree's new revision.
    As(Revision),
    Nothing,
}

impl RedisUrl {
    /// Reads `redis://[USER:PASSWORD@]HOST[:PORT]/DATABASE`. Traefik scans its whole database, so it must have
    /// one, and 0 is what everybody else uses.
    pub fn read(url: &str) -> Result<Self, InvalidUrl> {
        let info = url.into_connection_info().map_err(InvalidUrl::Unreadable)?;
        let database = info.redis_settings().db();
        if database == 0 {
            return Err(InvalidUrl::NoDatabase);
        }
        let client = Client::open(info).map_err(InvalidUrl::Unreadable)?;
        Ok(Self { client, database })
    }

    /// `HOST:PORT`; `None` when it is a socket of this machine.
    pub fn endpoint(&self) -> Option<String> {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) => Some(format!("{host}:{port}")),
            _ => None,
        }
    }

    /// User and password, if there are any; the user without a name is called `default`.
    pub fn credentials(&self) -> Option<(String, String)> {
        let settings = self.client.get_connection_info().redis_settings();
        let user = settings.username().unwrap_or("default");
        Some((user.to_owned(), settings.password()?.to_owned()))
    }

    /// Its number.
    pub fn database(&self) -> i64 {
        self.database
    }

    /// A connection that has just answered.
    pub(super) async fn connect(&self) -> Result<Sink, SinkError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER));
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let connection = in_time("connect", connecting).await?;
        Ok(Sink {
            connection,
            channel: format!("__keyspace@{}__:{ROOT}", self.database),
        })
    }
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisUrl(..)")
    }
}

/// A connection. Only one task has it, so that nothing comes between `WATCH` and `EXEC`.
pub(super) struct Sink {
    connection: MultiplexedConnection,
    channel: String,
}

impl Sink {
    /// Reads all that Traefik would, and what it would stumble over.
    pub(super) async fn read(&mut self) -> Result<Tree, SinkError> {
        let keys = self.keys().await?;
        let mut tree = Tree::new();
        for keys in keys.chunks(AT_ONCE) {
            let mut read = cmd("MGET");
            read.arg(keys);
            let answer = read.query_async(&mut self.connection);
            let values: Vec<Value> = in_time("read the tree", answer).await?;
            for (key, value) in keys.iter().zip(values) {
                // What is no string has no value here, which no wanted key has either.
                tree.insert(key.clone(), text(value).unwrap_or_default());
            }
        }
        Ok(tree)
    }

    async fn keys(&mut self) -> Result<Vec<String>, SinkError> {
        let mut keys = BTreeSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(format!("{ROOT}*"));
            scan.arg("COUNT").arg(AT_ONCE);
            let answer = scan.query_async(&mut self.connection);
            let (next, some): (String, Vec<String>) = in_time("list the tree", answer).await?;
            keys.extend(some);
            if keys.len() > KEYS_MAX {
                return Err(SinkError::TooMany);
            }
            if next == "0" {
                return Ok(keys.into_iter().collect());
            }
            cursor = next;
        }
    }

    /// Which key events Redis sends; `None` when this user may not know.
    pub(super) async fn key_events(&mut self) -> Result<Option<String>, SinkError> {
        let mut ask = cmd("CONFIG");
        ask.arg("GET").arg("notify-keyspace-events");
        let answer = ask.query_async::<Vec<String>>(&mut self.connection);
        match in_time("ask which key events there are", answer).await {
            Ok(answer) => Ok(answer.into_iter().nth(1)),
            Err(SinkError::Call { source, .. }) if source.code() == Some("NOPERM") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a change if the tree is still at `revision` (`None`: at none), all of it or nothing.
    pub(super) async fn write(
        &mut self,
        revision: Option<Revision>,
        change: &Change,
        publish: Publish,
    ) -> Result<Written, SinkError> {
        let mut watch = cmd("WATCH");
        watch.arg(Revision::key());
        let watching = watch.query_async::<()>(&mut self.connection);
        in_time("watch the revision", watching).await?;
        let mut get = cmd("GET");
        get.arg(Revision::key());
        let answer = get.query_async(&mut self.connection);
        let found: Value = in_time("read the revision", answer).await?;
        let found = text(found).and_then(|rule| Revision::of_rule(&rule));
        if found != revision {
            let unwatch = cmd("UNWATCH");
            let unwatching = unwatch.query_async::<()>(&mut self.connection);
            in_time("watch no more", unwatching).await?;
            return Ok(Written::NotTheTree);
        }
        let transaction = self.transaction(change, publish);
        let executing = transaction.query_async(&mut self.connection);
        let done: Option<Vec<Value>> = in_time("write the tree", executing).await?;
        Ok(done.map_or(Written::NotTheTree, |_| Written::Done))
    }

    /// Tells Traefik to look, without a change.
    pub(super) async fn publish(&mut self) -> Result<(), SinkError> {
        let mut publish = cmd("PUBLISH");
        publish.arg(&self.channel).arg("set");
        let publishing = publish.query_async::<i64>(&mut self.connection);
        in_time("tell Traefik", publishing).await.map(drop)
    }

    fn transaction(&self, change: &Change, publish: Publish) -> Pipeline {
        let mut transaction = Pipeline::new();
        transaction.atomic();
        for (key, value) in &change.set {
            transaction.cmd("SET").arg(key).arg(value);
        }
        for key in &change.delete {
            transaction.cmd("DEL").arg(key);
        }
        if let Publish::As(revision) = publish {
            transaction
                .cmd("SET")
                .arg(Revision::key())
                .arg(revision.rule());
            transaction.cmd("PUBLISH").arg(&self.channel).arg("set");
        }
        transaction
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

async fn in_time<T>(
    doing: &'static str,
    call: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, SinkError> {
    match tokio::time::timeout(ANSWER, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(SinkError::Call { doing, source }),
        Err(source) => Err(SinkError::TimedOut { doing, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_its_own_is_named_and_nothing_of_the_url_is_shown() {
        for url in ["redis://127.0.0.1/", "redis://127.0.0.1:6379/0"] {
            let refused = RedisUrl::read(url);
            assert!(matches!(refused, Err(InvalidUrl::NoDatabase)), "{url}");
        }
        assert!(matches!(
            RedisUrl::read("http://127.0.0.1/1"),
            Err(InvalidUrl::Unreadable(_))
        ));
        let url = RedisUrl::read("redis://tidepool:secret@127.0.0.1/1").unwrap();
        assert_eq!(format!("{url:?}"), "RedisUrl(..)");
    }
}
