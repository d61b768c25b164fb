//! What is counted: buckets that hold a minute's allowance and fill evenly.
//!
//! A bucket is kept as the moment at which it will be full again (the generic cell rate algorithm, GCRA):
//! one number, with nothing to reset at the turn of a minute. The same in Rust and, for Redis, in Lua
//! (`count.lua`); a test holds one against the other.

use std::time::Duration;

/// In microseconds.
const MINUTE: u64 = 60_000_000;
/// One huge answer does not shut an instance out for longer.
const DEBT_MAX: u64 = 60 * MINUTE;

/// A question: may so many requests come, and so many tokens were used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) requests_per_minute: Option<u64>,
    pub(super) requests: u64,
    pub(super) tokens_per_minute: Option<u64>,
    pub(super) used: u64,
}

/// So many requests may, and so many tokens are left; or nothing may, for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) granted: u64,
    pub(super) tokens: u64,
    pub(super) wait: Duration,
}

/// The moments at which an instance's buckets are full, in microseconds.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    requests: u64,
    tokens: u64,
}

impl Buckets {
    pub(super) fn answer(&mut self, ask: &Ask, now: u64) -> Answer {
        let mut tokens = u64::MAX;
        let mut wait = 0;
        if let Some(limit) = ask.tokens_per_minute {
            charge(&mut self.tokens, ask.used, limit, now);
            tokens = room(self.tokens, limit, now);
            wait = until_one(self.tokens, limit, now);
        }
        let mut granted = if tokens > 0 { ask.requests } else { 0 };
        if let Some(limit) = ask.requests_per_minute {
            let fits = room(self.requests, limit, now);
            if fits == 0 {
                wait = wait.max(until_one(self.requests, limit, now));
            }
            granted = granted.min(fits);
            charge(&mut self.requests, granted, limit, now);
        }
        Answer {
            granted,
            tokens,
            wait: Duration::from_micros(wait),
        }
    }
}

fn charge(full: &mut u64, count: u64, limit: u64, now: u64) {
    let takes = u128::from(count) * u128::from(MINUTE);
    let takes = takes.div_ceil(u128::from(limit.max(1)));
    let takes = u64::try_from(takes).unwrap_or(u64::MAX);
    let debt = (*full).max(now).saturating_add(takes);
    *full = debt.min(now.saturating_add(DEBT_MAX));
}

fn room(full: u64, limit: u64, now: u64) -> u64 {
    let free = MINUTE.saturating_sub(full.max(now) - now);
    u64::try_from(u128::from(free) * u128::from(limit) / u128::from(MINUTE)).unwrap_or(u64::MAX)
}

/// Until there is room for one.
fn until_one(full: u64, limit: u64, now: u64) -> u64 {
    let debt = full.max(now) - now;
    let one = MINUTE.div_ceil(limit.max(1));
    (debt + one).saturating_sub(MINUTE)
}
