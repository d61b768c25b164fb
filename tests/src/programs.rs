//! Where the programs under test are, and the images that servers are made from.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tidepool_shared::manifest::{ContainerManifest, ImageManifest};

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

/// An image whose gateway is the stub with these switches, as a process or in this container; its
/// manifest is written into `dir`.
pub fn stub_image(
    dir: &Path,
    switches: &[String],
    container: Option<ContainerManifest>,
) -> anyhow::Result<PathBuf> {
    let program = match container {
        Some(_) => Path::new("/stub-gateway").to_owned(),
        None => program("stub-gateway")?,
    };
    let manifest = ImageManifest {
        image: "stub".to_owned(),
        openclaw_version: "2026.9.6".to_owned(),
        gateway: [program.display().to_string(), "gateway".to_owned()]
            .into_iter()
            .chain(switches.iter().cloned())
            .collect(),
        config_schema: stub_schema(),
        nginx: nginx()?,
        gateway_ports: 1,
        container,
        release_keys: Vec::new(),
        build: None,
    };
    write_manifest(dir, &manifest)
}

/// What the stub takes for its configuration.
pub fn stub_schema() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stub-schema.json")
}

/// The image of the real OpenClaw with its gateway in this container.
pub fn real_image_in_container(
    dir: &Path,
    container: ContainerManifest,
) -> anyhow::Result<Option<PathBuf>> {
    let Some(path) = real_image() else {
        return Ok(None);
    };
    let of_process: ImageManifest = serde_json::from_slice(&std::fs::read(path)?)?;
    let manifest = ImageManifest {
        gateway: container_argv(),
        container: Some(container),
        ..of_process
    };
    write_manifest(dir, &manifest).map(Some)
}

/// The real gateway's program and arguments in its container (`snapshot-image/openclaw/container.sh`).
pub fn container_argv() -> Vec<String> {
    let words = [
        "/usr/local/bin/node",
        "/app/node_modules/openclaw/openclaw.mjs",
        "gateway",
    ];
    words.map(str::to_owned).into()
}

/// The archive of the real OpenClaw's container, or a loud word that the test is skipped.
pub fn container_archive() -> Option<PathBuf> {
    let archive = std::env::var_os("TIDEPOOL_OPENCLAW_CONTAINER").map(PathBuf::from);
    if archive.is_none() {
        eprintln!("SKIPPED: TIDEPOOL_OPENCLAW_CONTAINER is not set; run `./tidepool test-slow`");
    }
    archive
}

fn write_manifest(dir: &Path, manifest: &ImageManifest) -> anyhow::Result<PathBuf> {
    let path = dir.join("manifest.json");
    std::fs::write(&path, serde_json::to_vec_pretty(manifest)?).context("write the manifest")?;
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
