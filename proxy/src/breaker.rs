//! A breaker for each provider: one that failed several times in a row is left alone for a while.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// How long it stays open. Then it is half open until an attempt fails or succeeds.
const OPEN: Duration = Duration::from_secs(10);
/// While it is half open, one request in so long a time may try: not all that came meanwhile at once, and the next one
/// if nothing was heard of the first.
const PROBE: Duration = Duration::from_secs(2);

/// Without a word for so long, an answer that nobody waits for any more counts as a failure.
const HANGS: Duration = Duration::from_secs(20);

/// All providers' breakers.
#[derive(Debug, Default)]
pub(crate) struct Breakers(Mutex<HashMap<String, Breaker>>);

#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breakers {
    /// Whether this provider should be left alone now, if there is another one.
    pub(crate) fn is_open(&self, provider: &str) -> bool {
        let breakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        breakers
            .get(provider)
            .and_then(|breaker| breaker.open_until)
            .is_some_and(|until| Instant::now() < until)
    }

    /// One request is about to ask this provider: if its breaker is half open, the others wait for what becomes of it.
    pub(crate) fn try_half_open(&self, provider: &str) {
        let mut breakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = breakers
            .get_mut(provider)
            .and_then(|breaker| breaker.open_until.as_mut());
        let now = Instant::now();
        if let Some(until) = until.filter(|until| now >= **until) {
            *until = now + PROBE;
        }
    }

    /// Somebody begins to wait for it.
    pub(crate) fn wait<'a>(&'a self, provider: &'a str) -> Waiting<'a> {
        Waiting {
            breakers: self,
            provider,
            since: Instant::now(),
            is_over: false,
        }
    }

    /// It answered.
    pub(crate) fn answered(&self, provider: &str) {
        let mut breakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.remove(provider);
    }

    /// It did not, or said that it cannot.
    pub(crate) fn failed(&self, provider: &str) {
        let mut breakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let breaker = breakers.entry(provider.to_owned()).or_default();
        breaker.failures = breaker.failures.saturating_add(1);
        if breaker.failures >= FAILURES {
            if breaker.open_until.is_none() {
                tracing::warn!(
                    provider,
                    "failed again and again, and is left alone for a while"
                );
            }
            breaker.open_until = Some(Instant::now() + OPEN);
        }
    }
}

/// A wait for the head of a stream. A client that gives up drops it with all else: without this, a provider that
/// takes requests and never answers would not be left alone until one client waited for ten minutes.
#[derive(Debug)]
#[must_use = "it is over when this is dropped"]
pub(crate) struct Waiting<'a> {
    breakers: &'a Breakers,
    provider: &'a str,
    since: Instant,
    is_over: bool,
}

impl Waiting<'_> {
    /// There is an answer, or a failure that is told otherwise.
    pub(crate) fn over(mut self) {
        self.is_over = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.since.elapsed() >= HANGS {
            self.breakers.failed(self.provider);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_after_twenty_seconds_tells_of_a_failure() {
        let breakers = Breakers::default();
        for _ in 0..5 {
            let early = breakers.wait("one");
            tokio::time::advance(Duration::from_secs(19)).await;
            drop(early);
            let answered = breakers.wait("one");
            tokio::time::advance(Duration::from_mins(5)).await;
            answered.over();
        }
        assert!(!breakers.is_open("one"));
        let waiting: Vec<_> = (0..5).map(|_| breakers.wait("one")).collect();
        tokio::time::advance(HANGS).await;
        drop(waiting);
        assert!(breakers.is_open("one"));
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_open_it_and_one_after_the_other_tries_until_an_answer_closes_it()
     {
        let breakers = Breakers::default();
        for _ in 0..4 {
            breakers.failed("one");
        }
        breakers.answered("one");
        for _ in 0..4 {
            breakers.failed("one");
        }
        assert!(!breakers.is_open("one"));
        breakers.failed("one");
        assert!(breakers.is_open("one"));
        assert!(!breakers.is_open("two"));
        breakers.try_half_open("one");
        tokio::time::advance(OPEN).await;
        assert!(!breakers.is_open("one"), "it was not half open yet");
        breakers.try_half_open("one");
        assert!(breakers.is_open("one"), "one tries, the others wait for it");
        tokio::time::advance(PROBE).await;
        assert!(!breakers.is_open("one"), "nothing was heard of the first");
        breakers.failed("one");
        tokio::time::advance(PROBE).await;
        assert!(breakers.is_open("one"), "one more failure opens it again");
        tokio::time::advance(OPEN).await;
        breakers.try_half_open("one");
        breakers.answered("one");
        assert!(!breakers.is_open("one"));
        breakers.try_half_open("one");
        assert!(!breakers.is_open("one"));
    }
}
