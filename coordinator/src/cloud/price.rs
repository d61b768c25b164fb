//! What a cloud charges, as far as the pool and the operator need to know.

use super::Placement;

/// Digits after the point that are kept.
const DIGITS: usize = 6;

/// Millionths of the account's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub u64);

impl Micros {
    /// Reads a decimal number exactly, but for what is beyond the sixth digit, which is rounded.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
            return None;
        }
        let kept: String = fraction
            .chars()
            .chain("000000".chars())
            .take(DIGITS)
            .collect();
        let rounds_up = fraction
            .as_bytes()
            .get(DIGITS)
            .is_some_and(|digit| *digit >= b'5');
        let whole: u64 = whole.parse().ok()?;
        whole
            .checked_mul(1_000_000)?
            .checked_add(kept.parse().ok()?)?
            .checked_add(u64::from(rounds_up))
            .map(Self)
    }
}

/// What something costs, net. Every started hour counts, up to the month's price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    pub hourly: Micros,
    pub monthly: Micros,
}

/// Whether a type can be had in a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orderable {
    /// As far as Hetzner says.
    Yes,
    SoldOut,
    /// Given up there by Hetzner.
    Retired,
}

/// A type in a location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub placement: Placement,
    pub orderable: Orderable,
    /// `None` if Hetzner names no price there.
    pub price: Option<Price>,
    /// Of the version 4 address that every server has.
    pub address: Option<Price>,
}

/// All that is on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceList {
    /// Such as `EUR`.
    pub currency: String,
    pub offers: Vec<Offer>,
}

impl PriceList {
    /// What a server costs in a month, its address included.
    pub fn monthly(&self, placement: &Placement) -> Option<Micros> {
        let offer = self
            .offers
            .iter()
            .find(|offer| offer.placement == *placement)?;
        let address = offer.address.map_or(0, |price| price.monthly.0);
        Some(Micros(offer.price?.monthly.0.saturating_add(address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_read_to_the_millionth() {
        for (text, micros) in [
            ("0.0088000000", 8800),
            ("5.4900000000000000", 5_490_000),
            ("0.0000004", 0),
            ("0.0000005", 1),
            ("0.9999999", 1_000_000),
            ("7", 7_000_000),
            ("7.", 7_000_000),
            ("0", 0),
        ] {
            assert_eq!(Micros::parse(text), Some(Micros(micros)), "{text}");
        }
        for text in [
            "",
            ".5",
            "-1",
            "1,5",
            "1e3",
            "+1",
            "NaN",
            "1.2.3",
            "99999999999999999999",
        ] {
            assert_eq!(Micros::parse(text), None, "{text}");
        }
    }
}
