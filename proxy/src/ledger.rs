//! The ledger: one row for every attempt to ask an upstream, never lost and never doubled.
//!
//! An attempt is noted in a journal on disk *before* it is made, and its end when it has one. One task,
//! the [`Writer`], moves what has ended into the table `usage_records`. What fails in between changes
//! only when a row arrives:
//!
//! - *The database is away.* Rows wait in the journal, on disk and not in memory, and nobody waits for
//!   them. At a gigabyte no attempt begins any more: a call that cannot be billed is not made.
//! - *The proxy is killed.* What was noted is with the kernel. The next start writes it, and for an
//!   attempt without an end a row with the estimate that it began with (`proxy_died`).
//! - *The client leaves, a task is cancelled or panics.* Dropping the [`Entry`] notes the end.
//! - *The journal cannot be written.* No attempt begins. The ends of those under way wait in memory; if
//!   the proxy dies as well, their beginnings stand for them.
//! - *The machine loses power.* Lines are made durable every 100 ms, so the attempts that began in the
//!   last 100 ms (and as long as the disk took to write) may be lost, and those that ended in that time
//!   are written as `proxy_died`. A sync for each line would cost every request a write to the disk.
//!
//! Whatever is in doubt is written again: a row has its attempt's id, and one that is there is passed
//! over. A queue in memory in front of the database, the common way, is not taken: it has to choose
//! between waiting and forgetting when it is full, and forgets when the process dies.
//!
//! Noting takes microseconds: one `write` of one line, under a lock. It is synchronous, because a drop
//! cannot wait; a disk that stalls therefore stalls the callers. No line holds a prompt or an answer.

mod attempt;
mod batch;
mod entry;
mod figures;
mod id;
mod journal;
mod recovery;
mod row;
mod segment;
mod segments;
mod table;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidepool_shared::database_url::DatabaseUrl;

pub use self::{
    attempt::{Attempt, Ending, Outcome, Payer, Seen},
    entry::Entry,
    figures::Figures,
    id::AttemptId,
    journal::NotBegun,
    writer::Writer,
};
use self::{
    journal::{CEILING_BYTES, Journal},
    row::Row,
    table::Table,
};
use crate::{
    budget::Budgets,
    lock::{Lock, NotLocked},
};

/// Where attempts are noted. Clones are the same ledger.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Shared>);

/// What ledger, entries and writer have in common.
#[derive(Debug)]
struct Shared {
    journal: Journal,
    _lock: Lock,
}

/// Why there is no ledger.
#[derive(Debug, thiserror::Error)]
pub enum OpenLedger {
    #[error("create directory `{path}`")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("keep other proxies out of the journal")]
    Lock(#[source] NotLocked),
    #[error("read the journal in `{path}`")]
    Journal {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read the database's URL")]
    Database(#[source] sqlx::Error),
}

impl Ledger {
    /// Opens the journal in a directory, creating it for its owner only. One proxy has it until the
    /// last clone, entry and writer are gone.
    ///
    /// Reads what earlier runs left, at most a gigabyte, before it returns. The database need not be
    /// there yet, but its tables are the coordinator's to make.
    pub fn open(
        directory: &Path,
        database: &DatabaseUrl,
        budgets: Arc<Budgets>,
    ) -> Result<(Self, Writer), OpenLedger> {
        Self::open_with(directory, database, budgets, CEILING_BYTES)
    }

    fn open_with(
        directory: &Path,
        database: &DatabaseUrl,
        budgets: Arc<Budgets>,
        ceiling_bytes: u64,
    ) -> Result<(Self, Writer), OpenLedger> {
        let path = directory.to_owned();
        let table = Table::of(database, budgets.holder()).map_err(OpenLedger::Database)?;
        if let Err(source) = make(directory) {
            return Err(OpenLedger::Directory { path, source });
        }
        let lock = Lock::take(&directory.join("ledger.lock")).map_err(OpenLedger::Lock)?;
        let found = recovery::scan(directory).map_err(|source| OpenLedger::Journal {
            path: path.clone(),
            source,
        })?;
        let journal = Journal::open(path, found, ceiling_bytes);
        let shared = Arc::new(Shared {
            journal,
            _lock: lock,
        });
        let writer = Writer::new(Arc::clone(&shared), table, budgets);
        let ledger = Self(shared);
        let Figures {
            waiting, recovered, ..
        } = ledger.figures();
        tracing::info!(waiting, recovered, "ledger opened");
        Ok((ledger, writer))
    }

    /// Notes an attempt. It must not be made if this fails.
    pub fn begin(&self, attempt: Attempt) -> Result<Entry, NotBegun> {
        let id = AttemptId::made(attempt.at);
        let row = Row::begun(id, attempt);
        let begun_in = self.0.journal.begin(&row)?;
        Ok(Entry::new(Arc::clone(&self.0), id, begun_in, row))
    }

    /// Counts, for metrics.
    pub fn figures(&self) -> Figures {
        self.0.figures()
    }
}

/// Makes a directory as durable as what will be in it.
fn make(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory)?;
    match directory.canonicalize()?.parent() {
        Some(parent) => segment::sync_names(parent),
        None => Ok(()),
    }
}

impl Shared {
    fn figures(&self) -> Figures {
        self.journal.counters.figures(self.journal.bytes())
    }
}
