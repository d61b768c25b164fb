//! The image manifest: what was baked in, written when the image is made, reported at enrolment.

use std::{path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::artefact::ReleaseKeyId;

/// `manifest.json` of an image. Paths are absolute on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageManifest {
    /// A name for people, such as `openclaw-2026.9.6`.
    pub image: String,
    /// The version of OpenClaw; decides the reload table and the restart signal.
    pub openclaw_version: String,
    /// The gateway's program and leading arguments; the agent adds no shell. In a container these are
    /// the container's own paths.
    pub gateway: Vec<String>,
    /// JSON Schema of this version's configuration, made by the version itself.
    pub config_schema: PathBuf,
    /// nginx's program.
    pub nginx: PathBuf,
    /// How many consecutive ports the gateway may take from its own on; matters where several share
    /// an address, as on the local cloud.
    #[serde(default = "gateway_ports")]
    pub gateway_ports: u16,
    /// The container that the gateway runs in; without it, it is a process of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerManifest>,
    /// Whose signature makes an artefact one for this server; without any it takes none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub release_keys: Vec<ReleaseKeyId>,
    /// How the image came to be; a machine that never was an image has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<ImageBuild>,
}

impl ImageManifest {
    /// The version that is baked in.
    pub fn baked(&self) -> Release {
        Release {
            openclaw_version: self.openclaw_version.clone(),
            gateway: self.gateway.clone(),
            config_schema: self.config_schema.clone(),
            container: self.container.as_ref().map(|own| own.image.clone()),
            archive: None,
            restart_signal: None,
        }
    }
}

/// One version of OpenClaw as it lies on a server, and how its gateway is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    pub openclaw_version: String,
    /// As [`ImageManifest::gateway`].
    pub gateway: Vec<String>,
    /// As [`ImageManifest::config_schema`].
    pub config_schema: PathBuf,
    /// The image of its container; none where gateways are processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<PinnedImage>,
    /// What Docker loads the image from (`docker save`), unless it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<PathBuf>,
    /// What restarts it, of a version that agents may not know. What an agent knows itself counts more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_signal: Option<RestartSignal>,
}

/// The signal that restarts a gateway in its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartSignal {
    /// Up to 2026.9.5. Later it opens Node's inspector and must never be sent.
    #[serde(rename = "SIGUSR1")]
    Usr1,
    /// From 2026.9.6. Earlier it ends the process.
    #[serde(rename = "SIGUSR2")]
    Usr2,
}

impl RestartSignal {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usr1 => "SIGUSR1",
            Self::Usr2 => "SIGUSR2",
        }
    }
}

impl FromStr for RestartSignal {
    type Err = NotARestartSignal;

    fn from_str(text: &str) -> Result<Self, NotARestartSignal> {
        [Self::Usr1, Self::Usr2]
            .into_iter()
            .find(|signal| signal.name() == text)
            .ok_or(NotARestartSignal)
    }
}

/// A word that names no signal that restarts a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not `SIGUSR1` or `SIGUSR2`")]
pub struct NotARestartSignal;

/// OpenClaw's browser control and its debugging ports lie within this distance of the gateway's.
fn gateway_ports() -> u16 {
    120
}

/// What went into an image, for people and for comparing images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageBuild {
    /// RFC 3339, UTC.
    pub built_at: String,
    pub agent_version: String,
    /// What the agent speaks: see [`crate::capability`].
    pub agent_capability: u32,
    /// SHA-256 of the agent's program, hexadecimal.
    pub agent_sha256: String,
    /// The signal that restarts this version of OpenClaw, such as `SIGUSR2`.
    pub restart_signal: String,
    /// A name for what the image was made from: the same inputs, the same name.
    pub inputs: String,
}

/// What a gateway's container is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerManifest {
    pub image: PinnedImage,
    /// Docker's socket.
    #[serde(default = "docker_socket")]
    pub socket: PathBuf,
    /// The volume with browsers, which the gateway may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browsers: Option<String>,
    /// The most memory, in MiB. Without it, what the machine has less what the rest of it needs: a
    /// tier is a size of machine. For machines that several gateways share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
}

impl ContainerManifest {
    /// As in an image: Docker where Debian has it, all the memory that there is.
    pub fn of(image: PinnedImage) -> Self {
        Self {
            image,
            socket: docker_socket(),
            browsers: None,
            memory_mib: None,
        }
    }
}

fn docker_socket() -> PathBuf {
    "/var/run/docker.sock".into()
}

/// A container image by its content: `sha256:…`, or `NAME@sha256:…`. What a tag means can change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PinnedImage(String);

impl PinnedImage {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PinnedImage {
    type Error = NotPinned;

    fn try_from(text: String) -> Result<Self, NotPinned> {
        let digest = match text.split_once('@') {
            Some(("", _)) => return Err(NotPinned(text)),
            Some((_, digest)) => digest,
            None => &text,
        };
        let is_pinned = digest.strip_prefix("sha256:").is_some_and(|digits| {
            digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        if is_pinned {
            Ok(Self(text))
        } else {
            Err(NotPinned(text))
        }
    }
}

impl From<PinnedImage> for String {
    fn from(image: PinnedImage) -> Self {
        image.0
    }
}

/// An image that is not named by its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("container image without a SHA-256 digest: `{0}`")]
pub struct NotPinned(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_image_with_a_digest_is_taken() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for pinned in [
            digest.clone(),
            format!("ghcr.io/openclaw/openclaw@{digest}"),
        ] {
            assert!(PinnedImage::try_from(pinned).is_ok());
        }
        for loose in ["openclaw:latest", "sha256:0a", "@", ""] {
            assert!(PinnedImage::try_from(loose.to_owned()).is_err(), "{loose}");
        }
        assert!(PinnedImage::try_from(format!("@{digest}")).is_err());
    }

    #[test]
    fn a_manifest_of_before_containers_is_read_and_written_as_it_was() {
        let text = r#"{"image":"a","openclaw_version":"2026.9.6","gateway":["node"],"config_schema":"/s","nginx":"/n","gateway_ports":1}"#;
        let manifest: ImageManifest = serde_json::from_str(text).unwrap();
        assert_eq!((&manifest.container, &manifest.build), (&None, &None));
        assert_eq!(serde_json::to_string(&manifest).unwrap(), text);
    }
}
