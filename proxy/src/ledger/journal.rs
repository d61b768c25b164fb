//! The journal: where every attempt is noted before it is made, and the queue to the database.
//!
//! Lines are appended to segment files; the writer reads them back from there, so that memory does not
//! grow with what waits. A segment goes when all that was begun or ended in it is in the database.
//! Segments need not go in order: one that a long stream keeps does not keep its successors. If a
//! beginning outlives its end in this way, the next run notes a second end for it, which the database
//! takes for the row that it has.
//!
//! A line is in the hands of the kernel when it was appended, so it survives the process; it survives
//! the machine after the next [`Journal::flush`].

use std::{
    borrow::Cow,
    collections::VecDeque,
    error::Error,
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    batch::{BATCH_ROWS, Batch, Cursor, Source},
    figures::Counters,
    recovery::Found,
    row::{Ended, Line, Row},
    segment,
    segments::Segments,
};

/// All segments together: about 900,000 attempts, half an hour without a database at 500 a second.
/// Beyond it no attempt begins; the ends of those under way are still taken.
pub(super) const CEILING_BYTES: u64 = 1 << 30;
/// Ends that could not be journalled and wait in memory: 10 MB, and more than are ever under way. With
/// a journal that cannot be written nothing begins, so these are all that can come.
const SPARE_ROWS: usize = 10_000;

/// Why an attempt must not be made: it could not be noted.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    #[error("the journal is full: the database has not taken rows for long")]
    Full,
    #[error("write the journal")]
    Journal(#[source] io::Error),
}

#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    ceiling_bytes: u64,
    /// Held while a line is appended, which may wait for the disk; never across an `.await`.
    state: Mutex<State>,
    pub(super) counters: Counters,
}

#[derive(Debug)]
struct State {
    segments: Segments,
    /// Ends that are in no segment.
    spare: VecDeque<Ended>,
    /// Whether the last attempt could not begin; said once.
    refusing: bool,
}

impl Journal {
    /// Goes on after what earlier runs left, and notes an end for what they left open.
    pub(super) fn open(directory: PathBuf, found: Found, ceiling_bytes: u64) -> Self {
        let journal = Self {
            directory,
            ceiling_bytes,
            state: Mutex::new(State {
                segments: Segments::left(found.segments),
                spare: VecDeque::new(),
                refusing: false,
            }),
            counters: Counters::default(),
        };
        journal.counters.found(found.ended, found.open.len());
        // Not refused with a full disk: rows that reach the database make room.
        for ended in found.open {
            journal.end(ended);
        }
        journal
    }

    /// Notes a beginning and says in which segment.
    pub(super) fn begin(&self, row: &Row) -> Result<u64, NotBegun> {
        let line = Line::Begin(Cow::Borrowed(row))
            .bytes()
            .map_err(|source| NotBegun::Journal(source.into()))?;
        let mut state = self.state();
        let begun = if state.segments.bytes() < self.ceiling_bytes {
            let appended = state.segments.append(&self.directory, &line);
            appended.map_err(NotBegun::Journal)
        } else {
            Err(NotBegun::Full)
        };
        state.refuses(begun.as_ref().err());
        let number = begun.inspect_err(|_| self.counters.refused())?;
        state.segments.hold(number);
        self.counters.begun();
        Ok(number)
    }

    /// Notes an end: in the journal, or if that fails in memory.
    pub(super) fn end(&self, ended: Ended) {
        let line = Line::End(Cow::Borrowed(&ended)).bytes();
        let mut state = self.state();
        let appended = line
            .map_err(io::Error::from)
            .and_then(|line| state.segments.append(&self.directory, &line));
        let Err(error) = appended else {
            return self.counters.ended();
        };
        if state.spare.len() < SPARE_ROWS {
            tracing::error!(attempt.id = ended.row.id, %error, "an end is only in memory");
            state.spare.push_back(ended);
            self.counters.unjournalled();
        } else {
            // The next start will write the row, with the estimate that it began with.
            tracing::error!(attempt.id = ended.row.id, %error, "an end was not noted");
            self.counters.unnoted();
        }
    }

    /// Makes durable what was written so far. Waits for the disk.
    pub(super) fn flush(&self) -> io::Result<()> {
        let unsynced = self.state().segments.take_unsynced();
        unsynced.sync(&self.directory)
    }

    /// The next rows after `cursor` that wait for the database.
    pub(super) fn batch(&self, cursor: Cursor) -> io::Result<Batch> {
        let span = {
            let state = self.state();
            if !state.spare.is_empty() {
                let ended = state.spare.iter().take(BATCH_ROWS).cloned().collect();
                return Ok(Batch::of(Source::Spare, ended));
            }
            state.segments.span(cursor)
        };
        let Some(span) = span else {
            return Ok(Batch::of(Source::Journal(cursor), Vec::new()));
        };
        let bytes = segment::read_span(&self.directory, span)?;
        Ok(Batch::read(span, &bytes))
    }

    /// Notes that the rows of a batch are in the database.
    pub(super) fn committed(&self, batch: &Batch) -> io::Result<()> {
        if !batch.damaged.is_empty() {
            segment::set_aside(&self.directory, &batch.damaged)?;
            self.counters.damaged(batch.damaged.len());
        }
        let mut state = self.state();
        for ended in &batch.ended {
            state.segments.release(ended.begun_in);
        }
        if batch.source == Source::Spare {
            let rows = batch.ended.len().min(state.spare.len());
            state.spare.drain(..rows);
        }
        Ok(())
    }

    /// Removes the segments up to `cursor` that nothing needs any more.
    pub(super) fn tidy(&self, cursor: Cursor) {
        let done = self.state().segments.done(cursor);
        for number in done {
            if let Err(error) = segment::remove(&self.directory, number) {
                tracing::warn!(segment = number, %error, "a segment stays for the next start to read");
            }
        }
    }

    /// Bytes in all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.state().segments.bytes()
    }

    /// The next line finds no room.
    #[cfg(test)]
    pub(super) fn fill_disk(&self) {
        self.state().segments.fill_disk();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Says when attempts cannot begin any more, and when they can again.
    fn refuses(&mut self, reason: Option<&NotBegun>) {
        match reason {
            Some(reason) if !self.refusing => {
                let cause = reason.source().map(ToString::to_string);
                tracing::error!(error = %reason, cause, "no attempt can begin");
            }
            None if self.refusing => tracing::info!("attempts can begin again"),
            _ => {}
        }
        self.refusing = reason.is_some();
    }
}
