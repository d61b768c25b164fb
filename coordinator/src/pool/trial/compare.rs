//! Figures of an image beside those of the promoted one: how much worse is still good enough.
//!
//! A trial is one boot on one machine, so the tolerances are wide: they are to find an image that starts
//! something it should not, not a slow afternoon of the cloud's.

use crate::model::Figures;

/// A figure, and by how much it may be worse.
struct Tolerance {
    name: &'static str,
    unit: &'static str,
    of: fn(&Figures) -> Option<u64>,
    /// So much of the promoted one's, and a little more: small figures differ by chance.
    percent: u64,
    more: u64,
}

const TOLERANCES: [Tolerance; 6] = [
    Tolerance {
        name: "boot_to_enrolled",
        unit: "ms",
        of: |figures| Some(figures.boot_to_enrolled_ms),
        percent: 150,
        more: 10_000,
    },
    Tolerance {
        name: "boot_to_warm",
        unit: "ms",
        of: |figures| Some(figures.boot_to_warm_ms),
        percent: 150,
        more: 15_000,
    },
    Tolerance {
        name: "gateway_start",
        unit: "ms",
        of: |figures| Some(figures.gateway_start_ms),
        percent: 150,
        more: 5_000,
    },
    Tolerance {
        name: "first_turn",
        unit: "ms",
        of: |figures| Some(figures.first_turn_ms),
        percent: 150,
        more: 1_000,
    },
    Tolerance {
        name: "gateway_memory",
        unit: "MiB",
        of: |figures| figures.gateway_mib,
        percent: 120,
        more: 64,
    },
    Tolerance {
        name: "rest_memory",
        unit: "MiB",
        of: |figures| figures.rest_mib,
        percent: 120,
        more: 32,
    },
];

/// A figure, and what it was compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    pub name: &'static str,
    pub unit: &'static str,
    pub measured: u64,
    /// Of the promoted image, if it had this figure.
    pub promoted: Option<u64>,
    /// The most that is good enough.
    pub limit: Option<u64>,
}

impl Compared {
    pub fn is_good_enough(&self) -> bool {
        self.limit.is_none_or(|limit| self.measured <= limit)
    }
}

/// Every figure that was measured, beside the promoted image's.
pub fn compare(figures: &Figures, promoted: Option<&Figures>) -> Vec<Compared> {
    TOLERANCES
        .iter()
        .filter_map(|tolerance| {
            let before = promoted.and_then(tolerance.of);
            Some(Compared {
                name: tolerance.name,
                unit: tolerance.unit,
                measured: (tolerance.of)(figures)?,
                promoted: before,
                limit: before.map(|before| {
                    (before.saturating_mul(tolerance.percent) / 100).saturating_add(tolerance.more)
                }),
            })
        })
        .collect()
}

/// What is worse than it may be, in words.
pub(super) fn regressions(figures: &Figures, promoted: &Figures) -> Vec<String> {
    compare(figures, Some(promoted))
        .into_iter()
        .filter(|compared| !compared.is_good_enough())
        .map(|compared| {
            let Compared {
                name,
                unit,
                measured,
                ..
            } = compared;
            let limit = compared.limit.unwrap_or_default();
            let promoted = compared.promoted.unwrap_or_default();
            format!(
                "{name}: {measured} {unit}, over {limit} {unit}; the promoted image has {promoted} {unit}"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMOTED: Figures = Figures {
        boot_to_enrolled_ms: 30_000,
        boot_to_warm_ms: 60_000,
        gateway_start_ms: 20_000,
        first_turn_ms: 2_000,
        gateway_mib: Some(800),
        rest_mib: None,
    };

    #[test]
    fn as_good_and_a_little_worse_is_good_enough() {
        assert_eq!(regressions(&PROMOTED, &PROMOTED), Vec::<String>::new());
        let worse = Figures {
            gateway_start_ms: 35_000,
            gateway_mib: Some(1_024),
            ..PROMOTED
        };
        assert_eq!(regressions(&worse, &PROMOTED), Vec::<String>::new());
    }

    #[test]
    fn each_figure_that_is_much_worse_is_named_with_its_limit() {
        let worse = Figures {
            gateway_start_ms: 35_001,
            gateway_mib: Some(1_025),
            ..PROMOTED
        };
        assert_eq!(
            regressions(&worse, &PROMOTED),
            [
                "gateway_start: 35001 ms, over 35000 ms; the promoted image has 20000 ms",
                "gateway_memory: 1025 MiB, over 1024 MiB; the promoted image has 800 MiB",
            ]
        );
    }

    #[test]
    fn what_the_promoted_image_does_not_have_is_shown_and_not_compared() {
        let figures = Figures {
            rest_mib: Some(9_000),
            ..PROMOTED
        };
        let compared = compare(&figures, Some(&PROMOTED));
        let rest = compared.last().unwrap();
        assert_eq!(
            (rest.name, rest.measured, rest.limit),
            ("rest_memory", 9_000, None)
        );
        assert!(rest.is_good_enough());
        assert_eq!(compare(&PROMOTED, None).len(), 5);
    }
}
