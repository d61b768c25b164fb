//! Amounts of money, in whole numbers.

use serde::Serialize;

use super::decimal::{Decimal, NotADecimal};

/// 1e-12 USD. A price for one token is a whole number of these, so a request's cost is exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Picodollars(pub u128);

/// 1e-8 USD, the unit in which costs are kept and added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Microcents(pub u64);

impl Picodollars {
    /// Decimal places of an amount in USD.
    pub(super) const PLACES: i32 = 12;
    const IN_A_MICROCENT: u128 = 10_000;

    /// Of an amount in USD as a provider writes it, such as OpenRouter's `cost`.
    pub fn of_usd(text: &str) -> Result<Self, NotADecimal> {
        let usd = Decimal::parse(text)?;
        Ok(Self(usd.times_ten_to(Self::PLACES).unwrap_or(u128::MAX)))
    }
}

impl From<Picodollars> for Microcents {
    /// Rounded half up: to be done once a request, at its end. What does not fit is the most there is.
    fn from(exact: Picodollars) -> Self {
        let rounded = exact.0.saturating_add(Picodollars::IN_A_MICROCENT / 2);
        Self(u64::try_from(rounded / Picodollars::IN_A_MICROCENT).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_microcent_is_rounded_up_and_less_is_dropped() {
        let rounded = |pico| Microcents::from(Picodollars(pico)).0;
        assert_eq!(rounded(0), 0);
        assert_eq!(rounded(4_999), 0);
        assert_eq!(rounded(5_000), 1);
        assert_eq!(rounded(14_999), 1);
        assert_eq!(rounded(15_000), 2);
    }

    #[test]
    fn what_does_not_fit_is_the_most_there_is() {
        let most = u128::from(u64::MAX) * 10_000;
        assert_eq!(Microcents::from(Picodollars(most)).0, u64::MAX);
        assert_eq!(Microcents::from(Picodollars(most + 10_000)).0, u64::MAX);
        assert_eq!(Microcents::from(Picodollars(u128::MAX)).0, u64::MAX);
    }

    #[test]
    fn a_providers_own_cost_is_read_from_its_text() {
        assert_eq!(Picodollars::of_usd("0.00014"), Ok(Picodollars(140_000_000)));
        assert_eq!(
            Picodollars::of_usd("12"),
            Ok(Picodollars(12 * 10u128.pow(12)))
        );
        assert_eq!(Picodollars::of_usd("1e300"), Ok(Picodollars(u128::MAX)));
        assert_eq!(Picodollars::of_usd("-1"), Err(NotADecimal::Negative));
    }
}
