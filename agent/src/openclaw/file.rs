//! Files in the gateway's state directory, which is the customer's: what lies there may be anything.
//!
//! A gateway in a container is another user than the agent, who is root. A link out of the directory
//! would make the agent read or write what the customer may not, and a pipe would hold it up for ever.
//! The directory itself cannot be replaced from within the container: it is where it is mounted.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, lchown},
    path::Path,
    time::SystemTime,
};

use nix::fcntl::OFlag;
use tidepool_certs::secret_file;

use super::Place;

/// The largest file that is read. A customer's configuration has at most 256 KiB, and a gateway adds to it.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Reads a file if it is there and is a plain one.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(unreadable) => return Err(unreadable),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a plain file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_BYTES) {
        Ok(Some(bytes))
    } else {
        Err(io::ErrorKind::FileTooLarge.into())
    }
}

/// When what lies there was last written; a link is not followed.
pub(crate) fn modified(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).ok()?.modified().ok()
}

/// Replaces a file of the gateway's by one that it may read.
pub(crate) fn write(place: &Place, path: &Path, contents: &[u8]) -> io::Result<()> {
    match &place.inside {
        Some(inside) => secret_file::write_for(path, contents, inside.owner),
        None => secret_file::write(path, contents),
    }
}

/// Makes the state directory, for whom the gateway runs as.
pub(crate) fn create_state_dir(place: &Place) -> io::Result<()> {
    let directory = place.state_dir();
    secret_file::create_dir(&directory)?;
    match &place.inside {
        Some(inside) => lchown(
            &directory,
            Some(inside.owner.user),
            Some(inside.owner.group),
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn a_link_and_a_pipe_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("plain"), "mine").unwrap();
        symlink("/etc/passwd", at("link")).unwrap();
        mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        assert_eq!(read(&at("plain")).unwrap().unwrap(), b"mine");
        assert!(read(&at("absent")).unwrap().is_none());
        assert!(read(&at("link")).is_err());
        assert!(read(&at("pipe")).is_err());
    }

    #[test]
    fn a_file_without_end_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let file = fs::File::create(&path).unwrap();
        file.set_len(MAX_BYTES).unwrap();
        assert!(read(&path).unwrap().is_some());
        file.set_len(MAX_BYTES + 1).unwrap();
        assert!(read(&path).is_err());
    }
}
