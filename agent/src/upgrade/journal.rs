//! Where an upgrade is, on disk before it goes there.
//!
//! A journal that cannot be read is an error and never an empty one: to forget which version a state
//! belongs to is to start another one on it.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tidepool_certs::secret_file;

use crate::disk;

/// What is known of versions of OpenClaw on this server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Journal {
    /// The version that the state belongs to, once it is not the image's own any more.
    pub version: Option<String>,
    /// The number of the last order that is over.
    pub settled: u64,
    /// Why it was not carried out.
    pub failed: Option<String>,
    pub under_way: Option<UnderWay>,
    pub kept: Option<Kept>,
    pub discarded: Option<Discarded>,
}

/// An order that is being carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay {
    pub order: u64,
    pub to: String,
    pub stage: UpgradeStage,
    /// Times that the stage was begun.
    pub tries: u32,
    /// Why it goes back; nothing if to go back is what was ordered.
    #[serde(default)]
    pub why: Option<String>,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeStage {
    Saving,
    Trying,
    Restoring,
}

/// The state of before an upgrade that went well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub version: String,
    /// Seconds since 1970.
    pub until: i64,
}

/// The state that the one of before took the place of, with all that was written meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discarded {
    /// The order that ended so.
    pub order: u64,
    /// Seconds since 1970.
    pub until: i64,
}

/// The journal's file.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    journal: Journal,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableJournal {
    #[error("read the journal of upgrades `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the journal of upgrades `{path}` is damaged")]
    Damaged { path: PathBuf },
}

impl JournalFile {
    /// Reads the journal of a directory.
    pub fn open(directory: &Path) -> Result<Self, UnreadableJournal> {
        let path = directory.join("journal.json");
        let bytes = secret_file::read(&path).map_err(|source| UnreadableJournal::Read {
            path: path.clone(),
            source,
        })?;
        let journal = match bytes {
            None => Journal::default(),
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|_| UnreadableJournal::Damaged { path: path.clone() })?,
        };
        Ok(Self { path, journal })
    }

    /// A journal of which nothing is known. It is for who changes nothing.
    pub(crate) fn unknown(directory: &Path) -> Self {
        Self {
            path: directory.join("journal.json"),
            journal: Journal::default(),
        }
    }

    pub fn read(&self) -> &Journal {
        &self.journal
    }

    /// Changes the journal; when this returns the change is on disk.
    pub fn change(&mut self, change: impl FnOnce(&mut Journal)) -> io::Result<()> {
        let mut next = self.journal.clone();
        change(&mut next);
        disk::write_json(&self.path, &next)?;
        self.journal = next;
        Ok(())
    }
}

impl Journal {
    /// The version that is in charge of the state; `None` for the image's own.
    pub(crate) fn in_charge(&self) -> Option<&str> {
        match &self.under_way {
            Some(UnderWay {
                stage: UpgradeStage::Trying,
                to,
                ..
            }) => Some(to),
            Some(_) | None => self.version.as_deref(),
        }
    }

    /// Notes that an order is over.
    pub(crate) fn settle(&mut self, order: u64, failed: Option<String>) {
        self.settled = order;
        self.failed = failed;
        self.under_way = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_journal_is_an_error_and_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = JournalFile::open(dir.path()).unwrap();
        let version = Some("2026.9.6".to_owned());
        file.change(|journal| journal.version.clone_from(&version))
            .unwrap();
        let again = JournalFile::open(dir.path()).unwrap();
        assert_eq!(again.read().version, version);
        std::fs::write(dir.path().join("journal.json"), b"{").unwrap();
        JournalFile::open(dir.path()).unwrap_err();
    }
}
