//! The one task that moves rows from the journal to the database.

use std::{borrow::Cow, io, sync::Arc, time::Duration};

use tokio::{
    task::{JoinError, spawn_blocking},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    batch::{Batch, Cursor, Source},
    row::Line,
    table::{NotWritten, Table},
};
use crate::budget::{Budgets, Written};

/// Between looks for new rows; also how much of the journal a power cut may take.
const TURN: Duration = Duration::from_millis(100);
/// After the first failure, doubled with each further one.
const BREATH: Duration = Duration::from_millis(100);
const LONGEST_BREATH: Duration = Duration::from_secs(5);
/// For what still waits at shutdown. What is left waits in the journal for the next start.
const DRAIN: Duration = Duration::from_secs(10);

/// Moves rows until it is told to stop. There is one, and it must run for rows to be written.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    table: Table,
    budgets: Arc<Budgets>,
    /// In the database, and not noted as such: it is not written, or taken off budgets, a second time.
    written: Option<Batch>,
    /// All before it is in the database.
    cursor: Cursor,
    failing: Option<Failing>,
}

/// Since when, and how long to wait before the next try.
#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Instant,
    breath: Duration,
}

/// What a turn moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing: all is in the database.
    Idle,
    /// All that there was.
    Part,
    /// As much as goes at once, or nothing because it failed: more may wait.
    Full,
}

