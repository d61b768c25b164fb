//! What the gateway printed: one file that survives the agent, bounded in size.
//!
//! The gateway holds the file open for its whole life, so a full one cannot be renamed away: its
//! end is copied to `.1` and the file is cut to nothing. The gateway appends, so it goes on at the
//! start. A line that is printed between copy and cut is lost; that is the price. In a container the
//! customer can write to it too, so that no more is copied than is kept.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// The size at which the log is cut.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// The most that one look at the log reads.
const MAX_READ: u64 = 256 * 1024;

/// The gateway's log.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
}

/// A place in the log, from which new lines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since(u64);

impl Log {
    /// The log at this path, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// A handle for the gateway to append to.
    pub(crate) fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)
    }

    /// The end of the log as it is now.
    pub fn end(&self) -> Since {
        Since(fs::metadata(&self.path).map_or(0, |meta| meta.len()))
    }

    /// The complete lines since `since`, which moves behind them. After a cut it starts afresh.
    pub fn read(&self, since: &mut Since) -> io::Result<Vec<String>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(unreadable) => return Err(unreadable),
        };
        if file.metadata()?.len() < since.0 {
            *since = Since(0);
        }
        file.seek(SeekFrom::Start(since.0))?;
        let mut bytes = Vec::new();
        file.take(MAX_READ).read_to_end(&mut bytes)?;
        let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            // One line longer than a whole read is not ours to wait for.
            if u64::try_from(bytes.len()).is_ok_and(|length| length == MAX_READ) {
                since.0 += MAX_READ;
            }
            return Ok(Vec::new());
        };
        bytes.truncate(last);
        since.0 += u64::try_from(last).unwrap_or(MAX_READ) + 1;
        Ok(lines(&bytes))
    }

    /// The last lines, oldest first.
    pub fn tail(&self, count: usize) -> io::Result<Vec<String>> {
        let from = self.end().0.saturating_sub(MAX_READ);
        let mut since = Since(from);
        let mut lines = self.read(&mut since)?;
        if from > 0 && !lines.is_empty() {
            // The first one was cut through.
            lines.remove(0);
        }
        Ok(lines.split_off(lines.len().saturating_sub(count)))
    }

    /// Cuts the log when it is too large. To be called now and then; costs one `stat` otherwise.
    pub fn cut_if_large(&self) -> io::Result<()> {
        if self.end().0 <= MAX_BYTES {
            return Ok(());
        }
        let mut file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        let from = file.metadata()?.len().saturating_sub(MAX_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut kept = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(self.kept())?;
        io::copy(&mut (&mut file).take(MAX_BYTES), &mut kept)?;
        file.set_len(0)
    }

    /// Where the part before the last cut lies.
    fn kept(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".1");
        name.into()
    }

    /// Where the log lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn lines(bytes: &[u8]) -> Vec<String> {
    bytes
        .split(|byte| *byte == b'\n')
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn log() -> (tempfile::TempDir, Log, File) {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(folder.path().join("gateway.log"));
        let file = log.open().unwrap();
        (folder, log, file)
    }

    #[test]
    fn only_complete_new_lines_are_read() {
        let (_folder, log, mut file) = log();
        file.write_all(b"old\n").unwrap();
        let mut since = log.end();
        file.write_all(b"one\ntwo\nhal").unwrap();
        assert_eq!(log.read(&mut since).unwrap(), ["one", "two"]);
        file.write_all(b"f\n").unwrap();
        assert_eq!(log.read(&mut since).unwrap(), ["half"]);
        assert!(log.read(&mut since).unwrap().is_empty());
    }

    #[test]
    fn a_cut_log_is_read_from_its_new_start() {
        let (_folder, log, mut file) = log();
        let block = vec![b'x'; 1024];
        for _ in 0..=(MAX_BYTES / 1024) {
            file.write_all(&block).unwrap();
        }
        let mut since = log.end();
        log.cut_if_large().unwrap();
        file.write_all(b"new\n").unwrap();
        assert_eq!(log.read(&mut since).unwrap(), ["new"]);
        assert_eq!(fs::metadata(log.kept()).unwrap().len(), MAX_BYTES);
    }

    #[test]
    fn the_tail_is_the_last_lines_oldest_first() {
        let (_folder, log, mut file) = log();
        file.write_all(b"a\nb\nc\n").unwrap();
        assert_eq!(log.tail(2).unwrap(), ["b", "c"]);
        assert_eq!(log.tail(9).unwrap(), ["a", "b", "c"]);
    }
}
