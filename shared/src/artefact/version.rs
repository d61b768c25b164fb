//! Versions of what is released, in the order of their release: `1.2.3`, `2026.9.6`, `1.2.3-rc1`, `1.2.3-rc10`.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

const MAX_LEN: usize = 48;

/// Three numbers and perhaps a word: a version with a word comes before the same one without. Numbers within a
/// word count as numbers, as in `rc9` and `rc10`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    numbers: [u32; 3],
    word: Option<String>,
}

/// Text that is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a version such as 1.2.3 or 1.2.3-rc1")]
pub struct NotAVersion;

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        if text.len() > MAX_LEN {
            return Err(NotAVersion);
        }
        let (numbers, word) = match text.split_once('-') {
            Some((numbers, word)) => (numbers, Some(word)),
            None => (text, None),
        };
        let is_word = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if word.is_some_and(|word| !is_word(word)) {
            return Err(NotAVersion);
        }
        let parsed: Vec<u32> = numbers.split('.').map_while(number).collect();
        if numbers.split('.').count() != parsed.len() {
            return Err(NotAVersion);
        }
        Ok(Self {
            numbers: parsed.try_into().map_err(|_| NotAVersion)?,
            word: word.map(str::to_owned),
        })
    }
}

/// Digits only, and no second way to write the same.
fn number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| match (&self.word, &other.word) {
                (None, None) => Ordering::Equal,
                (None, Some(_)) => Ordering::Greater,
                (Some(_), None) => Ordering::Less,
                (Some(one), Some(two)) => words(one, two),
            })
    }
}

/// Piece by piece: digits by their value, and before whatever else. What differs in leading zeros alone differs as
/// text.
fn words(one: &str, two: &str) -> Ordering {
    let by_value = pieces(one).cmp(pieces(two));
    by_value.then_with(|| one.cmp(two))
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Piece<'w> {
    /// Without leading zeros, so that a longer one is greater.
    Number(usize, &'w str),
    Text(&'w str),
}

fn pieces(word: &str) -> impl Iterator<Item = Piece<'_>> {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    word.as_bytes()
        .chunk_by(move |one, next| is_digit(one) == is_digit(next))
        .filter_map(|piece| str::from_utf8(piece).ok())
        .map(|piece| {
            if !piece.starts_with(|char: char| char.is_ascii_digit()) {
                return Piece::Text(piece);
            }
            let digits = piece.trim_start_matches('0');
            Piece::Number(digits.len(), digits)
        })
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        self.word.iter().try_for_each(|word| write!(f, "-{word}"))
    }
}

impl TryFrom<String> for Version {
    type Error = NotAVersion;

    fn try_from(text: String) -> Result<Self, NotAVersion> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_count_as_numbers_and_a_word_comes_before() {
        let ordered = [
            "0.9.10",
            "0.10.0-beta",
            "0.10.0-beta-2",
            "0.10.0-rc1",
            "0.10.0-rc9",
            "0.10.0-rc10",
            "0.10.0-rc10-2",
            "0.10.0",
            "2026.9.6",
        ];
        let versions: Vec<Version> = ordered.iter().map(|text| text.parse().unwrap()).collect();
        assert!(versions.is_sorted());
        let written: Vec<String> = versions.iter().map(ToString::to_string).collect();
        assert_eq!(written, ordered);
    }

    #[test]
    fn what_could_be_a_path_or_two_versions_is_none() {
        for text in [
            "",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "+1.2.3",
            "1.2.3-",
            "1.2.3-a/b",
            "1.2.3-..",
        ] {
            assert_eq!(text.parse::<Version>(), Err(NotAVersion), "{text}");
        }
    }

    proptest! {
        #[test]
        fn later_candidates_come_later(word in "[a-z]{0,4}", one: u64, two: u64) {
            let version = |number| format!("1.2.3-{word}{number}").parse::<Version>().unwrap();
            prop_assert_eq!(version(one).cmp(&version(two)), one.cmp(&two));
        }

        #[test]
        fn the_order_is_one(words in prop::collection::vec("[0-9ab-]{1,4}", 3)) {
            let versions = words.iter().map(|word| format!("1.2.3-{word}").parse().unwrap());
            let versions: Vec<Version> = versions.collect();
            let [a, b, c] = versions.as_slice() else { unreachable!() };
            prop_assert_eq!(a.cmp(b), b.cmp(a).reverse());
            prop_assert_eq!(a.cmp(b) == Ordering::Equal, a == b);
            prop_assert!(!(a <= b && b <= c) || a <= c);
        }

        #[test]
        fn whatever_is_read_is_written_the_same(text in "[0-9.a-z-]{0,12}") {
            if let Ok(version) = text.parse::<Version>() {
                prop_assert_eq!(version.to_string(), text);
            }
        }
    }
}
