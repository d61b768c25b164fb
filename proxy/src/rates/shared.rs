//! The buckets in Redis, and what happens when it does not answer.
//!
//! The breaker is the connection itself: a question that is not answered within [`PATIENCE`] takes the
//! connection away, and as long as there is none nobody asks, so nobody waits. One task connects again
//! and asks Redis something itself before requests do.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use redis::{Client, ErrorKind, RedisResult, Script, aio::MultiplexedConnection};
use tidepool_shared::id::InstanceId;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::bucket::{Answer, Ask};

/// For an answer. A limit is not worth more of a customer's time.
const PATIENCE: Duration = Duration::from_millis(30);
/// For a new connection that answers.
const CONNECT: Duration = Duration::from_secs(2);
/// Between attempts to connect.
const PAUSE: Duration = Duration::from_millis(500);
/// Microseconds; see `bucket`.
const DEBT_MAX: u64 = 3_600_000_000;

/// Redis, when it answers.
#[derive(Debug)]
pub struct Shared {
    client: Client,
    script: Script,
    connection: ArcSwapOption<MultiplexedConnection>,
    lost: Notify,
    /// Questions so far. Tests hold it against what a request waits for.
    #[cfg(test)]
    pub(super) asked: std::sync::atomic::AtomicU64,
}

impl Shared {
    /// `redis://HOST:PORT/DB` or `unix:PATH`.
    pub fn of(url: &str) -> RedisResult<Self> {
        Ok(Self {
            client: Client::open(url)?,
            script: Script::new(include_str!("count.lua")),
            connection: ArcSwapOption::empty(),
            lost: Notify::new(),
            #[cfg(test)]
            asked: std::sync::atomic::AtomicU64::new(0),
        })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.load().is_some()
    }

    /// `None`: there is no answer now.
    pub(super) async fn ask(&self, instance: InstanceId, ask: &Ask) -> Option<Answer> {
        let connection = self.connection.load_full()?;
        #[cfg(test)]
        self.asked
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut asked = MultiplexedConnection::clone(&connection);
        let whose = instance.to_string();
        let call = self.call(&whose, ask, &mut asked);
        match timeout(PATIENCE, call).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                self.lose(&connection, &error.to_string());
                None
            }
            Err(_) => {
                self.lose(&connection, "no answer in time");
                None
            }
        }
    }

    /// Once for each connection, however many were waiting for it.
    fn lose(&self, connection: &Arc<MultiplexedConnection>, why: &str) {
        let found = self.connection.compare_and_swap(connection, None);
        if found
            .as_ref()
            .is_some_and(|found| Arc::ptr_eq(found, connection))
        {
            tracing::warn!(why, "Redis does not count: each proxy counts for itself");
            self.lost.notify_one();
        }
    }

    pub(super) async fn keep_connected(&self) {
        loop {
            match timeout(CONNECT, self.connect()).await {
                Ok(Ok(connection)) => {
                    self.connection.store(Some(Arc::new(connection)));
                    tracing::info!("Redis counts");
                    self.lost.notified().await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "Redis cannot be reached"),
                Err(_) => tracing::debug!("Redis does not answer"),
            }
            sleep(PAUSE).await;
        }
    }

    /// A connection that has just answered, as fast as it will have to.
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let mut connection = self.client.get_multiplexed_async_connection().await?;
        self.script.load_async(&mut connection).await?;
        let nothing = Ask {
            requests_per_minute: Some(0),
            requests: 0,
            tokens_per_minute: None,
            used: 0,
        };
        match timeout(PATIENCE, self.call("probe", &nothing, &mut connection)).await {
            Ok(answer) => answer.map(|_| connection),
            Err(_) => Err((ErrorKind::Io, "it answers too slowly").into()),
        }
    }

    async fn call(
        &self,
        whose: &str,
        ask: &Ask,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Answer> {
        let limit =
            |limit: Option<u64>| limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        // In braces what decides about the place in a cluster: both keys are in one.
        let mut call = self
            .script
            .key(format!("tidepool:rate:{{{whose}}}:requests"));
        call.key(format!("tidepool:rate:{{{whose}}}:tokens"))
            .arg(limit(ask.requests_per_minute))
            .arg(ask.requests)
            .arg(limit(ask.tokens_per_minute))
            .arg(ask.used)
            .arg(DEBT_MAX);
        let (granted, tokens, wait): (u64, i64, u64) = call.invoke_async(connection).await?;
        Ok(Answer {
            granted,
            tokens: u64::try_from(tokens).unwrap_or(u64::MAX),
            wait: Duration::from_micros(wait),
        })
    }
}
