//! When a certificate is renewed: at half of its life, give or take a tenth of it.
//!
//! Half leaves the other half for trying again; the spread keeps servers that were made in one batch
//! from asking together for ever after.

use time::OffsetDateTime;

use crate::leaf::Leaf;

/// The moment at which to ask for the next certificate. `chance` is uniform over all of `u32`.
pub fn due(leaf: &Leaf, chance: u32) -> OffsetDateTime {
    let life = leaf.not_after - leaf.not_before;
    let spread = life / 5;
    let share = f64::from(chance) / f64::from(u32::MAX);
    leaf.not_before + life / 2 - spread / 2 + spread * share
}

#[cfg(test)]
mod tests {
    use tidepool_shared::id::ServerId;
    use time::{Duration, macros::datetime};

    use super::*;

    #[test]
    fn renewal_is_at_half_life_give_or_take_a_tenth() {
        let born = datetime!(2026-01-01 00:00 UTC);
        let leaf = Leaf {
            server: "srv_00000000000000000000000001"
                .parse::<ServerId>()
                .unwrap(),
            serial: String::new(),
            not_before: born,
            not_after: born + Duration::hours(20),
        };
        assert_eq!(due(&leaf, 0), born + Duration::hours(8));
        assert_eq!(due(&leaf, u32::MAX), born + Duration::hours(12));
    }
}
