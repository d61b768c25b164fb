//! What opens the keys in the database.

use std::{path::PathBuf, sync::Arc};

use tidepool_certs::sealed::{MasterKeys, Secret};
use tidepool_shared::sealed_place::SealedPlace;

/// A provider's key.
pub type Key = Arc<Secret>;

/// The master keys' file, if there is one. Without it no key opens.
#[derive(Debug, Clone, Default)]
pub struct Keyring(Option<PathBuf>);

/// The master keys as they are now.
#[derive(Debug, Default)]
pub(crate) struct Opener(Option<MasterKeys>);

impl Keyring {
    /// The file that the coordinator keeps; it may not be there yet.
    pub fn at(path: PathBuf) -> Self {
        Self(Some(path))
    }

    /// Reads the file: it changes when keys are rotated.
    pub(crate) fn read(&self) -> Opener {
        let Some(path) = &self.0 else {
            return Opener::default();
        };
        match MasterKeys::read(path) {
            Ok(keys) => Opener(Some(keys)),
            Err(error) => {
                tracing::debug!(
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "no master keys"
                );
                Opener::default()
            }
        }
    }
}

impl Opener {
    pub(crate) fn open(&self, sealed: &[u8], place: &SealedPlace) -> Option<Key> {
        let Some(keys) = &self.0 else {
            tracing::error!(%place, "there is a key, and no master key that opens it");
            return None;
        };
        let opened = keys.open(sealed, &place.to_string());
        if let Err(error) = &opened {
            tracing::error!(%place, %error, "a key in the database does not open");
        }
        opened.ok().map(Arc::new)
    }
}
