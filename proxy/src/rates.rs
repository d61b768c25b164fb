//! Requests and tokens a minute, for each instance.
//!
//! Counted in Redis when there is one, so that all proxies count together, else in this process. Redis is
//! asked for a second's worth of requests at once, so most requests wait for nothing; tokens are known
//! only afterwards and are told with the next question. **It fails open**: what does not answer in time
//! is not asked again until it does (see [`shared`]), and meanwhile each proxy counts for itself.

mod bucket;
mod shared;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidepool_shared::id::InstanceId;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::bucket::{Answer, Ask, Buckets};
pub use self::shared::Shared;
use crate::{directory::Customer, limits::Limits};

/// How long what was granted may be used without asking again.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// Asked for at once; for an instance whose requests are not limited, only its tokens.
const AT_ONCE_MAX: u64 = 10_000;
/// Between reports of tokens that no question has told.
const REPORT: Duration = Duration::from_secs(1);
/// Instances that are remembered; more than that, and those at rest are forgotten.
const REMEMBERED: usize = 100_000;

/// All instances' rates.
#[derive(Debug)]
pub struct Rates {
    started: Instant,
    instances: Mutex<HashMap<InstanceId, Held>>,
    shared: Option<Shared>,
}

/// Too many: when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    pub retry_after: Duration,
}

/// What this process holds of an instance's allowance.
#[derive(Debug)]
struct Held {
    limits: Limits,
    requests: u64,
    tokens: u64,
    good_until: Instant,
    refused_until: Instant,
    /// Tokens that were used and not told yet.
    used: u64,
    /// For when nobody else counts.
    own: Buckets,
}

impl Rates {
    pub fn new(shared: Option<Shared>) -> Self {
        Self {
            started: Instant::now(),
            instances: Mutex::default(),
            shared,
        }
    }

    /// Lets a request through, or says when to come back.
    pub async fn admit(&self, customer: &Customer) -> Result<(), TooMany> {
        if !customer.limits.limit_rates() {
            return Ok(());
        }
        let ask = match self.look(customer) {
            Ok(None) => return Ok(()),
            Ok(Some(ask)) => ask,
            Err(too_many) => return Err(too_many),
        };
        let answer = match &self.shared {
            Some(shared) => shared.ask(customer.instance, &ask).await,
            None => None,
        };
        self.take(customer, &ask, answer)
    }

    /// Counts tokens when they are known.
    pub fn used(&self, instance: InstanceId, tokens: u64) {
        if let Some(held) = self.instances().get_mut(&instance) {
            held.used = held.used.saturating_add(tokens);
        }
    }

    /// Keeps the connection to Redis, and tells it of tokens that no request's question told.
    pub async fn run(&self, cancel: CancellationToken) {
        let Some(shared) = &self.shared else {
            return;
        };
        let reports = async {
            loop {
                sleep(REPORT).await;
                for (instance, ask) in self.untold() {
                    if shared.ask(instance, &ask).await.is_none() {
                        self.used(instance, ask.used);
                    }
                }
            }
        };
        let both = async { tokio::join!(shared.keep_connected(), reports) };
        cancel.run_until_cancelled(both).await;
    }

    /// Whether Redis counts, where there is one.
    pub fn is_shared(&self) -> Option<bool> {
        self.shared.as_ref().map(Shared::is_connected)
    }

    /// `None`: what is held is enough.
    fn look(&self, customer: &Customer) -> Result<Option<Ask>, TooMany> {
        let now = Instant::now();
        let mut instances = self.instances();
        if instances.len() > REMEMBERED {
            instances.retain(|_, held| held.good_until > now || held.used > 0);
        }
        let held = instances
            .entry(customer.instance)
            .or_insert_with(|| Held::new(customer.limits, now));
        if held.limits != customer.limits {
            let used = held.used;
            *held = Held::new(customer.limits, now);
            held.used = used;
        }
        if now < held.refused_until {
            let retry_after = held.refused_until - now;
            return Err(TooMany { retry_after });
        }
        if now < held.good_until && held.requests > 0 && held.used < held.tokens {
            held.requests -= 1;
            return Ok(None);
        }
        Ok(Some(held.ask(at_once(customer.limits))))
    }

    fn take(&self, customer: &Customer, ask: &Ask, answer: Option<Answer>) -> Result<(), TooMany> {
        let now = Instant::now();
        let mut instances = self.instances();
        let held = instances
            .entry(customer.instance)
            .or_insert_with(|| Held::new(customer.limits, now));
        let answer = answer.unwrap_or_else(|| held.own.answer(ask, self.clock(now)));
        if answer.granted == 0 {
            held.refused_until = now + answer.wait;
            return Err(TooMany {
                retry_after: answer.wait,
            });
        }
        // Of two questions at once both answers count, but not those of an earlier second.
        let kept = if now < held.good_until {
            held.requests
        } else {
            0
        };
        held.requests = kept.saturating_add(answer.granted - 1).min(AT_ONCE_MAX);
        held.tokens = answer.tokens;
        held.good_until = now + GOOD_FOR;
        Ok(())
    }

    fn untold(&self) -> Vec<(InstanceId, Ask)> {
        let mut instances = self.instances();
        let untold = instances.iter_mut().filter(|(_, held)| held.used > 0);
        untold
            .map(|(instance, held)| (*instance, held.ask(0)))
            .collect()
    }

    /// Microseconds of this process.
    fn clock(&self, now: Instant) -> u64 {
        u64::try_from((now - self.started).as_micros()).unwrap_or(u64::MAX)
    }

    fn instances(&self) -> MutexGuard<'_, HashMap<InstanceId, Held>> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            requests: 0,
            tokens: 0,
            good_until: now,
            refused_until: now,
            used: 0,
            own: Buckets::default(),
        }
    }

    /// A question, which also tells what was used.
    fn ask(&mut self, requests: u64) -> Ask {
        Ask {
            requests_per_minute: self.limits.requests_per_minute,
            requests,
            tokens_per_minute: self.limits.tokens_per_minute,
            used: std::mem::take(&mut self.used),
        }
    }
}

/// A second's worth.
fn at_once(limits: Limits) -> u64 {
    match limits.requests_per_minute {
        Some(limit) => (limit / 60).clamp(1, AT_ONCE_MAX),
        None => AT_ONCE_MAX,
    }
}
