//! That whoever was let in before must be cut off, noted on disk until it is done: an agent that dies in
//! between must not leave it undone.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tidepool_certs::secret_file;

/// The line of a configuration that says how often that was wanted.
const LINE: &str = "# Evictions: ";

/// The note.
pub(super) struct Eviction(PathBuf);

impl Eviction {
    pub(super) fn of(prefix: &Path) -> Self {
        Self(prefix.join("evict"))
    }

    pub(super) fn is_due(&self) -> bool {
        self.0.exists()
    }

    pub(super) fn note(&self) -> io::Result<()> {
        secret_file::write(&self.0, b"")
    }

    pub(super) fn done(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Whether somebody's access ends when one configuration takes the other's place. Where nobody was let in,
/// nobody is cut off.
pub(super) fn is_wanted(before: Option<&str>, after: &str) -> bool {
    let before = before.and_then(evictions);
    before.is_some() && before != evictions(after)
}

fn evictions(configuration: &str) -> Option<&str> {
    configuration
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(LINE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_number_or_none_at_all_evicts() {
        let (one, two) = ("a\n    # Evictions: 1. x\nb", "c\n    # Evictions: 2. x\nd");
        assert!(is_wanted(Some(one), two) && is_wanted(Some(one), "nobody"));
        assert!(!is_wanted(Some(one), one) && !is_wanted(Some(one), "e\n# Evictions: 1. x"));
        assert!(!is_wanted(Some("nobody"), one) && !is_wanted(None, one));
    }
}
