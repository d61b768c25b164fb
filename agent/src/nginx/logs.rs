//! nginx's log files, kept within bounds by renaming and asking nginx to open new ones.

use std::{fs, io, path::Path};

/// A larger file is put aside; one file put aside is kept of each.
pub const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;

/// What became of the log files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rotation {
    /// Files were renamed; nginx must open new ones.
    Reopen,
    Nothing,
}

pub(super) fn put_aside(prefix: &Path, limit: u64) -> io::Result<Rotation> {
    let mut rotation = Rotation::Nothing;
    for name in ["access.log", "error.log"] {
        let path = prefix.join(name);
        let size = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if size > limit {
            fs::rename(&path, prefix.join(format!("{name}.1")))?;
            rotation = Rotation::Reopen;
        }
    }
    Ok(rotation)
}
