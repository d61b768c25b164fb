//! Files that hold keys: readable by their owner only, and never half written.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::Path,
};

/// Makes a directory that only its owner may enter. One that exists is narrowed to that.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// User and group id of whom a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub user: u32,
    pub group: u32,
}

/// Replaces `path` by `contents` so that a reader, or a crash, sees the old file or the new one whole:
/// written beside, synced, renamed, and the directory synced.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    replace(path, contents, None)
}

/// The same, and the file is another user's, which takes root.
pub fn write_for(path: &Path, contents: &[u8], owner: Owner) -> io::Result<()> {
    replace(path, contents, Some(owner))
}

fn replace(path: &Path, contents: &[u8], owner: Option<Owner>) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let mut beside_name = name.to_owned();
    beside_name.push(".new");
    let beside = dir.join(beside_name);
    // A leftover of a crash may have other permissions, which opening it would keep.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    if let Some(owner) = owner {
        fchown(&file, Some(owner.user), Some(owner.group))?;
    }
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(dir)?.sync_all()
}

/// Reads a file if it is there.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_may_read_what_is_written() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("keys");
        create_dir(&dir).unwrap();
        let path = dir.join("key");
        write(&path, b"a").unwrap();
        write(&path, b"b").unwrap();
        assert_eq!((mode(&dir), mode(&path)), (0o700, 0o600));
        assert_eq!(read(&path).unwrap().unwrap(), b"b");
    }

    #[test]
    fn a_readable_leftover_of_a_crash_does_not_widen_the_new_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("key");
        let leftover = temp.path().join("key.new");
        fs::write(&leftover, "half").unwrap();
        fs::set_permissions(&leftover, fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, b"whole").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(!leftover.exists());
    }

    #[test]
    fn a_file_that_is_not_there_is_none() {
        let temp = tempfile::tempdir().unwrap();
        assert!(read(&temp.path().join("key")).unwrap().is_none());
    }
}
