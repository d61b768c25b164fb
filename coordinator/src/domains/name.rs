//! Customers' own host names, in the form that DNS knows.

use std::fmt;

use url::Host;

/// What is left of 253 letters when the label of the proof is before it.
const MAX_BYTES: usize = 240;
const LABEL_MAX_BYTES: usize = 63;
/// Names that lead nowhere in public DNS (RFC 6761, RFC 6762, RFC 7686, RFC 9476, ICANN's `internal`).
const NOBODYS: [&str; 8] = [
    "alt",
    "arpa",
    "home",
    "internal",
    "invalid",
    "local",
    "localhost",
    "onion",
];

/// A host name that may be a customer's: at least two labels, lower case, Unicode encoded (IDNA).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainName(String);

/// Why a text is not such a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDomain {
    #[error("it is no host name of at least two labels")]
    NotAName,
    #[error("no public name ends so")]
    NotPublic,
    #[error("it is a name of this service")]
    Ours,
}

impl DomainName {
    /// Reads what a person wrote. `ours` are names that, with all below them, are the operator's.
    pub fn read(text: &str, ours: &[&str]) -> Result<Self, InvalidDomain> {
        let text = text.strip_suffix('.').unwrap_or(text);
        // Parsed as a host of a URL, where a percent sign would stand for another letter.
        let Ok(Host::Domain(name)) = Host::parse(text) else {
            return Err(InvalidDomain::NotAName);
        };
        let mut labels = name.rsplit('.');
        let last = labels.next().unwrap_or_default();
        let is_name = !text.contains('%')
            && name.len() <= MAX_BYTES
            && labels.next().is_some()
            && name.split('.').all(is_label)
            && !last.bytes().all(|byte| byte.is_ascii_digit());
        if !is_name {
            return Err(InvalidDomain::NotAName);
        }
        if NOBODYS.contains(&last) {
            return Err(InvalidDomain::NotPublic);
        }
        let is_ours = |ours: &&str| {
            let above = name.strip_suffix(&ours.to_ascii_lowercase());
            above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
        };
        if ours.iter().any(is_ours) {
            return Err(InvalidDomain::Ours);
        }
        Ok(Self(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(label: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LABEL_MAX_BYTES).contains(&label.len())
        && label.bytes().all(is_letter)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: [&str; 2] = ["apps.Example.com", "edge.example.net"];

    fn read(text: &str) -> Result<String, InvalidDomain> {
        DomainName::read(text, &OURS).map(|name| name.0)
    }

    #[test]
    fn a_name_is_read_in_the_form_that_dns_knows() {
        for (text, name) in [
            ("chat.example.org", "chat.example.org"),
            ("Chat.Example.ORG.", "chat.example.org"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("example.com", "example.com"),
            ("xapps.example.com", "xapps.example.com"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(name), "{text}");
        }
    }

    #[test]
    fn what_is_no_public_host_name_is_refused() {
        let long = format!("{}.example", "a.".repeat(120));
        for text in [
            "",
            ".",
            "example",
            "a..b",
            "*.example.org",
            "a b.example",
            "a_b.example",
            "-a.example",
            "127.0.0.1",
            "1.2",
            "[::1]",
            "a.example:80",
            "a.example/x",
            "user@a.example",
            "a%2eb.example",
            "a.example..",
            &long,
        ] {
            assert_eq!(read(text), Err(InvalidDomain::NotAName), "{text}");
        }
        for text in ["a.localhost", "db.internal", "x.onion"] {
            assert_eq!(read(text), Err(InvalidDomain::NotPublic), "{text}");
        }
    }

    #[test]
    fn names_of_the_service_and_below_are_the_operators() {
        for text in [
            "apps.example.com",
            "anna.apps.example.com",
            "ANNA.apps.example.com.",
            "edge.example.net",
        ] {
            assert_eq!(read(text), Err(InvalidDomain::Ours), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_fits_a_rule_and_a_configuration(text in ".{0,40}") {
            if let Ok(name) = read(&text) {
                let is_plain = |byte: u8| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte)
                };
                prop_assert!(name.bytes().all(is_plain));
                prop_assert_eq!(read(&name), Ok(name.clone()));
            }
        }
    }
}
