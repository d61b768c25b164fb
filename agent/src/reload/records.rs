//! What the agent keeps on disk about a gateway's configuration, outside the customer's reach.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidepool_shared::document::Digest;

use crate::{
    disk,
    openclaw::{self, Place},
};
use tidepool_certs::secret_file;

/// The files of one gateway.
#[derive(Debug)]
pub(super) struct Records {
    folder: PathBuf,
}

/// A configuration that was about to be written. It stays when the agent was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// SHA-256 of the bytes, in hexadecimal.
    pub digest: String,
}

impl Records {
    pub(super) fn new(place: &Place) -> Self {
        Self {
            folder: place.records.clone(),
        }
    }

    pub(super) fn prepare(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)
    }

    /// The configuration that we last made true: the base of the three-way merge.
    pub(super) fn applied(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.path("applied.json")).ok()?).ok()
    }

    /// The bytes that the gateway last ran with.
    pub(super) fn last_good(&self) -> Option<Vec<u8>> {
        fs::read(self.path("last-good.json")).ok()
    }

    pub(super) fn intent(&self) -> Option<Intent> {
        serde_json::from_slice(&fs::read(self.path("intent.json")).ok()?).ok()
    }

    /// Keeps what is on disk as the last good bytes, then notes what will be written over it.
    ///
    /// After an interrupted try the file may hold the very bytes that are bad, so that the last good
    /// ones of before are kept.
    pub(super) fn intend(&self, config: &Path, bytes: &[u8]) -> io::Result<()> {
        self.prepare()?;
        if self.intent().is_none()
            && let Some(current) = openclaw::file::read(config)?
        {
            secret_file::write(&self.path("last-good.json"), &current)?;
        }
        let digest = Digest::of(bytes).to_string();
        disk::write_json(&self.path("intent.json"), &Intent { digest })
    }

    /// The configuration is true: it becomes the base and the last good one.
    pub(super) fn commit(&self, wanted: &Value, bytes: &[u8]) -> io::Result<()> {
        self.prepare()?;
        secret_file::write(&self.path("last-good.json"), bytes)?;
        disk::write_json(&self.path("applied.json"), wanted)?;
        self.forget_intent()
    }

    pub(super) fn forget_intent(&self) -> io::Result<()> {
        match fs::remove_file(self.path("intent.json")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
