//! The desired-state document: everything an agent must make true, as one value with a number.
//!
//! The coordinator encodes a document once; those bytes and their SHA-256 are what is stored, sent,
//! kept on the server's disk and compared. Nobody re-encodes. A newer [`Generation`] replaces an
//! older one, an older one is refused, the same number with other bytes is an alarm.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{id::InstanceId, networks::Networks, openclaw_version::OpenClawVersion};

/// The number of an instance's document; starts at 1 and only grows.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The first document of an instance.
    pub const FIRST: Self = Self(1);

    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256 of a document's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a server that belongs to an instance must look like. JSON on the wire and on disk.
///
/// Fields are only ever added, each with a default, so that an old agent reads a new document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredDocument {
    pub instance: InstanceId,
    pub generation: Generation,
    /// Host names, without port and in lower case, that nginx answers to; any other gets 403.
    pub hosts: Vec<String>,
    /// Browser origins that count as the instance's own, such as `https://a1.apps.example.com`.
    pub origins: Vec<String>,
    /// What the edge presents when it has proved a signed-in user; without it nginx passes no
    /// identity on and the gateway refuses. Hexadecimal, 256 bit.
    pub edge_proof: EdgeProof,
    /// The customer's configuration: a JSON merge patch over the neutral configuration.
    pub config: serde_json::Value,
    /// Raised to ask for one restart of the gateway.
    #[serde(default)]
    pub restarts: u64,
    #[serde(default, skip_serializing_if = "GatewayLimits::are_none")]
    pub limits: GatewayLimits,
    /// Whether the gateway runs and its doors are open.
    #[serde(default)]
    pub power: Power,
    /// Raised when somebody's access ended: whatever was let in before is cut off.
    #[serde(default)]
    pub evictions: u64,
    /// The largest body that a request may have; [`MAX_BODY_BYTES_DEFAULT`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// The version of OpenClaw that the gateway is to be; without it, the one that the server has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openclaw: Option<OpenClawOrder>,
    /// The private networks that the gateway's container may reach. Only a server of the image has a packet filter
    /// that they are an exception to: elsewhere, as in local mode, and with an agent or an image of before they
    /// mean nothing.
    #[serde(default, skip_serializing_if = "Networks::are_none")]
    pub networks: Networks,
}

/// An order for a version of OpenClaw. A server tries each once: trying again is another order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenClawOrder {
    /// Grows with each order of an instance.
    pub number: u64,
    pub version: OpenClawVersion,
    /// The version's signed artefact as JSON, for servers that do not have it. As
    /// [`WantedAgent::signed`](crate::message::WantedAgent::signed), it is read only where it is believed or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<String>,
}

/// The most that a gateway may take, with all that it starts: its tier's. Whatever is absent is as the machine
/// allows. They are kept to where the gateway is in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GatewayLimits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millicores: Option<u32>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

/// A limit that no gateway can live with, or that no machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is {least} to {most}, not {given}")]
pub struct LimitOutOfRange {
    name: &'static str,
    given: u32,
    least: u32,
    most: u32,
}

impl GatewayLimits {
    /// Below that OpenClaw does not boot.
    pub const LEAST_MEMORY_MIB: u32 = 768;

    /// Whether none is given.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether each is one that a gateway can live with.
    pub fn check(&self) -> Result<(), LimitOutOfRange> {
        for (name, given, least, most) in [
            (
                "memory_mib",
                self.memory_mib,
                Self::LEAST_MEMORY_MIB,
                1 << 20,
            ),
            ("cpu_millicores", self.cpu_millicores, 100, 512_000),
            ("pids", self.pids, 128, 32_768),
        ] {
            match given {
                Some(given) if !(least..=most).contains(&given) => {
                    return Err(LimitOutOfRange {
                        name,
                        given,
                        least,
                        most,
                    });
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

/// Whether an instance's gateway is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    #[default]
    On,
    /// No gateway, and nobody is let in; what it keeps on disk stays.
    Off,
}

/// What a body may have if nobody says otherwise: nginx's `100m`, as it was before there was a choice.
pub const MAX_BODY_BYTES_DEFAULT: u64 = 100 * 1024 * 1024;

/// The largest bound that may be set. A body passes as it comes, so this is time and traffic, not memory.
pub const MAX_BODY_BYTES_CEILING: u64 = 1024 * 1024 * 1024;

/// A shared secret between edge and nginx. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EdgeProof(pub String);

impl fmt::Debug for EdgeProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EdgeProof(…)")
    }
}

/// A document as it is stored and sent: number, digest and the very bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedDocument {
    pub instance: InstanceId,
    pub generation: Generation,
    pub digest: Digest,
    pub bytes: Vec<u8>,
}

impl SealedDocument {
    /// Encodes a document for good.
    pub fn seal(document: &DesiredDocument) -> Self {
        let bytes = serde_json::to_vec(document).expect("a document has string keys only");
        Self {
            instance: document.instance,
            generation: document.generation,
            digest: Digest::of(&bytes),
            bytes,
        }
    }

