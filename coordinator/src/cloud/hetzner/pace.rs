//! How long the client's second is.
//!
//! Every wait, time-out and deadline of the client is so many of these seconds, and so is the refill
//! of its request budget. Against a fake that is as fast, a test makes it some milliseconds and sees
//! the same decisions in the same order.

use std::time::Duration;

/// The length of a second.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    second: Duration,
}

impl Pace {
    /// As it is.
    pub const REAL: Self = Self {
        second: Duration::from_secs(1),
    };

    /// Of a length of one's own, which must not be nothing.
    pub const fn with_second(second: Duration) -> Self {
        assert!(!second.is_zero(), "time must pass");
        Self { second }
    }

    /// So many seconds.
    pub(super) fn seconds(self, count: u32) -> Duration {
        self.second.saturating_mul(count)
    }
}
