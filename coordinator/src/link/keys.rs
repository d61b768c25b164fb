//! Three keys of the QUIC endpoint that a restart must not change.
//!
//! With the same *reset key* and *connection-id key* a restarted coordinator can tell an agent at its next
//! packet that its connection is gone, instead of leaving it to an idle timeout; with the same *token
//! key* addresses that were proved stay proved. All three are random per process by default.

use std::{
    io,
    path::{Path, PathBuf},
};

use tidepool_certs::secret_file;

use crate::ambient::Chance;

/// The keys.
pub(super) struct Keys {
    pub(super) reset: [u8; KEY_LEN],
    pub(super) token: [u8; KEY_LEN],
    pub(super) connection_id: u64,
}

const KEY_LEN: usize = 32;
const FILE_LEN: usize = 2 * KEY_LEN + 8;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("use link key file `{path}`")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("link key file `{0}` is damaged: remove it to make new keys")]
    Damaged(PathBuf),
}

impl Keys {
    /// Reads the keys, or makes them if there are none.
    pub(super) fn open_or_create(path: &Path, chance: &Chance) -> Result<Self, KeysError> {
        let file = |source| KeysError::File {
            path: path.to_owned(),
            source,
        };
        if let Some(stored) = secret_file::read(path).map_err(file)? {
            return Self::parse(&stored).ok_or_else(|| KeysError::Damaged(path.to_owned()));
        }
        let mut fresh = [0; FILE_LEN];
        for byte in &mut fresh {
            *byte = u8::try_from(chance.below(256)).unwrap_or(0);
        }
        secret_file::write(path, &fresh).map_err(file)?;
        Self::parse(&fresh).ok_or_else(|| KeysError::Damaged(path.to_owned()))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != FILE_LEN {
            return None;
        }
        let (reset, tail) = bytes.split_first_chunk()?;
        let (token, id_key) = tail.split_first_chunk()?;
        Some(Self {
            reset: *reset,
            token: *token,
            connection_id: u64::from_be_bytes(id_key.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link-keys");
        let first = Keys::open_or_create(&path, &Chance::from_seed(1)).unwrap();
        let second = Keys::open_or_create(&path, &Chance::from_seed(2)).unwrap();
        assert_eq!(first.reset, second.reset);
        assert_eq!(first.token, second.token);
        assert_eq!(first.connection_id, second.connection_id);
        assert_ne!(first.reset, first.token);
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link-keys");
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(
            Keys::open_or_create(&path, &Chance::from_seed(1)),
            Err(KeysError::Damaged(_))
        ));
    }
}
