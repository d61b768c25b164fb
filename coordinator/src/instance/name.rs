//! An instance's name: the first label of its host name.

use std::{fmt, str::FromStr};

/// The longest DNS label, in bytes.
pub const MAX_LEN: usize = 63;

/// Labels that the platform may want for itself, or that would mislead a customer's visitors.
const RESERVED: &[&str] = &[
    "admin",
    "api",
    "app",
    "auth",
    "console",
    "coordinator",
    "dashboard",
    "gateway",
    "localhost",
    "login",
    "mail",
    "ns1",
    "ns2",
    "proxy",
    "root",
    "smtp",
    "static",
    "status",
    "support",
    "tidepool",
    "www",
];

/// A DNS label in lower case that may be given to a customer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("a name is 1 to 63 characters of a-z, 0-9 and -, neither first nor last a hyphen")]
    NotALabel,
    #[error("this name is reserved")]
    Reserved,
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if !is_label(text) {
            return Err(InvalidName::NotALabel);
        }
        // Names with hyphens in third and fourth place are encoded Unicode: look-alikes.
        if RESERVED.contains(&text) || text.get(2..4) == Some("--") {
            return Err(InvalidName::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

fn is_label(text: &str) -> bool {
    (1..=MAX_LEN).contains(&text.len())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reserved_words_are_refused() {
        for word in [
            "www",
            "api",
            "console",
            "admin",
            "localhost",
            "tidepool",
            "xn--80ak6aa",
        ] {
            assert_eq!(word.parse::<Name>(), Err(InvalidName::Reserved), "{word}");
        }
    }

    #[test]
    fn what_is_no_label_is_refused() {
        let long = "a".repeat(64);
        for text in ["", "-a", "a-", "A", "a.b", "a_b", "ä", "a b", long.as_str()] {
            assert_eq!(text.parse::<Name>(), Err(InvalidName::NotALabel), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_good_label_is_a_name(text in "[a-z0-9]([a-z0-9]{0,2}[a-z0-9])?") {
            prop_assume!(!RESERVED.contains(&text.as_str()));
            prop_assert_eq!(text.parse::<Name>().map(String::from), Ok(text));
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            drop(text.parse::<Name>());
        }
    }
}
