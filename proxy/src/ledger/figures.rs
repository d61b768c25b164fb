//! Counts of the ledger, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What the ledger did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Attempts that were noted before they were made.
    pub begun: u64,
    /// Attempts that were refused because they could not be noted.
    pub refused: u64,
    /// Ends that were noted, in the journal or in memory; those of `recovered` too.
    pub ended: u64,
    /// Of these, those that were never in the journal.
    pub unjournalled: u64,
    /// Ends that could not be noted at all; the next start writes their rows, as estimates.
    pub unnoted: u64,
    /// Attempts that earlier runs left without an end.
    pub recovered: u64,
    /// Rows that wait no more: they are in the database, or kept aside.
    pub written: u64,
    /// Rows that wait for the database.
    pub waiting: u64,
    /// Batches that the database did not take, each time.
    pub failed_batches: u64,
    /// Lines of the journal that could not be used and are kept aside.
    pub damaged_lines: u64,
    /// Bytes in the journal.
    pub journal_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    begun: AtomicU64,
    refused: AtomicU64,
    ended: AtomicU64,
    unjournalled: AtomicU64,
    unnoted: AtomicU64,
    recovered: AtomicU64,
    /// Rows that waited at any time.
    queued: AtomicU64,
    written: AtomicU64,
    failed_batches: AtomicU64,
    damaged_lines: AtomicU64,
}

impl Counters {
    /// Earlier runs left ends, and attempts without one.
    pub(super) fn found(&self, ended: usize, open: usize) {
        add(&self.queued, ended);
        add(&self.recovered, open);
    }

    pub(super) fn begun(&self) {
        add(&self.begun, 1);
    }

    pub(super) fn refused(&self) {
        add(&self.refused, 1);
    }

    pub(super) fn ended(&self) {
        add(&self.ended, 1);
        add(&self.queued, 1);
    }

    pub(super) fn unjournalled(&self) {
        self.ended();
        add(&self.unjournalled, 1);
    }

    pub(super) fn unnoted(&self) {
        add(&self.unnoted, 1);
    }

    pub(super) fn written(&self, rows: usize) {
        add(&self.written, rows);
    }

    pub(super) fn failed_batch(&self) {
        add(&self.failed_batches, 1);
    }

    pub(super) fn damaged(&self, lines: usize) {
        add(&self.damaged_lines, lines);
    }

    pub(super) fn figures(&self, journal_bytes: u64) -> Figures {
        // First, so that it is not more than what was queued.
        let written = self.written.load(Relaxed);
        Figures {
            begun: self.begun.load(Relaxed),
            refused: self.refused.load(Relaxed),
            ended: self.ended.load(Relaxed),
            unjournalled: self.unjournalled.load(Relaxed),
            unnoted: self.unnoted.load(Relaxed),
            recovered: self.recovered.load(Relaxed),
            written,
            waiting: self.queued.load(Relaxed).saturating_sub(written),
            failed_batches: self.failed_batches.load(Relaxed),
            damaged_lines: self.damaged_lines.load(Relaxed),
            journal_bytes,
        }
    }
}

fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Relaxed);
}
