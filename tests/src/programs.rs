//! Where the programs under test are, and the images that servers are made from.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tidepool_shared::manifest::ImageManifest;

/// A program of this workspace, built into the same profile as the running test.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("find this program")?;
    let found = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("`{name}` is not built: run `cargo build --workspace` first"))?;
    Ok(found)
}

/// An image whose gateway is the stub with these switches; its manifest is written into `dir`.
pub fn stub_image(dir: &Path, switches: &[String]) -> anyhow::Result<PathBuf> {
    let manifest = ImageManifest {
        image: "stub".to_owned(),
        openclaw_version: "2026.9.6".to_owned(),
        gateway: [
            program("stub-gateway")?.display().to_string(),
            "gateway".to_owned(),
        ]
        .into_iter()
        .chain(switches.iter().cloned())
        .collect(),
        config_schema: Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stub-schema.json"),
        nginx: nginx()?,
        gateway_ports: 1,
        container: None,
    };
    let path = dir.join("manifest.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&manifest)?).context("write the manifest")?;
    Ok(path)
}

/// The image of the real OpenClaw, if this run has one.
pub fn real_image() -> Option<PathBuf> {
    std::env::var_os("TIDEPOOL_OPENCLAW_MANIFEST").map(PathBuf::from)
}

fn nginx() -> anyhow::Result<PathBuf> {
    let path = Path::new("/usr/sbin/nginx");
    ensure!(
        path.is_file(),
        "nginx is not installed: run the tests by `./tidepool test`"
    );
    Ok(path.to_owned())
}
