//! What was served, as the provider counted it.

use std::sync::{Arc, Mutex, PoisonError};

use super::dialect::Dialect;

/// Tokens, each in one count only; `reasoning` is a part of `output`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tokens {
    /// From no cache.
    pub input: u64,
    pub cache_read: u64,
    pub cache_write_5m: u64,
    pub cache_write_1h: u64,
    pub output: u64,
    pub reasoning: u64,
}

impl Tokens {
    /// All that was read, cached or not.
    pub fn prompt(&self) -> u64 {
        self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h
    }
}

/// How an answer ended, for the one who gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    UnderWay,
    /// All was given away, the usage with it.
    Whole,
    /// With an error's status.
    Refused,
    /// In the middle, by intent.
    BrokeOff,
    /// In the middle, with an error that was told.
    Stumbled,
    /// Nobody was there any more.
    ClientLeft,
}

/// One request that was answered.
#[derive(Debug, Clone)]
pub struct Served {
    pub dialect: Dialect,
    pub model: String,
    pub is_stream: bool,
    pub status: u16,
    /// The answer was to be a call of this tool.
    pub called: Option<String>,
    /// The request brought a tool's answer.
    pub has_result: bool,
    /// Of an answer that was not given to its end: what had been given by then.
    pub tokens: Tokens,
    pub ending: Ending,
    /// Where the dialect has it.
    pub key: Option<String>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Books(Arc<Mutex<Vec<Served>>>);

impl Books {
    pub(super) fn all(&self) -> Vec<Served> {
        self.with(|served| served.clone())
    }

    /// Begins a record.
    pub(super) fn open(&self, served: Served) -> Entry {
        let index = self.with(|all| {
            all.push(served);
            all.len() - 1
        });
        Entry {
            books: self.clone(),
            index,
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Vec<Served>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A record under way. Dropped before its end, its client has left.
#[derive(Debug)]
pub(super) struct Entry {
    books: Books,
    index: usize,
}

impl Entry {
    /// How many were served before.
    pub(super) fn number(&self) -> u64 {
        u64::try_from(self.index).unwrap_or(u64::MAX)
    }

    pub(super) fn count(&self, tokens: Tokens) {
        self.change(|served| served.tokens = tokens);
    }

    pub(super) fn end(self, status: u16, ending: Ending) {
        self.change(|served| {
            served.status = status;
            served.ending = ending;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Served)) {
        self.books.with(|all| all.get_mut(self.index).map(change));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.change(|served| {
            if served.ending == Ending::UnderWay {
                served.ending = Ending::ClientLeft;
            }
        });
    }
}
