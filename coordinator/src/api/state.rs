//! What the handlers share.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tidepool_certs::sealed::MasterKeys;
use tidepool_shared::document::GatewayLimits;
use tokio::task::spawn_blocking;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    costs::Prices, key_trial::KeyTrial, logs::GatewayLogs, neighbours::Neighbours, problem::Problem,
};
use crate::{
    ambient::{Chance, Clock, Moment},
    artefacts::Artefacts,
    cloud::Cloud,
    config::ConfigSchema,
    doorbell::Doorbell,
    instance::PublicNames,
    model::PoolKey,
    store::Store,
};

/// The parts that the API is wired to.
#[expect(missing_debug_implementations, reason = "trait objects without Debug")]
pub struct ApiState {
    pub store: Arc<dyn Store>,
    pub doorbell: Doorbell,
    pub clock: Arc<dyn Clock>,
    pub chance: Arc<Chance>,
    pub names: PublicNames,
    /// Where customers' own names must lead; `None`: there are none here.
    pub domain_target: Option<String>,
    pub schema: Arc<ConfigSchema>,
    pub logs: Arc<dyn GatewayLogs>,
    /// Other coordinators, for what only the holder of a link can answer.
    pub neighbours: Neighbours,
    pub prices: Prices,
    /// For images.
    pub cloud: Arc<dyn Cloud>,
    /// The file of the keys that seal: read each time, since they are rotated.
    pub master_keys: PathBuf,
    /// What servers can fetch from this coordinator.
    pub artefacts: Artefacts,
    /// Tries keys that customers give.
    pub key_trial: KeyTrial,
    /// The pools that customers may ask for; the first is the default, and the first of a tier is that
    /// tier's default.
    pub pools: Vec<PoolOutlook>,
    /// How long a deleted instance may be asked back, unless the caller says otherwise.
    pub deletion_grace: Duration,
    /// Owns requests that must end even if their caller hangs up. Whoever shuts down waits for it.
    pub tasks: TaskTracker,
    /// Ends event streams and waiting requests.
    pub closing: CancellationToken,
}

impl ApiState {
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Seals a key for one purpose.
    pub(super) async fn seal(&self, key: String, purpose: String) -> Result<Vec<u8>, Problem> {
        let path = self.master_keys.clone();
        let sealed =
            spawn_blocking(move || MasterKeys::read(&path).map(|keys| keys.seal(&key, &purpose)));
        sealed
            .await
            .map_err(Problem::internal)?
            .map_err(Problem::internal)
    }

    /// The pool of a tier and a region, or the default for what is not said.
    pub(super) fn pool(&self, tier: Option<&str>, region: Option<&str>) -> Option<&PoolOutlook> {
        let first = self.pools.first()?;
        let tier = tier.unwrap_or(&first.pool.tier);
        self.pools.iter().find(|outlook| {
            outlook.pool.tier == tier && region.is_none_or(|region| outlook.pool.region == region)
        })
    }

    /// What a gateway of this pool may take. Of a pool that is not configured any more nothing is known.
    pub(super) fn limits(&self, pool: &PoolKey) -> GatewayLimits {
        let outlook = self.pools.iter().find(|outlook| outlook.pool == *pool);
        outlook.map_or_else(GatewayLimits::default, |outlook| outlook.limits)
    }
}

/// What a pool lets the API say about itself.
#[derive(Debug, Clone)]
pub struct PoolOutlook {
    pub pool: PoolKey,
    /// Warm servers wanted; the pool writes it.
    pub target: Arc<AtomicU64>,
    /// Seconds from asking for a server until it is warm; the pool corrects it as it learns.
    pub boot_estimate_s: Arc<AtomicU64>,
    /// How many servers the pool makes at the same time.
    pub boots_at_once: u64,
    /// What its gateways may take.
    pub limits: GatewayLimits,
}

impl PoolOutlook {
    /// Nothing is known yet but what somebody expects.
    pub fn new(pool: PoolKey, target: u32, expected_boot: Duration, boots_at_once: u32) -> Self {
        let outlook = Self {
            pool,
            target: Arc::default(),
            boot_estimate_s: Arc::default(),
            boots_at_once: boots_at_once.into(),
            limits: GatewayLimits::default(),
        };
        outlook.tell(target, expected_boot);
        outlook
    }

    /// The same, with gateways that may take no more.
    #[must_use]
    pub fn with_limits(self, limits: GatewayLimits) -> Self {
        Self { limits, ..self }
    }

    /// What the pool knows now.
    pub fn tell(&self, target: u32, boot: Duration) {
        self.target.store(target.into(), Ordering::Relaxed);
        let boot_s = boot.as_secs().max(1);
        self.boot_estimate_s.store(boot_s, Ordering::Relaxed);
    }

    /// When whoever waits in this place (from 1) may expect a server.
    pub fn eta_s(&self, queue_position: u32) -> u64 {
        let waves = u64::from(queue_position).div_ceil(self.boots_at_once.max(1));
        self.boot_estimate_s
            .load(Ordering::Relaxed)
            .saturating_mul(waves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;

    #[test]
    fn whoever_waits_behind_a_full_wave_waits_for_the_next() {
        let outlook = PoolOutlook::new(sample::pool(), 1, Duration::from_secs(70), 2);
        assert_eq!(
            [1, 2, 3, 5].map(|place| outlook.eta_s(place)),
            [70, 70, 140, 210]
        );
    }
}
