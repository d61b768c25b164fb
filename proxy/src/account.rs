//! What one attempt cost: opened before the provider is asked, closed on every way out.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tidepool_shared::id::InstanceId;
use tokio::time::Instant;

use crate::{
    budget::Reservation,
    catalog::{Kind, Provider},
    forward::tokens_in,
    ledger::{Attempt, Ending, Entry, Ledger, NotBegun, Outcome, Payer},
    metrics,
    price::{Microcents, ModelPrice, Picodollars, Region, ServiceTier, Speed, Terms},
    rates::Rates,
    usage::{Observed, Usage},
};

/// An attempt's row under way. Dropping it writes what is known, marked as an estimate.
#[derive(Debug)]
pub(crate) struct Account(Option<Open>);

#[derive(Debug)]
struct Open {
    entry: Entry,
    interested: Interested,
    estimate: Usage,
    price: Option<ModelPrice>,
    dialect: &'static str,
    payer: Payer,
    begun: Instant,
    first_token: Option<Duration>,
    /// From when on the model is known to be at work: the head of a stream has come, or an answer was asked for whose
    /// head comes when it is whole.
    answering: Option<Instant>,
    /// From then until something was seen that the model generated.
    silence: Option<Duration>,
    /// When it was, if it is not settled at once.
    over: Option<Instant>,
}

/// Who else wants to know what it cost.
#[derive(Debug)]
pub(crate) struct Interested {
    pub(crate) reservation: Option<Reservation>,
    /// Where tokens are counted.
    pub(crate) meter: Option<(Arc<Rates>, InstanceId)>,
    pub(crate) provider: Arc<Provider>,
}

impl Account {
    pub(crate) fn open(
        ledger: &Ledger,
        attempt: Attempt,
        price: Option<ModelPrice>,
        interested: Interested,
    ) -> Result<Self, NotBegun> {
        let (estimate, dialect, payer) = (attempt.estimate, attempt.dialect, attempt.payer);
        Ok(Self(Some(Open {
            entry: ledger.begin(attempt)?,
            interested,
            estimate,
            price,
            dialect,
            payer,
            begun: Instant::now(),
            first_token: None,
            answering: None,
            silence: None,
            over: None,
        })))
    }

    /// The model is at work.
    pub(crate) fn answered(&mut self) {
        if let Some(open) = &mut self.0 {
            open.answering.get_or_insert_with(Instant::now);
        }
    }

    /// The first event of the answer is here.
    pub(crate) fn first(&mut self) {
        if let Some(open) = &mut self.0 {
            open.first_token.get_or_insert_with(|| open.begun.elapsed());
        }
    }

    /// Something of what the model generated is here.
    pub(crate) fn spoke(&mut self) {
        if let Some(open) = &mut self.0 {
            let silence = open.answering.map(|since| since.elapsed());
            open.silence = open.silence.or(silence);
        }
    }

    /// Nothing more is waited for, but what it came to is still to be found out.
    pub(crate) fn over(&mut self) {
        if let Some(open) = &mut self.0 {
            open.over = Some(Instant::now());
        }
    }

    /// Nothing was generated.
    pub(crate) fn close(mut self, status: StatusCode, outcome: Outcome) {
        if let Some(open) = self.0.take() {
            open.end(status.as_u16(), outcome, Usage::default(), Some(0), false);
        }
    }

    /// Nothing was answered, but all was asked: the provider may charge for what it read.
    pub(crate) fn lose(self, status: StatusCode) {
        self.settle(status, Outcome::UpstreamFailed, &Observed::default());
    }

    /// Something was, as far as was seen.
    pub(crate) fn settle(mut self, status: StatusCode, outcome: Outcome, observed: &Observed) {
        if let Some(open) = self.0.take() {
            open.settle(status.as_u16(), outcome, observed);
        }
    }
}

impl Drop for Account {
    /// Nobody waits any more for an answer that had not begun: the prompt may have been read all the same.
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.settle(0, Outcome::Abandoned, &Observed::default());
        }
    }
}

impl Open {
    fn settle(self, status: u16, outcome: Outcome, observed: &Observed) {
        let is_exact = observed.exact;
        let usage = if is_exact {
            observed.usage.unwrap_or_default()
        } else {
            self.estimated(observed)
        };
        let reported = observed.reported_cost_pico.map(Picodollars);
        let cost = reported.filter(|_| self.tells_cost()).or_else(|| {
            let terms = terms(observed);
            self.price.as_ref().map(|price| price.cost(&usage, &terms))
        });
        let cost = cost.map(|cost| Microcents::from(cost).0);
        self.end(status, outcome, usage, cost, !is_exact);
    }

    /// Others put what they like there.
    fn tells_cost(&self) -> bool {
        matches!(self.interested.provider.kind, Kind::OpenRouter | Kind::XAi)
    }

    /// What was counted on the way counts; what was said since is estimated. Where the provider has
    /// not counted, so is the time in which the model worked and nothing of it was seen. A silence before the
    /// head of a stream is none of the model's: a provider that hangs would make every attempt as dear as a long answer.
    fn estimated(&self, observed: &Observed) -> Usage {
        let seen = observed.usage.unwrap_or(Usage {
            output: 0,
            ..self.estimate
        });
        let output = if let Some(said) = observed.generated_since_count {
            seen.output.saturating_add(said)
        } else {
            let waited = || self.answering.map(|since| self.end_time() - since);
            let silence = self.silence.or_else(waited).unwrap_or_default();
            let unseen = tokens_in(silence).min(self.estimate.output);
            seen.output.max(unseen.saturating_add(observed.generated))
        };
        Usage { output, ..seen }
    }

    fn end_time(&self) -> Instant {
        self.over.unwrap_or_else(Instant::now)
    }

    fn end(self, status: u16, outcome: Outcome, usage: Usage, cost: Option<u64>, estimated: bool) {
        let total = self.end_time() - self.begun;
        let interested = self.interested;
        // Before the row can be written.
        if let Some(reservation) = interested.reservation {
            reservation.settle(cost.unwrap_or(0));
        }
        if let Some((rates, instance)) = interested.meter {
            rates.used(instance, usage.total_input().saturating_add(usage.output));
        }
        metrics::ended(&metrics::Ended {
            provider: &interested.provider.name,
            dialect: self.dialect,
            payer: self.payer,
            outcome,
            usage,
            cost_microcents: cost,
            first_token: self.first_token,
        });
        self.entry.finish(Ending {
            status,
            outcome,
            usage,
            cost_microcents: cost,
            estimated,
            first_token_ms: self.first_token.map(millis),
            total_ms: millis(total),
        });
    }
}

/// What was granted decides the price, not what was asked for.
fn terms(observed: &Observed) -> Terms {
    Terms {
        service_tier: observed
            .service_tier
            .as_deref()
            .map(ServiceTier::named)
            .unwrap_or_default(),
        region: match observed.inference_geo.as_deref() {
            Some("us") => Region::Us,
            Some("eu") => Region::Eu,
            _ => Region::Anywhere,
        },
        speed: match observed.speed.as_deref() {
            Some("fast") => Speed::Fast,
            _ => Speed::Standard,
        },
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
