//! The bucket of requests that all clients of a Project share.

use std::time::Duration;

use tidepool_coordinator::ambient::Moment;

use super::{clock::unix_seconds, settings::Rate};

/// A bucket. Full at first.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    left: f64,
    at: Moment,
}

/// The bucket after a request, as headers tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// Unix seconds when the bucket is *full* again.
    pub(super) reset: i64,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Moment) -> Self {
        let left = f64::from(rate.requests);
        Self {
            rate,
            left,
            at: now,
        }
    }

    /// Takes one request out; an error when there is none.
    pub(super) fn take(&mut self, now: Moment) -> Result<Level, Level> {
        let full = f64::from(self.rate.requests);
        let back = now.since(self.at).as_secs_f64() * self.rate.refill;
        self.left = (self.left + back).min(full);
        self.at = self.at.max(now);
        if self.left < 1.0 {
            return Err(self.level(now));
        }
        self.left -= 1.0;
        Ok(self.level(now))
    }

    fn level(&self, now: Moment) -> Level {
        let missing = f64::from(self.rate.requests) - self.left;
        let until_full = Duration::try_from_secs_f64(missing / self.rate.refill.max(1e-6))
            .unwrap_or(Duration::from_hours(1));
        Level {
            limit: self.rate.requests,
            remaining: whole(self.left),
            reset: unix_seconds(now, until_full),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and a u32"
)]
fn whole(left: f64) -> u32 {
    left.max(0.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_bucket_gives_one_request_a_second() {
        let rate = Rate {
            requests: 3,
            refill: 1.0,
        };
        let start = Moment(1_000_000_000);
        let mut bucket = Bucket::new(rate, start);
        for remaining in [2, 1, 0] {
            assert_eq!(bucket.take(start).unwrap().remaining, remaining);
        }
        let empty = bucket.take(start).unwrap_err();
        assert_eq!((empty.limit, empty.remaining, empty.reset), (3, 0, 1003));
        let later = start.plus(Duration::from_secs(1));
        assert_eq!(bucket.take(later).unwrap().remaining, 0);
        assert!(bucket.take(later).is_err());
        // It never holds more than it began with.
        let much_later = start.plus(Duration::from_hours(1));
        assert_eq!(bucket.take(much_later).unwrap().remaining, 2);
    }
}