/// Why a turn came to nothing.
#[derive(Debug, thiserror::Error)]
enum FailedTurn {
    #[error("read the journal")]
    Read(#[source] io::Error),
    #[error("keep damaged lines aside")]
    SetAside(#[source] io::Error),
    #[error("write to the database")]
    Database(#[from] NotWritten),
    #[error("a piece of work on the journal ended early")]
    Ended(#[from] JoinError),
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, table: Table, budgets: Arc<Budgets>) -> Self {
        Self {
            shared,
            table,
            budgets,
            written: None,
            cursor: Cursor::default(),
            failing: None,
        }
    }

    /// Runs until `cancel`, then writes what still waits, within ten seconds. Cancel it when no
    /// attempt is under way any more.
    pub async fn run(mut self, cancel: CancellationToken) {
        let (shared, written) = (Arc::clone(&self.shared), CancellationToken::new());
        tokio::join!(keep_durable(&shared, &written), async {
            self.write_until(&cancel).await;
            written.cancel();
        });
    }

    async fn write_until(&mut self, cancel: &CancellationToken) {
        // A turn may be cut short anywhere: what it did not finish is done again.
        cancel.run_until_cancelled(self.write()).await;
        if let Some(failing) = &mut self.failing {
            failing.breath = BREATH;
        }
        let draining = async {
            while self.turn().await != Turn::Idle {}
            self.table.close().await
        };
        match timeout(DRAIN, draining).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the database's connection was cut"),
            Err(_) => {
                let waiting = self.shared.figures().waiting;
                tracing::warn!(waiting, "rows wait in the journal for the next start");
            }
        }
    }

    async fn write(&mut self) {
        loop {
            if self.turn().await != Turn::Full {
                sleep(TURN).await;
            }
        }
    }

    /// Moves a batch if there is one; waits if that fails.
    async fn turn(&mut self) -> Turn {
        match self.try_turn().await {
            Ok(turn) => {
                if let Some(failing) = self.failing.take() {
                    let duration_s = failing.since.elapsed().as_secs();
                    tracing::info!(duration_s, "usage records are written again");
                }
                turn
            }
            Err(error) => {
                self.shared.journal.counters.failed_batch();
                let breath = self.fail(error);
                sleep(breath).await;
                Turn::Full
            }
        }
    }

    async fn try_turn(&mut self) -> Result<Turn, FailedTurn> {
        let batch = if let Some(batch) = self.written.take() {
            batch
        } else {
            let mut batch = self.next().await?;
            if batch.is_at_end(self.cursor) {
                self.tidy().await?;
                return Ok(Turn::Idle);
            }
            let reserved = self.reserved(&batch);
            let budgets = Arc::clone(&self.budgets);
            budgets
                .while_writing(&reserved, Box::pin(self.insert(&mut batch)))
                .await?;
            batch
        };
        // Nothing waits from here on: rows that are in the database are not read again.
        let journal = &self.shared.journal;
        if let Err(error) = journal.committed(&batch) {
            self.written = Some(batch);
            return Err(FailedTurn::SetAside(error));
        }
        journal.counters.written(batch.ended.len());
        if let Source::Journal(cursor) = batch.source {
            self.cursor = cursor;
        }
        if batch.is_full {
            return Ok(Turn::Full);
        }
        self.tidy().await?;
        Ok(Turn::Part)
    }

    async fn next(&self) -> Result<Batch, FailedTurn> {
        let (shared, cursor) = (Arc::clone(&self.shared), self.cursor);
        spawn_blocking(move || shared.journal.batch(cursor))
            .await?
            .map_err(FailedTurn::Read)
    }

    async fn tidy(&self) -> Result<(), FailedTurn> {
        let (shared, cursor) = (Arc::clone(&self.shared), self.cursor);
        Ok(spawn_blocking(move || shared.journal.tidy(cursor)).await?)
    }

    /// Writes the rows of a batch. What the database will never take must not keep what comes after
    /// it, so it is counted with the damaged lines.
    async fn insert(&mut self, batch: &mut Batch) -> Result<Vec<Written>, NotWritten> {
        let rows = batch
            .ended
            .iter()
            .map(|ended| &ended.row)
            .collect::<Vec<_>>();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        match self.table.insert(&rows).await {
            Err(error) if error.is_final() => {}
            written => return written,
        }
        let mut left = Vec::new();
        for ended in &batch.ended {
            match self.table.insert(&[&ended.row]).await {
                Ok(more) => left.extend(more),
                Err(error) if error.is_final() => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::error!(attempt.id = ended.row.id, error, "a row is kept aside");
                    batch.damaged.push(Line::End(Cow::Borrowed(ended)).bytes()?);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(left)
    }

    /// What the rows cost for which something was reserved in this run.
    fn reserved(&self, batch: &Batch) -> Vec<Written> {
        let ours = batch.ended.iter().map(|ended| &ended.row);
        ours.filter(|row| row.holder() == Some(self.budgets.holder()))
            .filter_map(|row| {
                let (instance, cost) = row.charged()?;
                Some(Written {
                    instance,
                    microcents: u64::try_from(cost).unwrap_or(0),
                })
            })
            .collect()
    }

    /// Says once that it fails, and how long to wait.
    fn fail(&mut self, error: FailedTurn) -> Duration {
        let error = format!("{:#}", anyhow::Error::new(error));
        let failing = if let Some(failing) = self.failing {
            tracing::debug!(error, "usage records are still not written");
            failing.longer()
        } else {
            tracing::warn!(
                error,
                "usage records are not written: they wait in the journal"
            );
            Failing::now()
        };
        self.failing = Some(failing);
        failing.breath
    }
}

impl Failing {
    fn now() -> Self {
        Self {
            since: Instant::now(),
            breath: BREATH,
        }
    }

    fn longer(self) -> Self {
        let breath = (self.breath * 2).min(LONGEST_BREATH);
        Self { breath, ..self }
    }
}

/// Makes the journal durable again and again, whatever the database does, and once more at the end.
async fn keep_durable(shared: &Arc<Shared>, written: &CancellationToken) {
    let mut was_kept = true;
    while !written.is_cancelled() {
        // The pause is cut short by the end, not left out: ends may have been noted meanwhile.
        written.run_until_cancelled(sleep(TURN)).await;
        let kept = flush(shared).await;
        if let Err(error) = &kept
            && was_kept
        {
            tracing::error!(%error, "the journal may not survive a power cut");
        }
        was_kept = kept.is_ok();
    }
}

async fn flush(shared: &Arc<Shared>) -> io::Result<()> {
    let shared = Arc::clone(shared);
    spawn_blocking(move || shared.journal.flush()).await?
}
