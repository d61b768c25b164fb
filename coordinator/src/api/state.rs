//! What the handlers share.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::logs::GatewayLogs;
use crate::{
    ambient::{Chance, Clock, Moment},
    config::ConfigSchema,
    doorbell::Doorbell,
    instance::PublicNames,
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
    pub schema: Arc<ConfigSchema>,
    pub logs: Arc<dyn GatewayLogs>,
    /// The tiers that customers may ask for; the first is the default.
    pub tiers: Vec<TierOutlook>,
    /// Owns requests that must end even if their caller hangs up. Whoever shuts down waits for it.
    pub tasks: TaskTracker,
    /// Ends event streams and waiting requests.
    pub closing: CancellationToken,
}

impl ApiState {
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(super) fn tier(&self, name: &str) -> Option<&TierOutlook> {
        self.tiers.iter().find(|tier| tier.name == name)
    }
}

/// What the pool lets the API say about a tier.
#[derive(Debug, Clone)]
pub struct TierOutlook {
    pub name: String,
    /// Warm servers wanted; the pool writes it.
    pub target: Arc<AtomicU64>,
    /// Seconds from asking for a server until it is warm; the pool corrects it as it learns.
    pub boot_estimate_s: Arc<AtomicU64>,
    /// How many servers the pool makes at the same time.
    pub boots_at_once: u64,
}

impl TierOutlook {
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

    #[test]
    fn whoever_waits_behind_a_full_wave_waits_for_the_next() {
        let tier = TierOutlook {
            name: "basic".into(),
            target: Arc::default(),
            boot_estimate_s: Arc::new(AtomicU64::new(70)),
            boots_at_once: 2,
        };
        assert_eq!(
            [1, 2, 3, 5].map(|place| tier.eta_s(place)),
            [70, 70, 140, 210]
        );
    }
}
