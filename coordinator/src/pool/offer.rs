//! What the cloud offers the pool: images and prices, looked up now and then.
//!
//! Both change rarely, and clouds count requests. A look-up that fails leaves what was known: a pool does
//! without renewing servers for a while, and without a price its budget cannot be overdrawn, because
//! the target has a ceiling of its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

use super::{Policy, Pool};
use crate::{
    ambient::Moment,
    causes::chain,
    cloud::{CloudError, PriceList},
};

/// It is looked up again after this long.
const FRESH: Duration = Duration::from_mins(1);

/// How long a look may take: customers who wait for a server wait for it, too.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// What is known.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// What new servers are made from, by server type.
    pub(super) images: HashMap<String, String>,
    /// How many idle servers the budget pays for.
    pub(super) affordable: u32,
}

/// The last look. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Offer(Arc<Mutex<Option<(Moment, Known)>>>);

impl Pool {
    /// What the cloud offers now, or did when it last answered.
    pub(super) async fn offer(&self, now: Moment) -> Known {
        let last = self.offer.with(|last| last.clone());
        match last {
            Some((at, known)) if now.since(at) < FRESH => return known,
            _ => {}
        }
        let before = last.map(|(_, known)| known);
        let known = match timeout(LOOK_DEADLINE, self.look(before.as_ref())).await {
            Ok(Ok(known)) => known,
            Ok(Err(error)) => {
                tracing::warn!(error = %chain(&error), "images and prices could not be looked up");
                before.unwrap_or_else(Known::nothing)
            }
            Err(_) => {
                tracing::warn!("images and prices could not be looked up in time");
                before.unwrap_or_else(Known::nothing)
            }
        };
        let looked = self.clock.now();
        self.offer
            .with(|last| *last = Some((looked, known.clone())));
        known
    }

    async fn look(&self, last: Option<&Known>) -> Result<Known, CloudError> {
        let mut images = last.map(|known| known.images.clone()).unwrap_or_default();
        for placement in &self.policy.placements {
            if let Some(image) = self.cloud.image(&placement.server_type).await? {
                images.insert(placement.server_type.clone(), image);
            }
        }
        let prices = match self.policy.idle_budget_cents {
            Some(_) => self.cloud.prices().await?,
            None => None,
        };
        let affordable = affordable(&self.policy, prices.as_ref());
        Ok(Known { images, affordable })
    }
}

impl Offer {
    /// It has changed: the next turn looks it up.
    pub(super) fn forget(&self) {
        self.with(|last| *last = None);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Option<(Moment, Known)>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    fn nothing() -> Self {
        Self {
            images: HashMap::new(),
            affordable: u32::MAX,
        }
    }
}

/// How many servers of the dearest placement the budget pays for.
fn affordable(policy: &Policy, prices: Option<&PriceList>) -> u32 {
    let dearest = prices.and_then(|prices| {
        let monthly = policy
            .placements
            .iter()
            .filter_map(|place| prices.monthly(place));
        monthly.max()
    });
    match (policy.idle_budget_cents, dearest) {
        (Some(cents), Some(price)) if price.0 > 0 => {
            u32::try_from(cents.saturating_mul(10_000) / price.0).unwrap_or(u32::MAX)
        }
        _ => u32::MAX,
    }
}
