//! What one request used, in tokens, whoever answered it.
//!
//! Providers count in different ways: with some the prompt includes what came from the cache, with
//! others it does not. Here no token is in two counts, so that none can be paid for twice.

use serde::Serialize;

mod generation;
mod number;
mod observer;
mod read;
mod scan;

pub(crate) use generation::of_generation;
pub use observer::{EventKind, Observed, Observer};
pub(crate) use read::Told;

/// Tokens of one request. All counts but `reasoning` are disjoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Read by the model and neither taken from a cache nor written to one.
    pub input: u64,
    /// Input that came from the provider's cache.
    pub cache_read: u64,
    /// Input written to the cache for five minutes, or for as long as the provider does by default.
    pub cache_write_5m: u64,
    /// Input written to the cache for an hour.
    pub cache_write_1h: u64,
    /// Everything generated, thinking included.
    pub output: u64,
    /// The part of `output` that was thinking.
    pub reasoning: u64,
}

impl Usage {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write_5m: self.cache_write_5m.saturating_add(other.cache_write_5m),
            cache_write_1h: self.cache_write_1h.saturating_add(other.cache_write_1h),
            output: self.output.saturating_add(other.output),
            reasoning: self.reasoning.saturating_add(other.reasoning),
        }
    }

    /// All that the model read. Price steps go by it, cached or not.
    pub fn total_input(&self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write_5m)
            .saturating_add(self.cache_write_1h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_input_counts_cached_tokens_and_stops_at_the_ceiling() {
        let mut usage = Usage {
            input: 1,
            cache_read: 20,
            cache_write_5m: 300,
            cache_write_1h: 4000,
            output: 50_000,
            reasoning: 600,
        };
        assert_eq!(usage.total_input(), 4321);
        usage.input = u64::MAX;
        assert_eq!(usage.total_input(), u64::MAX);
    }
}
