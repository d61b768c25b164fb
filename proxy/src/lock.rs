//! One proxy a lock file, which says who it is.
//!
//! A proxy outlives the coordinator that started it, so that no stream is cut, and holds the port that
//! the next one needs. Whoever started it may have died before noting it: so it notes itself, by pid
//! and start time, in a file that the kernel keeps locked exactly as long as it lives.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Held for the life of the value.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotLocked {
    #[error("another proxy holds `{0}`")]
    Held(PathBuf),
    #[error("lock `{path}`")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock, or says that it is taken. Does not wait.
    pub fn take(path: &Path) -> Result<Self, NotLocked> {
        let failed = |source| NotLocked::File {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(NotLocked::Held(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        sign(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Writes over in place: another file of that name would be another lock.
fn sign(file: &mut File) -> io::Result<()> {
    let mark = format!("{} {}\n", std::process::id(), start_ticks()?);
    file.rewind()?;
    file.write_all(mark.as_bytes())?;
    file.set_len(u64::try_from(mark.len()).unwrap_or(u64::MAX))
}

/// Field 22 of `/proc/self/stat`; the name in field 2 may hold anything.
fn start_ticks() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    stat.rsplit_once(") ")
        .and_then(|(_, after_name)| after_name.split(' ').nth(19)?.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_has_one_proxy_and_says_which() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.lock");
        fs::write(&path, "4194303 18446744073709551615\nmore").unwrap();
        let held = Lock::take(&path).unwrap();
        assert!(matches!(Lock::take(&path), Err(NotLocked::Held(_))));
        let said = fs::read_to_string(&path).unwrap();
        assert_eq!(
            said,
            format!("{} {}\n", std::process::id(), start_ticks().unwrap())
        );
        drop(held);
        Lock::take(&path).unwrap();
    }
}
