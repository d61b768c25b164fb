//! Waits with full jitter: uniform between nothing and the limit, so that servers that lost their link
//! together do not come back together.

use std::time::Duration;

/// Growing waits.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The limit of the first wait; it doubles with every failure.
    pub first: Duration,
    /// The limit never grows over this.
    pub ceiling: Duration,
}

/// No wait is shorter, whatever chance says: a refusal that costs nothing must not become a busy loop.
const SHORTEST: Duration = Duration::from_millis(20);

impl Backoff {
    /// How long to wait after this many failures before the last one.
    pub fn wait(&self, failures_before: u32) -> Duration {
        full_jitter(self.limit(failures_before))
    }

    fn limit(&self, failures_before: u32) -> Duration {
        self.first
            .saturating_mul(2u32.saturating_pow(failures_before))
            .min(self.ceiling)
    }
}

/// Uniform between nothing and `limit`.
pub(super) fn full_jitter(limit: Duration) -> Duration {
    limit.mul_f64(rand::random::<f64>()).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_secs(1),
        ceiling: Duration::from_secs(30),
    };

    #[test]
    fn the_limit_doubles_up_to_its_ceiling() {
        let limits: Vec<u64> = [0, 1, 2, 5, 1000, u32::MAX]
            .map(|failures| BACKOFF.limit(failures).as_secs())
            .into();
        assert_eq!(limits, [1, 2, 4, 30, 30, 30]);
    }

    #[test]
    fn no_wait_is_nothing_and_none_is_over_the_limit() {
        for _ in 0..1000 {
            let wait = BACKOFF.wait(1);
            assert!(wait >= SHORTEST && wait <= Duration::from_secs(2));
        }
    }
}
