//! The image manifest, written by the agent that is in the image: it knows what it speaks, and refuses a
//! version of OpenClaw that it would not know how to restart.

use std::{io, path::PathBuf};

use clap::Args;
use sha2::{Digest as _, Sha256};
use tidepool_shared::{
    artefact::ReleaseKeyId,
    capability,
    manifest::{ContainerManifest, ImageBuild, ImageManifest, PinnedImage},
};

use crate::reload::{Table, UnknownVersion};

/// The command line of `manifest`.
#[derive(Debug, Clone, Args)]
pub struct ManifestArguments {
    #[arg(long)]
    openclaw_version: String,
    /// JSON Schema of its configuration
    #[arg(long)]
    config_schema: PathBuf,
    #[arg(long)]
    nginx: PathBuf,
    /// OpenClaw's container image, `sha256:...`
    #[arg(long, value_parser = |text: &str| PinnedImage::try_from(text.to_owned()))]
    container: Option<PinnedImage>,
    /// Docker's volume with browsers
    #[arg(long, requires = "container")]
    browsers: Option<String>,
    /// A release key's public half: whose agents and images this server takes; more of them, more keys
    #[arg(long = "release-key")]
    release_keys: Vec<ReleaseKeyId>,
    /// A name for what the image was made from
    #[arg(long)]
    inputs: String,
    /// RFC 3339, UTC
    #[arg(long)]
    built_at: String,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum NoManifest {
    #[error(transparent)]
    Version(#[from] UnknownVersion),
    #[error("read this very program")]
    Program(#[source] io::Error),
}

/// The manifest of the image that this program is in.
pub fn of_image(
    arguments: ManifestArguments,
    agent_version: &str,
) -> Result<ImageManifest, NoManifest> {
    let table = Table::of(&arguments.openclaw_version)?;
    let program = std::env::current_exe().and_then(std::fs::read);
    let digest = Sha256::digest(program.map_err(NoManifest::Program)?);
    Ok(ImageManifest {
        image: format!("openclaw-{}", arguments.openclaw_version),
        openclaw_version: arguments.openclaw_version,
        gateway: ["node", "/app/openclaw.mjs", "gateway"]
            .map(str::to_owned)
            .into(),
        config_schema: arguments.config_schema,
        nginx: arguments.nginx,
        gateway_ports: 1,
        release_keys: arguments.release_keys,
        container: arguments.container.map(|image| ContainerManifest {
            browsers: arguments.browsers,
            ..ContainerManifest::of(image)
        }),
        build: Some(ImageBuild {
            built_at: arguments.built_at,
            agent_version: agent_version.to_owned(),
            agent_capability: capability::CURRENT,
            agent_sha256: format!("{digest:x}"),
            restart_signal: table.restart_signal().name().to_owned(),
            inputs: arguments.inputs,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(version: &str) -> ManifestArguments {
        ManifestArguments {
            openclaw_version: version.to_owned(),
            config_schema: "/usr/share/tidepool/config-schema.json".into(),
            nginx: "/usr/sbin/nginx".into(),
            container: Some(format!("sha256:{}", "0a".repeat(32)).try_into().unwrap()),
            browsers: Some("browsers".to_owned()),
            release_keys: Vec::new(),
            inputs: "abc".to_owned(),
            built_at: "2026-11-27T12:00:00Z".to_owned(),
        }
    }

    #[test]
    fn it_says_what_the_agent_will_do_and_reads_back() {
        let manifest = of_image(arguments("2026.9.5"), "0.1.0").unwrap();
        let build = manifest.build.clone().unwrap();
        assert_eq!(build.restart_signal, "SIGUSR1");
        let container = manifest.container.clone().unwrap();
        assert_eq!(container.browsers.as_deref(), Some("browsers"));
        let text = serde_json::to_string(&manifest).unwrap();
        assert_eq!(
            serde_json::from_str::<ImageManifest>(&text).unwrap(),
            manifest
        );
    }

    #[test]
    fn a_version_that_was_never_tried_becomes_no_image() {
        let refused = of_image(arguments("2027.1.1"), "0.1.0");
        assert!(matches!(refused, Err(NoManifest::Version(_))));
    }
}
