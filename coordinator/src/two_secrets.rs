//! A file with a secret that something beside coordinators is told: one a line, the newest first. The one before is
//! good as well, so that a new one may be told while everything runs.

use std::{io, path::Path};

use tidepool_certs::secret_file;

use crate::ambient::Chance;

/// Secrets that are good.
const KEPT: usize = 2;

/// Whether there is to be a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Only if there is none.
    Keep,
    New,
}

/// The secrets of a file, which is made if it is not there.
pub(crate) fn keep(path: &Path, rotation: Rotation, chance: &Chance) -> io::Result<Vec<String>> {
    let mut secrets = read(path)?;
    if rotation == Rotation::Keep && !secrets.is_empty() {
        return Ok(secrets);
    }
    secrets.insert(0, chance.secret());
    secrets.truncate(KEPT);
    secret_file::write(path, format!("{}\n", secrets.join("\n")).as_bytes())?;
    Ok(secrets)
}

/// The secrets of a file; none if there is no file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<String>> {
    let bytes = secret_file::read(path)?.unwrap_or_default();
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    let secrets = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(secrets.take(KEPT).map(str::to_owned).collect())
}
