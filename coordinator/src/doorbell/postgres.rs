//! The bell between processes: `NOTIFY` out, `LISTEN` in, on one channel.
//!
//! Rings go out in bursts: what is rung while a `NOTIFY` is under way goes with the next. A connection that
//! was lost may have cost rings, so everybody is told to look at everything, at once and again when it is
//! back. A dead connection does not tell that it is dead; so each process also says its name now and then,
//! and one that does not hear itself connects anew.

use std::{sync::Arc, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tidepool_shared::database_url::DatabaseUrl;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    Doorbell, Heard,
    outbox::{Outbox, Waiting},
    payload,
};
use crate::ambient::{Chance, Moment};

const CHANNEL: &str = "tidepool";

/// One connection listens, one tells.
const CONNECTIONS: u32 = 2;

/// How often a process says its name.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// How long it may not hear itself.
const SILENCE: Duration = Duration::from_secs(20);

/// How long a connection and each word on it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause after a failure doubles from the first to the second.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// The doorbell for those who share a database: with PostgreSQL they may be many processes, and something
/// must run for it.
pub fn for_database(
    url: &DatabaseUrl,
    chance: &Chance,
    now: Moment,
) -> sqlx::Result<(Doorbell, Option<Messenger>)> {
    match url {
        DatabaseUrl::Sqlite(_) => Ok((Doorbell::default(), None)),
        DatabaseUrl::Postgres(url) => {
            let (doorbell, messenger) = Messenger::new(url.parse()?, chance, now);
            Ok((doorbell, Some(messenger)))
        }
    }
}

/// The part that carries rings between processes.
#[derive(Debug)]
pub struct Messenger {
    doorbell: Doorbell,
    outbox: Arc<Outbox>,
    pool: PgPool,
    name: String,
}

impl Messenger {
    /// A doorbell of many processes, and what must run for it. Connects when it runs.
    pub fn new(options: PgConnectOptions, chance: &Chance, now: Moment) -> (Doorbell, Self) {
        let outbox = Arc::new(Outbox::default());
        let doorbell = Doorbell {
            elsewhere: Some(Arc::clone(&outbox)),
            ..Doorbell::default()
        };
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(options.application_name("tidepool-doorbell"));
        let messenger = Self {
            doorbell: doorbell.clone(),
            outbox,
            pool,
            name: chance.uuid(now).simple().to_string(),
        };
        (doorbell, messenger)
    }

    /// Carries rings until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let both = async { tokio::join!(self.tell(), self.listen()) };
        cancel.run_until_cancelled(both).await;
        self.pool.close().await;
    }

    /// Tells the others, for ever.
    async fn tell(&self) {
        let mut pause = Pause::default();
        loop {
            let waiting = timeout(SIGN_OF_LIFE, self.outbox.take())
                .await
                .unwrap_or_else(|_| Waiting::Rings([].into()));
            match self.notify(&payload::write(&self.name, &waiting)).await {
                Ok(()) => pause = Pause::default(),
                Err(error) => {
                    tracing::warn!(%error, "other coordinators do not hear the doorbell");
                    self.outbox.add_everything();
                    pause.wait().await;
                }
            }
        }
    }

    async fn notify(&self, texts: &[String]) -> sqlx::Result<()> {
        let telling = sqlx::query("SELECT pg_notify($1, text) FROM unnest($2) AS text")
            .bind(CHANNEL)
            .bind(texts)
            .execute(&self.pool);
        match timeout(PATIENCE, telling).await {
            Ok(told) => told.map(drop),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// Hears the others, for ever.
    async fn listen(&self) {
        let mut pause = Pause::default();
        loop {
            match timeout(PATIENCE, self.connect()).await {
                Ok(Ok(listener)) => {
                    pause = Pause::default();
                    self.doorbell.tell(Heard::Missed);
                    let error = self.hear(listener).await;
                    tracing::warn!(error, "the doorbell's connection is lost, connecting anew");
                    self.doorbell.tell(Heard::Missed);
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "other coordinators' doorbells cannot be heard");
                }
                Err(_) => tracing::warn!("other coordinators' doorbells cannot be heard in time"),
            }
            pause.wait().await;
        }
    }

    async fn connect(&self) -> sqlx::Result<PgListener> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        // Rings that come between two connections are lost: that is for us to tell.
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }

    /// Hears until the connection is lost; why it was.
    async fn hear(&self, mut listener: PgListener) -> String {
        let mut silent_at = Instant::now() + SILENCE;
        loop {
            match timeout_at(silent_at, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    silent_at = Instant::now() + SILENCE;
                    for heard in payload::read(&self.name, notification.payload()) {
                        self.doorbell.tell(heard);
                    }
                }
                Ok(Ok(None)) => return "closed".to_owned(),
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "silent".to_owned(),
            }
        }
    }
}

