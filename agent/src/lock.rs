//! One agent a state directory: two of them would undo each other's work and fight over the link.
//!
//! The lock is the kernel's, so that it ends with the process however that ends. Its file says which
//! process holds it, by pid and start time: whoever started an agent and died before noting so much
//! finds it there again.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::runtime::own_identity;

/// The file in the state directory.
const NAME: &str = "agent.lock";

/// Held for the life of the value.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotLocked {
    #[error("another agent runs with this state directory and holds `{0}`")]
    Held(PathBuf),
    #[error("lock `{path}`")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock of a state directory, or says that it is taken. Does not wait.
    pub fn take(state_dir: &Path) -> Result<Self, NotLocked> {
        let path = state_dir.join(NAME);
        let failed = |source| NotLocked::File {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(NotLocked::Held(path)),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        sign(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Writes over in place: another file of that name would be another lock.
fn sign(file: &mut File) -> io::Result<()> {
    let (pid, start_ticks) = own_identity().ok_or(io::ErrorKind::NotFound)?;
    let mark = format!("{pid} {start_ticks}\n");
    file.rewind()?;
    file.write_all(mark.as_bytes())?;
    file.set_len(u64::try_from(mark.len()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_one_agent_and_the_file_says_which() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "4194303 18446744073709551615\nmore").unwrap();
        let held = Lock::take(dir.path()).unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(NotLocked::Held(_))));
        let (pid, start_ticks) = own_identity().unwrap();
        let said = std::fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert_eq!(said, format!("{pid} {start_ticks}\n"));
        drop(held);
        Lock::take(dir.path()).unwrap();
    }
}
