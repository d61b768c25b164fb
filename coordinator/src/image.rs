//! Building the image that servers are made from, on this machine: debootstrap, then the very scripts that
//! Packer runs in the cloud, then a look whether the result holds what it must not.
//!
//! Needs root, `debootstrap`, `systemd-nspawn` and `zstd`. An image is named by the hash of everything that
//! went into it ([`inputs`]), so what was built before is not built again; Debian's packages are those of the
//! day, and are not part of the name.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use serde::Serialize;
use tidepool_shared::{artefact::ReleaseKeyId, manifest::ImageManifest};
use tokio::time::Instant;

mod inputs;
mod steps;

pub use self::steps::{StepFailed, provisioning};
use self::{inputs::Inputs, steps::Steps};

/// Where the manifest is on a server.
pub const MANIFEST: &str = "usr/share/tidepool/manifest.json";

/// What to build.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The repository's `snapshot-image`.
    pub scripts: PathBuf,
    /// The agent's program.
    pub agent: PathBuf,
    pub openclaw: OpenClaw,
    /// Whose artefacts its servers take.
    pub release_keys: Vec<ReleaseKeyId>,
    /// Where images are kept.
    pub directory: PathBuf,
}

/// Where OpenClaw's container comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenClaw {
    /// As `openclaw/container.sh` makes it.
    Archive(PathBuf),
    /// From a registry, `REPOSITORY@sha256:...`.
    Reference(String),
    /// An image without one, for tests of everything else.
    Absent,
}

/// An image on this machine.
#[derive(Debug, Clone, Serialize)]
pub struct Built {
    /// The same inputs, the same name.
    pub name: String,
    /// The root file system, tar and zstd.
    pub path: PathBuf,
    pub size_bytes: u64,
    pub seconds: u64,
    /// It was there already.
    pub cached: bool,
    pub manifest: ImageManifest,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildFailed {
    #[error("building an image needs root")]
    NotRoot,
    #[error("read `{path}`")]
    Input {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Step(#[from] StepFailed),
    #[error("keep the image in `{path}`")]
    Keep {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the image's manifest is not one")]
    Manifest(#[source] serde_json::Error),
}

/// Builds the image, or finds it. `tell` hears a line for every step.
pub async fn build(recipe: &Recipe, tell: &mut dyn FnMut(&str)) -> Result<Built, BuildFailed> {
    let began = Instant::now();
    let name = Inputs::of(recipe)?.name();
    let path = recipe.directory.join(format!("{name}.tar.zst"));
    // Written last, so that an image with a manifest is whole.
    let manifest_path = recipe.directory.join(format!("{name}.json"));
    let cached = manifest_path.is_file();
    if !cached {
        if !geteuid().is_root() {
            return Err(BuildFailed::NotRoot);
        }
        let steps = Steps::begin(recipe, &name)?;
        let manifest = steps.run(&path, tell).await?;
        write_beside(&manifest_path, &manifest)?;
    }
    let built = Built {
        manifest: serde_json::from_slice(&read(&manifest_path)?).map_err(BuildFailed::Manifest)?,
        size_bytes: fs::metadata(&path)
            .map_err(|source| input(&path, source))?
            .len(),
        seconds: began.elapsed().as_secs(),
        name,
        path,
        cached,
    };
    Ok(built)
}

fn read(path: &Path) -> Result<Vec<u8>, BuildFailed> {
    fs::read(path).map_err(|source| input(path, source))
}

fn input(path: &Path, source: io::Error) -> BuildFailed {
    BuildFailed::Input {
        path: path.to_owned(),
        source,
    }
}

/// Written whole or not at all.
fn write_beside(path: &Path, contents: &[u8]) -> Result<(), BuildFailed> {
    let beside = path.with_extension("partial");
    fs::write(&beside, contents)
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|source| BuildFailed::Keep {
            path: path.to_owned(),
            source,
        })
}
