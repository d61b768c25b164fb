//! A version of OpenClaw as people and files name it: `2026.9.6`, or `2026.9.6-r20261101` for a rebuild.
//!
//! It becomes part of paths and is shown, so that nothing else passes for one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

const MAX_LEN: usize = 64;

/// A version's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OpenClawVersion(String);

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a version of OpenClaw, such as 2026.9.6")]
pub struct NotAVersion;

impl OpenClawVersion {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The version without the mark of a rebuild.
    pub fn release(&self) -> &str {
        self.0
            .split_once('-')
            .map_or(self.as_str(), |(release, _)| release)
    }
}

impl FromStr for OpenClawVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let (release, rebuild) = match text.split_once("-r") {
            Some((release, rebuild)) => (release, Some(rebuild)),
            None => (text, None),
        };
        let is_number =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_version = release.split('.').count() == 3
            && release.split('.').all(is_number)
            && rebuild.is_none_or(is_number);
        if is_version && text.len() <= MAX_LEN {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAVersion)
        }
    }
}

impl TryFrom<String> for OpenClawVersion {
    type Error = NotAVersion;

    fn try_from(text: String) -> Result<Self, NotAVersion> {
        text.parse()
    }
}

impl From<OpenClawVersion> for String {
    fn from(version: OpenClawVersion) -> Self {
        version.0
    }
}

impl fmt::Display for OpenClawVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_and_a_rebuild_are_versions_and_nothing_else_is() {
        for version in ["2026.9.6", "2026.10.12", "2026.9.6-r20261101"] {
            let parsed: OpenClawVersion = version.parse().unwrap();
            assert_eq!(parsed.to_string(), version);
            assert!(version.starts_with(parsed.release()));
        }
        for other in [
            "",
            "latest",
            "2026.9",
            "2026.9.6.1",
            "2026.9.6-rc1",
            "2026.9.6-r",
            "../2026.9.6",
            "2026.9.6/..",
            "2026..6",
        ] {
            assert!(other.parse::<OpenClawVersion>().is_err(), "{other}");
        }
        assert!(
            format!("2026.9.{}", "6".repeat(64))
                .parse::<OpenClawVersion>()
                .is_err()
        );
    }
}
