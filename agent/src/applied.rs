//! What was last applied to the gateway, on disk, so that a restart of the agent repeats nothing.
//!
//! Losing this file costs one superfluous application, which changes nothing; it is never wrong,
//! because it is written after the effect. What nginx serves is not in here: nginx itself is asked.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tidepool_shared::document::Generation;

use tidepool_certs::secret_file;

/// The gateway's side of what was done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Applied {
    /// The newest generation of which everything is done: its configuration and its restart.
    pub observed: Generation,
    /// The newest generation whose configuration the gateway has taken, or has refused for good.
    pub configured: Generation,
    /// The generation that was refused and rolled back, and the gateway's reason.
    pub rejected: Option<RejectedConfig>,
    /// How far the document's counter of wanted restarts is done. `None` until the first document:
    /// an instance may bring a count from an earlier server, and this gateway is fresh.
    pub restarts: Option<u64>,
    /// The gateway process whose first turn is done.
    pub warmed: Option<String>,
    /// Times the gateway was started since the agent's first start.
    pub gateway_starts: u64,
}

/// A configuration that the gateway would not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedConfig {
    pub generation: Generation,
    pub reason: String,
}

/// The file of [`Applied`].
#[derive(Debug)]
pub struct AppliedFile {
    path: PathBuf,
    state: Applied,
}

impl AppliedFile {
    /// Reads the file of `directory`. One that is missing or damaged counts as nothing applied.
    pub fn open(directory: &Path) -> Self {
        let path = directory.join("applied.json");
        let state = match secret_file::read(&path) {
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, "what was applied cannot be read: applying again");
                Applied::default()
            }),
            Ok(None) => Applied::default(),
            Err(error) => {
                tracing::warn!(%error, "what was applied cannot be read: applying again");
                Applied::default()
            }
        };
        Self { path, state }
    }

    pub fn state(&self) -> &Applied {
        &self.state
    }

    /// Changes the state and makes the change durable.
    pub fn change(&mut self, change: impl FnOnce(&mut Applied)) -> Result<(), io::Error> {
        let mut next = self.state.clone();
        change(&mut next);
        if next == self.state {
            return Ok(());
        }
        // The reason of a rejection may quote the customer's configuration.
        let bytes = serde_json::to_vec(&next).map_err(io::Error::other)?;
        secret_file::write(&self.path, &bytes)?;
        self.state = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_applied_is_known_after_a_restart_and_a_damaged_file_means_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = AppliedFile::open(dir.path());
        file.change(|applied| applied.restarts = Some(3)).unwrap();
        assert_eq!(AppliedFile::open(dir.path()).state().restarts, Some(3));
        std::fs::write(dir.path().join("applied.json"), b"{").unwrap();
        assert_eq!(AppliedFile::open(dir.path()).state(), &Applied::default());
    }
}
