//! Decimal numbers as they are written.
//!
//! `2.5e-07` as a 64-bit float is another number, a little beside it; times a few million tokens the
//! difference is money. So the digits are read, and the point is moved.

/// A number that is not negative: `digits` × 10^`exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    /// Without zeros at the end, so that the exponent tells how many places there are.
    digits: u128,
    exponent: i32,
}

/// Why a text is not a number that is of use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotADecimal {
    #[error("not a decimal number")]
    Unreadable,
    #[error("negative")]
    Negative,
    #[error("more digits than can be kept")]
    TooLong,
}

impl Decimal {
    /// Of digits with or without a point and an exponent.
    pub(super) fn parse(text: &str) -> Result<Self, NotADecimal> {
        if text.starts_with('-') {
            return Err(NotADecimal::Negative);
        }
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() {
            return Err(NotADecimal::Unreadable);
        }
        let exponent: i16 = exponent.parse().map_err(|_| NotADecimal::Unreadable)?;
        let places = i32::try_from(fraction.len()).map_err(|_| NotADecimal::TooLong)?;
        let number = Self {
            digits: digits(whole, fraction)?,
            exponent: i32::from(exponent).saturating_sub(places),
        };
        Ok(number.shortest())
    }

    /// The number times 10^`places`, rounded half up; `None` when that is too much.
    pub(super) fn times_ten_to(self, places: i32) -> Option<u128> {
        if self.digits == 0 {
            return Some(0);
        }
        let power = self.exponent.saturating_add(places);
        let unit = 10u128.checked_pow(power.unsigned_abs());
        if power >= 0 {
            return self.digits.checked_mul(unit?);
        }
        Some(unit.map_or(0, |unit| {
            self.digits / unit + u128::from(self.digits % unit >= unit / 2)
        }))
    }

    /// The same when nothing has to be rounded.
    pub(super) fn exactly_times_ten_to(self, places: i32) -> Option<u128> {
        self.times_ten_to(places)
            .filter(|_| self.exponent.saturating_add(places) >= 0)
    }

    fn shortest(mut self) -> Self {
        if self.digits == 0 {
            self.exponent = 0;
        }
        while self.digits != 0 && self.digits.is_multiple_of(10) {
            self.digits /= 10;
            self.exponent = self.exponent.saturating_add(1);
        }
        self
    }
}

fn digits(whole: &str, fraction: &str) -> Result<u128, NotADecimal> {
    let mut digits: u128 = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(NotADecimal::Unreadable);
        }
        digits = digits
            .checked_mul(10)
            .and_then(|digits| digits.checked_add(u128::from(digit)))
            .ok_or(NotADecimal::TooLong)?;
    }
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pico(text: &str) -> Option<u128> {
        Decimal::parse(text).unwrap().times_ten_to(12)
    }

    #[test]
    fn every_spelling_of_a_price_is_the_same_number() {
        for text in [
            "2.5e-07",
            "2.5E-7",
            "0.00000025",
            "25e-8",
            "0.25e-6",
            "250e-09",
        ] {
            assert_eq!(pico(text), Some(250_000), "{text}");
        }
        assert_eq!(pico("1e-6"), Some(1_000_000));
        assert_eq!(pico("0.0000025"), Some(2_500_000));
        assert_eq!(pico("1"), Some(1_000_000_000_000));
        assert_eq!(pico("1e+1"), Some(10_000_000_000_000));
        for zero in ["0", "0.0", "0e0", "0e-300", "0.000e300"] {
            assert_eq!(pico(zero), Some(0), "{zero}");
        }
    }

    #[test]
    fn the_noise_of_somebody_elses_float_is_rounded_away() {
        assert_eq!(pico("0.000015000020000000002"), Some(15_000_020));
        assert_eq!(pico("4.0000000000000003e-07"), Some(400_000));
        assert_eq!(pico("1.2999999999999999e-07"), Some(130_000));
    }

    #[test]
    fn half_a_picodollar_is_rounded_up_and_less_is_nothing() {
        assert_eq!(pico("5e-13"), Some(1));
        assert_eq!(pico("0.00000000000149"), Some(1));
        assert_eq!(pico("4.9999e-13"), Some(0));
        assert_eq!(pico("9e-32000"), Some(0));
    }

    #[test]
    fn a_number_that_is_too_large_has_no_value_instead_of_a_wrong_one() {
        assert_eq!(pico("1e27"), None);
        assert_eq!(pico("1e32000"), None);
        let long = "1".repeat(40);
        assert_eq!(Decimal::parse(&long), Err(NotADecimal::TooLong));
    }

    #[test]
    fn exactness_is_told_apart_from_rounding() {
        let millionths = |text| Decimal::parse(text).unwrap().exactly_times_ten_to(6);
        assert_eq!(millionths("1.1"), Some(1_100_000));
        assert_eq!(millionths("1.1000000000"), Some(1_100_000));
        assert_eq!(millionths("2"), Some(2_000_000));
        assert_eq!(millionths("1.0000001"), None);
        assert_eq!(millionths("0"), Some(0));
    }

    #[test]
    fn what_is_not_a_plain_number_is_refused() {
        for text in [
            "", ".", ".5", "e", "1e", "e5", "1..2", "1.2.3", "+1", "1e5.0", "1e99999", "0x10",
            "1_0", "NaN", "inf", "\"1\"", " 1", "1 ", "null", "١",
        ] {
            assert_eq!(
                Decimal::parse(text),
                Err(NotADecimal::Unreadable),
                "{text:?}"
            );
        }
        assert_eq!(Decimal::parse("-1"), Err(NotADecimal::Negative));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}", places in -40i32..40) {
            if let Ok(number) = Decimal::parse(&text) {
                number.times_ten_to(places);
            }
        }

        #[test]
        fn digits_keep_their_value_wherever_the_point_is(number: u64, shift in 0i32..18) {
            let text = format!("{number}e-{shift}");
            prop_assert_eq!(
                Decimal::parse(&text).unwrap().times_ten_to(shift),
                Some(u128::from(number))
            );
        }
    }
}