/// The pause before the next try.
#[derive(Debug)]
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(PAUSES[0])
    }
}

impl Pause {
    async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSES[1]);
    }
}

#[cfg(test)]
mod tests {
    use tidepool_shared::id::InstanceId;
    use tokio::task::JoinSet;
    use uuid::Uuid;

    use super::*;
    use crate::{
        doorbell::{Listener, Ring},
        store::{conformance::Outcome, throwaway::Throwaway},
    };

    /// A process's bell, and an ear at it.
    struct Process {
        doorbell: Doorbell,
        ear: Listener,
    }

    impl Process {
        async fn start(database: &Throwaway, tasks: &mut JoinSet<()>) -> anyhow::Result<Self> {
            let options = database.options()?;
            let (doorbell, messenger) = Messenger::new(options, &Chance::from_os(), Moment(1));
            let mut ear = doorbell.listen();
            tasks.spawn(messenger.run(CancellationToken::new()));
            // Once it listens it says so, in case something was missed before.
            assert_eq!(next(&mut ear).await, Some(Heard::Missed));
            Ok(Self { doorbell, ear })
        }
    }

    async fn next(ear: &mut Listener) -> Option<Heard> {
        timeout(Duration::from_secs(20), ear.hear()).await.ok()
    }

    #[tokio::test]
    async fn a_ring_on_postgres_is_heard_in_every_process_once() -> Outcome {
        let Some(database) = Throwaway::database().await? else {
            return Ok(());
        };
        let mut tasks = JoinSet::new();
        let mut one = Process::start(&database, &mut tasks).await?;
        let mut other = Process::start(&database, &mut tasks).await?;
        let id = InstanceId::new(Uuid::from_u128(7));
        one.doorbell.ring(Ring::Instance(id));
        assert_eq!(
            next(&mut other.ear).await,
            Some(Heard::Ring(Ring::Instance(id)))
        );
        assert_eq!(
            next(&mut one.ear).await,
            Some(Heard::Ring(Ring::Instance(id)))
        );
        // One's own ring came before the other's answer, or not at all.
        other.doorbell.ring(Ring::Pool);
        assert_eq!(next(&mut one.ear).await, Some(Heard::Ring(Ring::Pool)));
        Ok(())
    }

    #[tokio::test]
    async fn a_lost_connection_to_postgres_is_told_and_made_again() -> Outcome {
        let Some(database) = Throwaway::database().await? else {
            return Ok(());
        };
        let mut tasks = JoinSet::new();
        let mut one = Process::start(&database, &mut tasks).await?;
        let mut other = Process::start(&database, &mut tasks).await?;
        let pool = PgPool::connect_with(database.options()?).await?;
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND query LIKE 'LISTEN%'",
        )
        .execute(&pool)
        .await?;
        // Lost, and there again.
        for process in [&mut one, &mut other] {
            assert_eq!(next(&mut process.ear).await, Some(Heard::Missed));
            assert_eq!(next(&mut process.ear).await, Some(Heard::Missed));
        }
        one.doorbell.ring(Ring::Pool);
        assert_eq!(next(&mut other.ear).await, Some(Heard::Ring(Ring::Pool)));
        pool.close().await;
        Ok(())
    }

    #[tokio::test]
    async fn what_is_not_understood_on_postgres_is_a_look_at_everything() -> Outcome {
        let Some(database) = Throwaway::database().await? else {
            return Ok(());
        };
        let mut tasks = JoinSet::new();
        let mut one = Process::start(&database, &mut tasks).await?;
        let pool = PgPool::connect_with(database.options()?).await?;
        sqlx::query("SELECT pg_notify($1, 'stranger what?')")
            .bind(CHANNEL)
            .execute(&pool)
            .await?;
        assert_eq!(next(&mut one.ear).await, Some(Heard::Missed));
        pool.close().await;
        Ok(())
    }
}
