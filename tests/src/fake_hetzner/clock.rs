//! The fake's time: tokio's, so that a test may pause it, from the wall clock's at its start.

use std::time::Duration;

use tidepool_coordinator::ambient::{Clock as _, Moment, SystemClock};
use tokio::time::Instant;

/// Tells the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    began: Moment,
    at: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            began: SystemClock.now(),
            at: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.began.plus(self.at.elapsed())
    }

    /// When a moment comes, for a sleep; past ones come at once.
    pub(super) fn instant(&self, moment: Moment) -> Instant {
        self.at + moment.since(self.began)
    }
}

/// As the API writes it: whole seconds, `Z`.
pub(super) fn rfc3339(moment: Moment) -> String {
    let millis = moment.rfc3339();
    let seconds = millis.split('.').next().unwrap_or(&millis);
    format!("{seconds}Z")
}

/// Whole seconds since the Unix epoch, after a while.
pub(super) fn unix_seconds(moment: Moment, later: Duration) -> i64 {
    moment.plus(later).0.div_euclid(1_000_000)
}
