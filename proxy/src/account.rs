//! What one attempt cost: opened before the provider is asked, closed on every way out.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tidepool_shared::id::InstanceId;
use tokio::time::Instant;

use crate::{
    budget::Reservation,
    catalog::Provider,
    forward::BYTES_PER_TOKEN,
    ledger::{Attempt, Ending, Entry, Ledger, NotBegun, Outcome, Payer},
    metrics,
    price::{Microcents, ModelPrice, Picodollars, Region, ServiceTier, Speed, Terms},
    rates::Rates,
    usage::{Observed, Usage},
};

/// An attempt's row under way. Dropping it writes what is known, marked as an estimate.
#[derive(Debug)]
pub(crate) struct Account {
    /// Dropped before the row's end is noted, and so before it can be written.
    reservation: Option<Reservation>,
    entry: Entry,
    estimate: Usage,
    price: Option<ModelPrice>,
    begun: Instant,
    first_token: Option<Duration>,
    meter: Option<(Arc<Rates>, InstanceId)>,
    provider: Arc<Provider>,
    dialect: &'static str,
    payer: Payer,
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
        Ok(Self {
            entry: ledger.begin(attempt)?,
            estimate,
            price,
            reservation: interested.reservation,
            meter: interested.meter,
            provider: interested.provider,
            dialect,
            payer,
            begun: Instant::now(),
            first_token: None,
        })
    }

    /// The first bytes of the answer are here.
    pub(crate) fn first(&mut self) {
        self.first_token.get_or_insert_with(|| self.begun.elapsed());
    }

    /// Nothing was generated.
    pub(crate) fn close(self, status: StatusCode, outcome: Outcome) {
        self.end(status, outcome, Usage::default(), Some(0), false);
    }

    /// Something was, as far as was seen.
    pub(crate) fn settle(self, status: StatusCode, outcome: Outcome, observed: &Observed) {
        let is_exact = observed.exact;
        let usage = if is_exact {
            observed.usage.unwrap_or_default()
        } else {
            self.estimated(observed)
        };
        let cost = observed.reported_cost_pico.map(Picodollars).or_else(|| {
            let terms = terms(observed);
            self.price.as_ref().map(|price| price.cost(&usage, &terms))
        });
        let cost = cost.map(|cost| Microcents::from(cost).0);
        self.end(status, outcome, usage, cost, !is_exact);
    }

    /// What was counted on the way counts; the rest is guessed from its bytes.
    fn estimated(&self, observed: &Observed) -> Usage {
        let seen = observed.usage.unwrap_or(self.estimate);
        Usage {
            output: seen
                .output
                .max(observed.generated_bytes.div_ceil(BYTES_PER_TOKEN)),
            ..seen
        }
    }

    fn end(
        self,
        status: StatusCode,
        outcome: Outcome,
        usage: Usage,
        cost: Option<u64>,
        estimated: bool,
    ) {
        if let Some(reservation) = self.reservation {
            reservation.settle(cost.unwrap_or(0));
        }
        if let Some((rates, instance)) = self.meter {
            rates.used(instance, usage.total_input().saturating_add(usage.output));
        }
        metrics::ended(&metrics::Ended {
            provider: &self.provider.name,
            dialect: self.dialect,
            payer: self.payer,
            outcome,
            usage,
            cost_microcents: cost,
            first_token: self.first_token,
        });
        self.entry.finish(Ending {
            status: status.as_u16(),
            outcome,
            usage,
            cost_microcents: cost,
            estimated,
            first_token_ms: self.first_token.map(millis),
            total_ms: millis(self.begun.elapsed()),
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
