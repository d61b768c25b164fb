//! The budget of requests: a Project has 3600 an hour, refilled by one a second, whoever asks.
//!
//! The bucket here is a guess of Hetzner's own, corrected by what every answer says is left, because
//! other clients of the Project draw from it too. Making servers stops while a sixth is left (600 of
//! 3600), so that deleting and looking can go on: what is not deleted costs, what is not made waits.
//!
//! `RateLimit-Reset` is not read: it says when the bucket is full again, which is not when to go on.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::pace::Pace;

/// What a Project has an hour until an answer says otherwise.
const REQUESTS_AN_HOUR: u64 = 3600;

/// This part of the budget is not for making servers.
const RESERVE: u64 = 6;

/// A request in the bucket's own unit, fine enough that no refill is rounded away.
const REQUEST: u64 = 1_000_000;

/// The bucket. Its methods lock for moments only.
#[derive(Debug)]
pub(super) struct Limiter {
    bucket: Mutex<Bucket>,
    pace: Pace,
}

#[derive(Debug)]
struct Bucket {
    /// In millionths of a request.
    level: u64,
    /// When the level was right.
    at: Instant,
    /// Requests an hour, and what the bucket holds.
    limit: u64,
    /// Requests that are not answered yet.
    in_flight: u64,
    /// Hetzner refused a request: none before this.
    closed_until: Option<Instant>,
}

/// A request that was let through, until it is answered or given up.
#[derive(Debug)]
pub(super) struct Ticket<'a>(&'a Limiter);

impl Limiter {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            bucket: Mutex::new(Bucket {
                level: REQUESTS_AN_HOUR * REQUEST,
                at: Instant::now(),
                limit: REQUESTS_AN_HOUR,
                in_flight: 0,
                closed_until: None,
            }),
            pace,
        }
    }

    /// Waits until a request may be sent.
    pub(super) async fn admit(&self) -> Ticket<'_> {
        loop {
            let Err(wait) = self.bucket().take(self.pace) else {
                return Ticket(self);
            };
            sleep(wait).await;
        }
    }

    /// How many requests are left, if that is too few for making a server.
    pub(super) fn short_of(&self) -> Option<u64> {
        let mut bucket = self.bucket();
        bucket.refill(self.pace);
        (bucket.level < bucket.limit * REQUEST / RESERVE).then_some(bucket.level / REQUEST)
    }

    /// Hetzner refused a request for want of budget: nothing is sent for this long.
    pub(super) fn close_for(&self, pause: Duration) {
        let mut bucket = self.bucket();
        bucket.refill(self.pace);
        bucket.level = 0;
        let until = Instant::now() + pause;
        bucket.closed_until = bucket.closed_until.max(Some(until));
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket<'_> {
    /// The answer said how much is left, and perhaps of how much. Requests on their way are not in that
    /// number yet.
    pub(super) fn corrected(&self, remaining: u64, limit: Option<u64>) {
        let mut bucket = self.0.bucket();
        bucket.refill(self.0.pace);
        bucket.limit = limit.filter(|limit| *limit > 0).unwrap_or(bucket.limit);
        let on_their_way = bucket.in_flight.saturating_sub(1);
        bucket.level = remaining
            .min(bucket.limit)
            .saturating_sub(on_their_way)
            .saturating_mul(REQUEST);
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut bucket = self.0.bucket();
        bucket.in_flight = bucket.in_flight.saturating_sub(1);
    }
}

impl Bucket {
    fn refill(&mut self, pace: Pace) {
        let now = Instant::now();
        let hours = pace.seconds(3600).as_micros().max(1);
        let gained =
            now.duration_since(self.at).as_micros() * u128::from(self.limit) * u128::from(REQUEST)
                / hours;
        let gained = u64::try_from(gained).unwrap_or(u64::MAX);
        self.level = self
            .level
            .saturating_add(gained)
            .min(self.limit.saturating_mul(REQUEST));
        self.at = now;
    }

    /// Takes a request out, or says how long to wait before the next try.
    fn take(&mut self, pace: Pace) -> Result<(), Duration> {
        self.refill(pace);
        let closed = self.closed_until.unwrap_or(self.at).duration_since(self.at);
        if !closed.is_zero() {
            return Err(closed);
        }
        if self.level < REQUEST {
            return Err(pace.seconds(1));
        }
        self.level -= REQUEST;
        self.in_flight += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    async fn spend(limiter: &Limiter, requests: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..requests {
            drop(limiter.admit().await);
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_bucket_lets_a_burst_through_and_then_one_a_second() {
        let limiter = Limiter::new(Pace::REAL);
        assert_eq!(spend(&limiter, 3600).await, Duration::ZERO);
        assert_eq!(spend(&limiter, 10).await, Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn making_servers_stops_at_a_sixth_and_goes_on_after_the_refill() {
        let limiter = Limiter::new(Pace::REAL);
        spend(&limiter, 3000).await;
        assert_eq!(limiter.short_of(), None);
        spend(&limiter, 1).await;
        assert_eq!(limiter.short_of(), Some(599));
        assert_eq!(spend(&limiter, 1).await, Duration::ZERO, "others go on");
        advance(Duration::from_secs(2)).await;
        assert_eq!(limiter.short_of(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_spent_is_learnt_from_the_answers() {
        let limiter = Limiter::new(Pace::REAL);
        let ticket = limiter.admit().await;
        let on_its_way = limiter.admit().await;
        ticket.corrected(3, Some(3600));
        drop((ticket, on_its_way));
        assert_eq!(spend(&limiter, 2).await, Duration::ZERO);
        assert_eq!(spend(&limiter, 1).await, Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_smaller_limit_refills_more_slowly() {
        let limiter = Limiter::new(Pace::REAL);
        limiter.admit().await.corrected(0, Some(360));
        assert_eq!(spend(&limiter, 1).await, Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_stops_everyone_for_the_pause() {
        let limiter = Limiter::new(Pace::REAL);
        limiter.close_for(Duration::from_millis(1500));
        limiter.close_for(Duration::from_millis(500));
        assert_eq!(spend(&limiter, 1).await, Duration::from_millis(1500));
    }
}
