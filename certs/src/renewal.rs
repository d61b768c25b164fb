//! When a certificate is renewed: at half of its life, give or take a tenth of it.
//!
//! Half leaves the other half for trying again; the spread keeps servers that were made in one batch
//! from asking together for ever after.

use time::OffsetDateTime;

/// From when until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub begins: OffsetDateTime,
    pub ends: OffsetDateTime,
}

impl Life {
    /// The moment at which to ask for the next certificate. `chance` is uniform over all of `u32`.
    pub fn due(self, chance: u32) -> OffsetDateTime {
        let life = self.ends - self.begins;
        let spread = life / 5;
        let share = f64::from(chance) / f64::from(u32::MAX);
        self.begins + life / 2 - spread / 2 + spread * share
    }

    /// Whether less than a quarter of it is left: a person should know.
    pub fn is_late(self, now: OffsetDateTime) -> bool {
        self.ends - now < (self.ends - self.begins) / 4
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    #[test]
    fn renewal_is_at_half_life_give_or_take_a_tenth() {
        let begins = datetime!(2026-01-01 00:00 UTC);
        let ends = begins + Duration::hours(20);
        let life = Life { begins, ends };
        assert_eq!(life.due(0), begins + Duration::hours(8));
        assert_eq!(life.due(u32::MAX), begins + Duration::hours(12));
        assert!(!life.is_late(begins + Duration::hours(15)));
        assert!(life.is_late(begins + Duration::hours(16)));
    }
}
