//! Values that end up in nginx's configuration, parsed so that none of them can be anything else.
//!
//! They come from the coordinator, which is trusted; but a name is typed by a customer in the end,
//! and a quote or a semicolon in one would be configuration.

use tidepool_shared::document::{DesiredDocument, MAX_BODY_BYTES_CEILING, MAX_BODY_BYTES_DEFAULT};

/// Names and origins that one instance may have.
const MAX_NAMES: usize = 64;

/// Everything of a document that nginx must know.
#[derive(Clone, PartialEq, Eq)]
pub struct Claim {
    pub(super) hosts: Vec<String>,
    pub(super) origins: Vec<String>,
    pub(super) proof: String,
    /// How often whoever was let in has been cut off.
    pub(super) evictions: u64,
    /// Never 0, which nginx takes for no bound.
    pub(super) max_body_bytes: u64,
}

impl Claim {
    /// Reads the claim out of a document.
    pub fn of(document: &DesiredDocument) -> Result<Self, UnusableDocument> {
        if document.hosts.is_empty() {
            return Err(UnusableDocument::NoHost);
        }
        if document.hosts.len() > MAX_NAMES || document.origins.len() > MAX_NAMES {
            return Err(UnusableDocument::TooManyNames);
        }
        let bad_host = document.hosts.iter().find(|host| !is_host(host));
        if let Some(host) = bad_host {
            return Err(UnusableDocument::Host(host.clone()));
        }
        let bad_origin = document.origins.iter().find(|origin| !is_origin(origin));
        if let Some(origin) = bad_origin {
            return Err(UnusableDocument::Origin(origin.clone()));
        }
        let proof = document.edge_proof.0.clone();
        if !is_proof(&proof) {
            return Err(UnusableDocument::Proof);
        }
        Ok(Self {
            hosts: without_repeats(&document.hosts),
            origins: without_repeats(&document.origins),
            proof,
            evictions: document.evictions,
            max_body_bytes: document
                .max_body_bytes
                .unwrap_or(MAX_BODY_BYTES_DEFAULT)
                .clamp(1, MAX_BODY_BYTES_CEILING),
        })
    }

    pub(super) fn proof(&self) -> &str {
        &self.proof
    }
}

/// nginx refuses a map with the same key twice and warns of a repeated name.
fn without_repeats(names: &[String]) -> Vec<String> {
    let mut seen: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if !seen.contains(name) {
            seen.push(name.clone());
        }
    }
    seen
}

/// Lower case, exact: no wildcard, no regular expression, no port.
fn is_host(host: &str) -> bool {
    host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn is_origin(origin: &str) -> bool {
    let Some(authority) = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"))
    else {
        return false;
    };
    match authority.split_once(':') {
        None => is_host(authority),
        Some((host, port)) => is_host(host) && port.parse::<u16>().is_ok_and(|port| port != 0),
    }
}

/// Hexadecimal, and long enough that nobody guesses it.
fn is_proof(proof: &str) -> bool {
    (32..=128).contains(&proof.len()) && proof.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Why nginx cannot be configured from a document.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnusableDocument {
    #[error("document names no host")]
    NoHost,
    #[error("document names too many hosts or origins")]
    TooManyNames,
    #[error("not a host name: `{0}`")]
    Host(String),
    #[error("not an origin: `{0}`")]
    Origin(String),
    #[error("edge proof is not 32 to 128 hexadecimal digits")]
    Proof,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_lower_case_names_are_hosts() {
        for host in ["a.localhost", "a-1.apps.example.com", "x"] {
            assert!(is_host(host), "{host}");
        }
        let long = "a".repeat(64);
        for host in [
            "", ".", "a..b", "a.", "*.b", "~a", "A.b", "a_b", "a b", "a;b", "a\"", "a:80", "-a",
            "_", "a\n", &long,
        ] {
            assert!(!is_host(host), "{host:?}");
        }
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_perhaps_a_port() {
        for origin in ["https://a.example.com", "http://a.localhost:8080"] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in [
            "",
            "null",
            "a.b",
            "ftp://a",
            "https://a/",
            "https://a:0",
            "https://a:",
            "https://a\"",
            "https://a:80:1",
            "https://u@a",
        ] {
            assert!(!is_origin(origin), "{origin:?}");
        }
    }

    #[test]
    fn a_short_or_quoted_proof_is_refused() {
        assert!(is_proof(&"0aF9".repeat(16)));
        assert!(!is_proof("ab"));
        assert!(!is_proof(&"0a\" ".repeat(16)));
    }
}
