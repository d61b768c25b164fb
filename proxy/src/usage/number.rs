//! Numbers as providers write them.

/// Tokens, and whatever else is counted, of one request. Of the largest windows it is a million times
/// as much, and what is priced with it still fits its type.
const COUNT_MAX: u64 = 1_000_000_000_000;
/// 10,000 USD, for one request.
const COST_MAX_PICO: u128 = 10_000 * 1_000_000_000_000;
/// More digits than this are not looked at.
const DIGITS_MAX: u128 = 10u128.pow(30);

/// A number in a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number<T> {
    Known(T),
    /// Null, negative, or no number at all.
    Unknown,
    /// More than can be meant.
    TooLarge,
}

/// A count in a JSON value. Some servers write it as `12.0`.
pub(super) fn count(json: &str) -> Number<u64> {
    match scaled(json, 0).map(u64::try_from) {
        Some(Ok(count @ ..=COUNT_MAX)) => Number::Known(count),
        Some(_) => Number::TooLarge,
        None => Number::Unknown,
    }
}

/// An amount of money in a JSON value, in units of 10^-`places` USD; 1 picodollar is 1e-12 USD. Read from
/// the digits: the nearest 64-bit float is another amount.
pub(super) fn picodollars(json: &str, places: i32) -> Number<u128> {
    match scaled(json, 12 - places) {
        Some(cost @ ..=COST_MAX_PICO) => Number::Known(cost),
        Some(_) => Number::TooLarge,
        None => Number::Unknown,
    }
}

/// The number times 10^`places`, rounded half up, or the most there is.
fn scaled(json: &str, places: i32) -> Option<u128> {
    let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = i32::from(exponent.parse::<i16>().ok()?);
    if whole.is_empty() {
        return None;
    }
    let mut digits = 0u128;
    let mut places = exponent + places;
    for (part, is_fraction) in [(whole, 0), (fraction, 1)] {
        for byte in part.bytes() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            if digits < DIGITS_MAX {
                digits = digits * 10 + u128::from(digit);
                places -= is_fraction;
            } else {
                places += 1 - is_fraction;
            }
        }
    }
    Some(shifted(digits, places))
}

fn shifted(digits: u128, places: i32) -> u128 {
    let unit = 10u128.checked_pow(places.unsigned_abs());
    match (unit, places >= 0) {
        _ if digits == 0 => 0,
        (Some(unit), true) => digits.saturating_mul(unit),
        (None, true) => u128::MAX,
        (Some(unit), false) => digits / unit + u128::from(digits % unit >= unit.div_ceil(2)),
        (None, false) => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_count_is_read_however_it_is_written() {
        for (json, number) in [
            ("0", 0),
            ("12", 12),
            ("12.0", 12),
            ("1.2e1", 12),
            ("120e-1", 12),
            ("1E+3", 1000),
            ("1000000000000", COUNT_MAX),
        ] {
            assert_eq!(count(json), Number::Known(number), "{json}");
        }
    }

    #[test]
    fn digits_that_are_not_looked_at_keep_their_places() {
        let zeros = "0".repeat(40);
        assert_eq!(count(&format!("7{zeros}e-40")), Number::Known(7));
        assert_eq!(count(&format!("7.{zeros}1")), Number::Known(7));
        assert_eq!(count(&format!("0.{zeros}7e41")), Number::Known(7));
    }

    #[test]
    fn what_is_no_count_is_unknown() {
        for json in [
            "null", "-1", "\"12\"", "true", "{}", "", "1e", "1e99999", ".5", "1..2",
        ] {
            assert_eq!(count(json), Number::Unknown, "{json}");
        }
    }

    #[test]
    fn what_nobody_can_have_used_is_too_large() {
        let long = "9".repeat(400);
        for json in [
            "1000000000001",
            "1e13",
            "1e3000",
            "18446744073709551616",
            &long,
        ] {
            assert_eq!(count(json), Number::TooLarge, "{json}");
        }
        assert_eq!(picodollars("10000.01", 0), Number::TooLarge);
        assert_eq!(picodollars("10000", 0), Number::Known(COST_MAX_PICO));
    }

    #[test]
    fn money_is_exact_and_its_unit_is_known() {
        assert_eq!(picodollars("0.00014", 0), Number::Known(140_000_000));
        assert_eq!(picodollars("1.4e-4", 0), Number::Known(140_000_000));
        // Half a picodollar is one; less is none, and no float comes in between.
        assert_eq!(picodollars("0.0000000000005", 0), Number::Known(1));
        assert_eq!(
            picodollars("0.00000000000049999999999999999999", 0),
            Number::Known(0)
        );
        assert_eq!(
            picodollars("0.100000000001", 0),
            Number::Known(100_000_000_001)
        );
        let long = format!("0.1{}1", "0".repeat(300));
        assert_eq!(picodollars(&long, 0), Number::Known(100_000_000_000));
        assert_eq!(picodollars("37756000", 10), Number::Known(3_775_600_000));
        assert_eq!(picodollars("1e-3000", 0), Number::Known(0));
    }

    proptest! {
        #[test]
        fn whole_numbers_are_themselves(number in 0..=COUNT_MAX, zeros in 0usize..40) {
            prop_assert_eq!(count(&number.to_string()), Number::Known(number));
            let text = format!("{number}.{}", "0".repeat(zeros));
            prop_assert_eq!(count(&text), Number::Known(number));
        }

        #[test]
        fn any_text_is_read_or_not(text in "[-+0-9.eE]{0,60}") {
            count(&text);
            picodollars(&text, 10);
        }
    }
}
