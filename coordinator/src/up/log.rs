//! The coordinator's log: a file that is begun anew whenever it is full, keeping one old one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// A log is full at so many bytes.
pub(super) const FULL: u64 = 32 * 1024 * 1024;

/// Opens a log for appending, for its owner only.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Puts a full log aside, in place of the one that was put aside before.
pub(super) fn put_aside(path: &Path) -> io::Result<()> {
    fs::rename(path, path.with_extension("log.old"))
}

/// A log that is put aside when it is full, also while the program runs.
#[derive(Debug)]
pub(super) struct RollingLog {
    path: PathBuf,
    file: File,
    written: u64,
    full: u64,
}

impl RollingLog {
    pub(super) fn open(path: PathBuf, full: u64) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self {
            written: file.metadata()?.len(),
            path,
            file,
            full,
        })
    }

    fn roll(&mut self) -> io::Result<()> {
        put_aside(&self.path)?;
        self.file = open(&self.path)?;
        Ok(())
    }
}

impl Write for RollingLog {
    /// Whole lines come in one piece each, so none is torn between two files.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.written > 0 && self.written.saturating_add(length) > self.full {
            // A log that cannot be put aside is written on; it is tried again when as much more is there.
            self.written = 0;
            self.roll().or_else(|error| {
                writeln!(
                    self.file,
                    "{{\"level\":\"ERROR\",\"message\":\"put the log aside: {error}\"}}"
                )
            })?;
        }
        let taken = self.file.write(line)?;
        let length = u64::try_from(taken).unwrap_or(u64::MAX);
        self.written = self.written.saturating_add(length);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_put_aside_while_it_is_written() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("coordinator.log");
        fs::write(&path, "before\n")?;
        let mut log = RollingLog::open(path.clone(), 20)?;
        let old = path.with_extension("log.old");
        log.write_all(b"one\n")?;
        assert!(!old.exists());
        log.write_all(b"second line\n")?;
        assert_eq!(fs::read_to_string(&old)?, "before\none\n");
        assert_eq!(fs::read_to_string(&path)?, "second line\n");
        log.write_all(b"third line\n")?;
        assert_eq!(fs::read_to_string(&old)?, "second line\n");
        assert_eq!(fs::read_to_string(&path)?, "third line\n");
        Ok(())
    }

    #[test]
    fn a_log_that_cannot_be_put_aside_is_written_on() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("coordinator.log");
        fs::create_dir(path.with_extension("log.old"))?;
        let mut log = RollingLog::open(path.clone(), 20)?;
        for line in ["a first line\n", "a second line\n"] {
            log.write_all(line.as_bytes())?;
        }
        let text = fs::read_to_string(&path)?;
        assert!(
            text.starts_with("a first line\n") && text.ends_with("a second line\n"),
            "{text}"
        );
        Ok(())
    }
}
