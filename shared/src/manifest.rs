//! The image manifest: what was baked in, written when the image is made, reported at enrolment.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `manifest.json` of an image. Paths are absolute on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageManifest {
    /// A name for people, such as `openclaw-2026.9.6`.
    pub image: String,
    /// The version of OpenClaw; decides the reload table and the restart signal.
    pub openclaw_version: String,
    /// The gateway's program and leading arguments; the agent adds no shell.
    pub gateway: Vec<String>,
    /// JSON Schema of this version's configuration, made by the version itself.
    pub config_schema: PathBuf,
    /// nginx's program.
    pub nginx: PathBuf,
    /// How many consecutive ports the gateway may take from its own on; matters where several share
    /// an address, as on the local cloud.
    #[serde(default = "gateway_ports")]
    pub gateway_ports: u16,
}

/// OpenClaw's browser control and its debugging ports lie within this distance of the gateway's.
fn gateway_ports() -> u16 {
    120
}
