//! What is brought to servers after they were made: the agent's own program, OpenClaw's image.
//!
//! An artefact is bytes and a statement about them, signed by a release key that no coordinator has. A
//! coordinator carries artefacts and can sign none, so whoever takes it over can put no code on servers: the
//! keys that an agent believes are in its image's manifest, and in nothing that a coordinator says.

mod version;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use version::{NotAVersion, Version};

/// The longest signed artefact (the statement and its signature, without the bytes) as JSON.
pub const MAX_SIGNED: usize = 4096;

/// What an artefact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The agent's program.
    Agent,
    /// OpenClaw's container image, as an archive.
    OpenclawImage,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Agent, Self::OpenclawImage];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::OpenclawImage => "openclaw-image",
        }
    }

    /// The most bytes that one may have, whoever signed it.
    pub const fn max_size(self) -> u64 {
        match self {
            Self::Agent => 128 * 1024 * 1024,
            Self::OpenclawImage => 2 * 1024 * 1024 * 1024,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Kind {
    type Err = NotAKind;

    fn from_str(text: &str) -> Result<Self, NotAKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or(NotAKind)
    }
}

/// A word that names no kind of artefact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not `agent` or `openclaw-image`")]
pub struct NotAKind;

/// What is signed. Fields are only ever added, each optional.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    pub kind: Kind,
    pub version: Version,
    pub sha256: Sha256,
    /// In bytes.
    pub size: u64,
    /// The newest version that it may replace although that is newer; without it none. It is how a bad
    /// release is taken back, and has an end, so that an old artefact cannot be used for ever to go back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces_up_to: Option<Version>,
}

impl Statement {
    /// Whether it may follow a server that had `held` as its newest.
    pub fn may_replace(&self, held: &Version) -> bool {
        self.version >= *held
            || self
                .replaces_up_to
                .as_ref()
                .is_some_and(|last| last >= held)
    }
}

/// A statement's text and who signed it. The text is kept as it was signed: another writer of JSON would
/// put the same words in other bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedArtefact {
    pub statement: String,
    pub key: ReleaseKeyId,
    pub signature: Signature,
}

/// Bytes of a fixed number, written in hexadecimal.
macro_rules! hexadecimal {
    ($($(#[$doc:meta])* $name:ident = $len:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NotHexadecimal;

            fn from_str(text: &str) -> Result<Self, NotHexadecimal> {
                let mut bytes = [0; $len];
                if text.len() != bytes.len() * 2 {
                    return Err(NotHexadecimal { digits: $len * 2 });
                }
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
                    *byte = std::str::from_utf8(pair)
                        .ok()
                        .filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()))
                        .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                        .ok_or(NotHexadecimal { digits: $len * 2 })?;
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

hexadecimal! {
    /// SHA-256 of an artefact's bytes.
    Sha256 = 32;
    /// A release key's public half, Ed25519.
    ReleaseKeyId = 32;
    /// A signature, Ed25519.
    Signature = 64;
}

/// Text that is not so many hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {digits} hexadecimal digits")]
pub struct NotHexadecimal {
    digits: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(version: &str, replaces_up_to: Option<&str>) -> Statement {
        Statement {
            kind: Kind::Agent,
            version: version.parse().unwrap(),
            sha256: Sha256([0xab; 32]),
            size: 5,
            replaces_up_to: replaces_up_to.map(|text| text.parse().unwrap()),
        }
    }

    #[test]
    fn an_older_one_replaces_a_newer_one_only_as_far_as_it_says() {
        let held = |text: &str| text.parse().unwrap();
        let plain = statement("1.2.0", None);
        assert!(plain.may_replace(&held("1.1.9")) && plain.may_replace(&held("1.2.0")));
        assert!(!plain.may_replace(&held("1.2.1")));
        let back = statement("1.2.0", Some("1.3.0"));
        assert!(back.may_replace(&held("1.3.0")) && !back.may_replace(&held("1.3.1")));
    }

    #[test]
    fn a_statement_reads_back_and_tolerates_what_is_newer() {
        let statement = statement("1.2.0", None);
        let text = serde_json::to_string(&statement).unwrap();
        assert_eq!(serde_json::from_str::<Statement>(&text).unwrap(), statement);
        let newer = text.replacen('{', r#"{"later":1,"#, 1);
        assert_eq!(
            serde_json::from_str::<Statement>(&newer).unwrap(),
            statement
        );
    }

    #[test]
    fn hexadecimal_of_another_length_or_sign_is_refused() {
        assert_eq!("ab".repeat(32).parse(), Ok(Sha256([0xab; 32])));
        for text in [
            String::new(),
            "ab".repeat(31),
            "+b".repeat(32),
            "é".repeat(32),
        ] {
            assert!(text.parse::<Sha256>().is_err(), "{text}");
        }
    }
}
