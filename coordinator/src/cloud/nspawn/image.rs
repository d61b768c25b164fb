//! The image, unpacked once for all servers.

use std::{io, path::PathBuf};

use super::{super::disk, run::run, settings::NspawnSettings};

/// Unpacks the image into the cloud's directory, unless it is there; its name and its root.
pub async fn unpack(settings: &NspawnSettings) -> io::Result<(String, PathBuf)> {
    let name = settings
        .image
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(".tar.zst"))
        .ok_or_else(|| {
            let text = format!("`{}` is no image: *.tar.zst", settings.image.display());
            io::Error::other(text)
        })?
        .to_owned();
    let whole = settings.directory.join(format!("image-{name}"));
    let root = whole.join("root");
    if root.is_dir() {
        return Ok((name, root));
    }
    // A directory of that name is a whole image, so it gets its name last.
    let partial = settings.directory.join(format!(".image-{name}"));
    disk::remove(&partial).await?;
    tokio::fs::create_dir_all(partial.join("root")).await?;
    let (from, to) = (
        settings.image.display().to_string(),
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
    Ok((name, root))
}
