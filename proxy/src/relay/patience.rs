//! How long an answer may be silent, and how long it may last.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

/// Without a word to the client; then a comment, which means nothing and keeps the connection.
const QUIET: Duration = Duration::from_secs(15);
/// Between two chunks. The SDKs' own watchdogs are longer or the same.
const SILENCE: Duration = Duration::from_mins(5);
/// From the beginning to the end, however much is said. The journal keeps everything that was written since,
/// and whoever reads slowly enough could fill it.
const LIFETIME: Duration = Duration::from_hours(2);

/// An answer's time.
#[derive(Debug)]
pub(super) struct Patience {
    begun: Instant,
    heard: Instant,
    alarm: Pin<Box<Sleep>>,
}

/// What there is time for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    /// It was quiet for long.
    ForAWord,
    /// It took too long.
    ToBreakOff,
}

impl Patience {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            heard: now,
            alarm: Box::pin(sleep(QUIET)),
        }
    }

    /// Something came. Whether there is time for more.
    pub(super) fn hear(&mut self) -> bool {
        self.heard = Instant::now();
        self.heard.duration_since(self.begun) < LIFETIME
    }

    /// Waits for either.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Time> {
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let now = Instant::now();
            let silence = now.duration_since(self.heard);
            let left = QUIET.saturating_sub(silence);
            if left.is_zero() {
                self.alarm.as_mut().reset(now + QUIET);
                let is_over = silence > SILENCE || now.duration_since(self.begun) >= LIFETIME;
                return Poll::Ready(if is_over {
                    Time::ToBreakOff
                } else {
                    Time::ForAWord
                });
            }
            // It was set when something older was heard: to set it anew for every event costs more.
            self.alarm.as_mut().reset(now + left);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::advance;

    use super::*;

    async fn next(patience: &mut Patience) -> Time {
        poll_fn(|context| patience.poll(context)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_is_due_every_fifteen_seconds_and_after_five_minutes_it_is_over() {
        let begun = Instant::now();
        let mut patience = Patience::new();
        for number in 1..=20 {
            assert_eq!(next(&mut patience).await, Time::ForAWord);
            assert_eq!(begun.elapsed().as_secs(), number * 15);
        }
        assert_eq!(next(&mut patience).await, Time::ToBreakOff);
        assert_eq!(begun.elapsed().as_secs(), 315);
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_heard_puts_it_off() {
        let begun = Instant::now();
        let mut patience = Patience::new();
        advance(Duration::from_secs(10)).await;
        assert!(patience.hear());
        assert_eq!(next(&mut patience).await, Time::ForAWord);
        assert_eq!(begun.elapsed().as_secs(), 25);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_lasts_longer_than_two_hours_however_much_is_said() {
        let mut patience = Patience::new();
        advance(LIFETIME.saturating_sub(Duration::from_secs(1))).await;
        assert!(patience.hear());
        advance(Duration::from_secs(1)).await;
        assert!(!patience.hear());
        assert_eq!(next(&mut patience).await, Time::ToBreakOff);
    }
}