    /// Reads bytes that came from a peer or a disk; `digest` and `generation` must be theirs.
    pub fn open(&self) -> Result<DesiredDocument, UnreadableDocument> {
        if Digest::of(&self.bytes) != self.digest {
            return Err(UnreadableDocument::Digest);
        }
        let document: DesiredDocument =
            serde_json::from_slice(&self.bytes).map_err(UnreadableDocument::Json)?;
        if document.generation != self.generation || document.instance != self.instance {
            return Err(UnreadableDocument::Label);
        }
        Ok(document)
    }
}

/// Why a sealed document cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableDocument {
    #[error("bytes do not match their digest")]
    Digest,
    #[error("document is not what its label says")]
    Label,
    #[error("document is not readable")]
    Json(#[source] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn document() -> DesiredDocument {
        DesiredDocument {
            instance: InstanceId::new(Uuid::from_u128(1)),
            generation: Generation(3),
            hosts: vec!["a.localhost".into()],
            origins: vec!["http://a.localhost:8080".into()],
            edge_proof: EdgeProof("ab".into()),
            config: serde_json::json!({"ui": {"name": "x"}}),
            restarts: 0,
            limits: GatewayLimits::default(),
            power: Power::On,
            evictions: 0,
            max_body_bytes: None,
            openclaw: None,
            networks: Networks::default(),
        }
    }

    #[test]
    fn networks_are_read_where_there_are_some_and_only_if_they_are_private() {
        let mut old = serde_json::to_value(document()).unwrap();
        assert!(old.get("networks").is_none(), "an old agent's very bytes");
        old["networks"] = serde_json::json!(["10.20.0.0/16", "fd00::/8"]);
        let read: DesiredDocument = serde_json::from_value(old.clone()).unwrap();
        assert_eq!(read.networks.to_string(), "10.20.0.0/16, fd00::/8");
        assert_eq!(serde_json::to_value(&read).unwrap(), old);
        old["networks"] = serde_json::json!(["169.254.169.254/32"]);
        let bytes = serde_json::to_vec(&old).unwrap();
        let sealed = SealedDocument {
            digest: Digest::of(&bytes),
            bytes,
            ..SealedDocument::seal(&document())
        };
        assert!(matches!(sealed.open(), Err(UnreadableDocument::Json(_))));
    }

    #[test]
    fn what_an_old_document_does_not_say_is_on() {
        let mut old = serde_json::to_value(document()).unwrap();
        let fields = old.as_object_mut().unwrap();
        fields.remove("power");
        fields.remove("evictions");
        let read: DesiredDocument = serde_json::from_value(old).unwrap();
        assert_eq!(read, document());
    }

    #[test]
    fn an_order_of_before_brings_no_artefact() {
        let old = r#"{"number":3,"version":"2026.9.6"}"#;
        let order: OpenClawOrder = serde_json::from_str(old).unwrap();
        assert_eq!(order.signed, None);
        assert_eq!(serde_json::to_string(&order).unwrap(), old);
    }

    #[test]
    fn a_sealed_document_opens_to_itself() {
        assert_eq!(
            SealedDocument::seal(&document()).open().unwrap(),
            document()
        );
    }

    #[test]
    fn limits_are_read_where_there_are_some_and_checked() {
        let plain = serde_json::to_string(&document()).unwrap();
        assert!(!plain.contains("limits"), "an old agent's very bytes");
        let limits = GatewayLimits {
            memory_mib: Some(2048),
            ..GatewayLimits::default()
        };
        let limited = DesiredDocument {
            limits,
            ..document()
        };
        assert_eq!(SealedDocument::seal(&limited).open().unwrap(), limited);
        assert_eq!(limits.check(), Ok(()));
        let too_small = GatewayLimits {
            memory_mib: Some(767),
            ..limits
        };
        let said = too_small.check().unwrap_err().to_string();
        assert_eq!(said, "`memory_mib` is 768 to 1048576, not 767");
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let mut sealed = SealedDocument::seal(&document());
        sealed.bytes[0] ^= 1;
        assert!(matches!(sealed.open(), Err(UnreadableDocument::Digest)));
    }

    #[test]
    fn another_generations_bytes_are_noticed() {
        let mut sealed = SealedDocument::seal(&document());
        sealed.generation = Generation(4);
        assert!(matches!(sealed.open(), Err(UnreadableDocument::Label)));
    }

    #[test]
    fn the_proof_is_not_shown_by_debug() {
        assert!(!format!("{:?}", document()).contains("ab\""));
    }
}
