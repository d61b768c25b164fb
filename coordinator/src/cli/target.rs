//! Where the API is and with which token: flags, then environment, then the file that `up` writes.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{CommandFailed, Common};

/// The file's name in the data directory.
pub const FILE_NAME: &str = "client.json";

/// An API and the right to use it. Its `Debug` does not show the token.
#[derive(Clone, Serialize, Deserialize)]
pub struct Target {
    /// Base URL, without a slash at its end.
    pub url: String,
    pub token: String,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Finds out what to talk to.
    pub fn resolve(common: &Common) -> Result<Self, CommandFailed> {
        // Clap has already looked at the environment.
        let mut target = match (&common.url, &common.token) {
            (Some(url), Some(token)) => Self {
                url: url.clone(),
                token: token.clone(),
            },
            (url, token) => {
                let kept = Self::read(&common.data_dir).map_err(|error| {
                    let path = common.data_dir.join(FILE_NAME);
                    CommandFailed::Usage(format!(
                        "no API given: start `tidepool up`, or set --url and --token (`{}`: {error})",
                        path.display()
                    ))
                })?;
                Self {
                    url: url.clone().unwrap_or(kept.url),
                    token: token.clone().unwrap_or(kept.token),
                }
            }
        };
        target.url.truncate(target.url.trim_end_matches('/').len());
        Ok(target)
    }

    /// Reads the file of a data directory.
    pub fn read(data_dir: &Path) -> io::Result<Self> {
        let text = fs::read(data_dir.join(FILE_NAME))?;
        serde_json::from_slice(&text).map_err(io::Error::from)
    }

    /// Writes the file of a data directory, readable by its owner only and never half-written.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let path = data_dir.join(FILE_NAME);
        let beside = data_dir.join(format!(".{FILE_NAME}.new"));
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(beside, path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_reads_back_and_is_its_owners_only() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target {
            url: "http://127.0.0.1:1".into(),
            token: "tp_x".into(),
        };
        target.write(dir.path()).unwrap();
        target.write(dir.path()).unwrap();
        assert_eq!(Target::read(dir.path()).unwrap().token, "tp_x");
        let mode = fs::metadata(dir.path().join(FILE_NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{target:?}").contains("tp_x"));
    }
}
