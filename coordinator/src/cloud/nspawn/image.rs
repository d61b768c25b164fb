//! Images: archives in one directory, of which the one that is promoted is what new servers are made from, and
//! each is unpacked once for all its servers.
//!
//! Which one is promoted is a file of the cloud's own, as it is a label in a real cloud; before there is one it
//! is that of the configuration.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use tidepool_certs::secret_file;
use tidepool_shared::manifest::ImageManifest;

use super::{super::disk, run::run, settings::NspawnSettings};
use crate::cloud::CloudImage;

const ARCHIVE: &str = ".tar.zst";

/// Begins the name of an unpacked image's directory.
const UNPACKED: &str = "image-";

/// Unpacks the configuration's image into the cloud's directory, unless it is there; its name and its root.
pub async fn unpack(settings: &NspawnSettings) -> io::Result<(String, PathBuf)> {
    let name = configured(settings)?;
    let root = unpacked(settings, &name).await?;
    Ok((name, root))
}

/// The name of the configuration's image.
fn configured(settings: &NspawnSettings) -> io::Result<String> {
    settings
        .image
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(ARCHIVE))
        .map(str::to_owned)
        .ok_or_else(|| {
            let text = format!("`{}` is no image: *{ARCHIVE}", settings.image.display());
            io::Error::other(text)
        })
}

/// The name of the image that new servers are made from.
pub(super) fn promoted(settings: &NspawnSettings) -> io::Result<String> {
    match fs::read_to_string(pointer(settings)) {
        Ok(name) => Ok(name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => configured(settings),
        Err(error) => Err(error),
    }
}

/// Makes new servers be made from this image.
pub(super) fn promote(settings: &NspawnSettings, name: &str) -> io::Result<()> {
    fs::metadata(archive(settings, name)?)?;
    secret_file::write(&pointer(settings), name.as_bytes())
}

fn pointer(settings: &NspawnSettings) -> PathBuf {
    settings.directory.join("promoted")
}

/// Whether there is such an image.
pub(super) fn exists(settings: &NspawnSettings, name: &str) -> bool {
    archive(settings, name).is_ok_and(|archive| archive.is_file())
}

/// Every image beside the configuration's, oldest first. One without a manifest is not whole.
pub(super) fn all(settings: &NspawnSettings) -> io::Result<Vec<CloudImage>> {
    let promoted = promoted(settings)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(shelf(settings)?)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.and_then(|name| name.strip_suffix(ARCHIVE)) {
            found.extend(seen(&path, name, &promoted)?);
        }
    }
    found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    Ok(found)
}

fn seen(path: &Path, name: &str, promoted: &str) -> io::Result<Option<CloudImage>> {
    let text = match fs::read(path.with_file_name(format!("{name}.json"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let manifest: ImageManifest = serde_json::from_slice(&text)?;
    let archive = fs::metadata(path)?;
    Ok(Some(CloudImage {
        id: name.to_owned(),
        created_at: disk::modified(&archive)?,
        size_bytes: Some(archive.len()),
        agent_version: manifest.build.map(|build| build.agent_version),
        openclaw_version: Some(manifest.openclaw_version),
        is_promoted: name == promoted,
    }))
}

/// Where the archives are.
fn shelf(settings: &NspawnSettings) -> io::Result<&Path> {
    settings
        .image
        .parent()
        .ok_or_else(|| io::Error::other("the image is in no directory"))
}

fn archive(settings: &NspawnSettings, name: &str) -> io::Result<PathBuf> {
    if name.contains('/') || name.starts_with('.') {
        return Err(io::Error::other(format!("`{name}` is no image's name")));
    }
    Ok(shelf(settings)?.join(format!("{name}{ARCHIVE}")))
}

fn place(settings: &NspawnSettings, name: &str) -> PathBuf {
    settings.directory.join(format!("{UNPACKED}{name}"))
}

/// An image's root, unpacked now if it is not yet.
pub(super) async fn unpacked(settings: &NspawnSettings, name: &str) -> io::Result<PathBuf> {
    let whole = place(settings, name);
    let root = whole.join("root");
    if root.is_dir() {
        return Ok(root);
    }
    let archive = archive(settings, name)?;
    // A directory of that name is a whole image, so it gets its name last.
    let partial = settings.directory.join(format!(".{UNPACKED}{name}"));
    disk::remove(&partial).await?;
    tokio::fs::create_dir_all(partial.join("root")).await?;
    let (from, to) = (
        archive.display().to_string(),
        partial.join("root").display().to_string(),
    );
    let arguments = [
        "--extract",
        "--numeric-owner",
        "--same-owner",
        "--preserve-permissions",
        "--xattrs",
        "--xattrs-include=*",
        "--zstd",
        "--file",
        &from,
        "--directory",
        &to,
    ];
    run("tar", &arguments).await?;
    tokio::fs::rename(&partial, &whole).await?;
    Ok(root)
}

/// Removes what was unpacked of images that nobody uses.
pub(super) async fn clear(settings: &NspawnSettings, used: &HashSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(&settings.directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let image = name.to_str().and_then(|name| name.strip_prefix(UNPACKED));
        if image.is_some_and(|image| !used.contains(image)) {
            disk::remove(&entry.path()).await?;
        }
    }
    Ok(())
}
