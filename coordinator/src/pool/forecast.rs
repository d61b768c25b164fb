//! What the pool knows of demand and of boots: looked up now and then, since both change slowly.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tidepool_shared::id::ServerId;

use super::{Pool, demand};
use crate::{
    ambient::Moment,
    model::{PoolKey, Server},
    store::StoreError,
};

/// Arrivals are read again after this long.
const FRESH: Duration = Duration::from_secs(5);

/// The last so many boots count; their mean is what the pool prepares for.
const BOOTS: usize = 8;

/// What was learnt. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Forecast(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    /// Before the first boot was measured.
    expected_boot: Duration,
    boots: VecDeque<(ServerId, Duration)>,
    read_at: Option<Moment>,
    arrivals: Arc<[Moment]>,
}

impl Forecast {
    /// Nothing is known yet but what somebody expects of a boot.
    pub fn new(expected_boot: Duration) -> Self {
        Self(Arc::new(Mutex::new(Known {
            expected_boot,
            boots: VecDeque::new(),
            read_at: None,
            arrivals: Arc::from([]),
        })))
    }

    /// How long a boot takes, from the intent until warm.
    pub(super) fn boot(&self, pool: &PoolKey, servers: &[Server]) -> Duration {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for server in servers.iter().filter(|server| server.pool == *pool) {
            let Some(warmed) = server.warmed_at else {
                continue;
            };
            if known.boots.iter().all(|(id, _)| *id != server.id) {
                let took = warmed.since(server.created_at);
                known.boots.push_back((server.id, took));
            }
        }
        let over = known.boots.len().saturating_sub(BOOTS);
        known.boots.drain(..over);
        let sum: Duration = known.boots.iter().map(|(_, took)| *took).sum();
        u32::try_from(known.boots.len())
            .ok()
            .and_then(|boots| sum.checked_div(boots))
            .unwrap_or(known.expected_boot)
    }

    fn known(&self, now: Moment) -> Option<Arc<[Moment]>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = known.read_at.is_some_and(|at| now.since(at) < FRESH);
        is_fresh.then(|| Arc::clone(&known.arrivals))
    }

    fn learn(&self, arrivals: &Arc<[Moment]>, now: Moment) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.read_at = Some(now);
        known.arrivals = Arc::clone(arrivals);
    }
}

impl Pool {
    /// When the customers of the last day arrived.
    pub(super) async fn arrivals(&self, now: Moment) -> Result<Arc<[Moment]>, StoreError> {
        if let Some(arrivals) = self.forecast.known(now) {
            return Ok(arrivals);
        }
        let memory = i64::try_from(demand::MEMORY.as_micros()).unwrap_or(i64::MAX);
        let since = Moment(now.0.saturating_sub(memory));
        let arrivals = self.store.arrivals(&self.policy.pool, since).await?;
        let arrivals = Arc::from(arrivals);
        self.forecast.learn(&arrivals, now);
        Ok(arrivals)
    }
}
