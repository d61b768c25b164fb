//! The certificate that nginx shows to edges, with its key: one file, which nginx reads at each handshake.
//!
//! So a new one is used from the next connection on, without a reload, which would end the connections of
//! the old worker an hour later. Price: nginx opens the file twice, for certificate and key, and a handshake
//! during which the file is replaced, for microseconds every few days, finds them of two files and fails.
//!
//! The key has no other use than this door's, so that what nginx holds opens no link.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tidepool_certs::{
    door::{DoorLeaf, NotThisDoor},
    pem,
    request::AgentKey,
    secret_file::{self, Owner},
};
use tidepool_shared::id::ServerId;

/// A door's certificate and key.
pub struct Door {
    /// What the certificate says.
    pub leaf: DoorLeaf,
    pem: String,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("leaf", &self.leaf)
            .finish_non_exhaustive()
    }
}

/// Where it is kept, and for whom if not for ourselves.
#[derive(Debug, Clone)]
pub struct DoorFile {
    pub path: PathBuf,
    pub owner: Option<Owner>,
}

impl DoorFile {
    /// Takes over what agents before this one kept elsewhere, so that the door stays open until there is a link.
    pub fn adopt(&self, before: &Path) -> Result<(), DoorError> {
        if self.path.exists() {
            return Ok(());
        }
        let failed = |source| DoorError::File {
            path: before.to_owned(),
            source,
        };
        match secret_file::read(before).map_err(failed)? {
            Some(pem) => self.write(&pem),
            None => Ok(()),
        }
    }

    fn write(&self, pem: &[u8]) -> Result<(), DoorError> {
        match self.owner {
            Some(owner) => secret_file::write_for(&self.path, pem, owner),
            None => secret_file::write(&self.path, pem),
        }
        .map_err(|source| DoorError::File {
            path: self.path.clone(),
            source,
        })
    }
}

/// Why there is no door's certificate.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("use `{path}`")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no certificate was issued")]
    NoCertificate,
    #[error("read the door's certificate")]
    Certificate(#[from] NotThisDoor),
}

impl Door {
    /// Puts key and certificate together. The certificate must be for this server's door.
    pub fn new(
        server: ServerId,
        key: &AgentKey,
        chain: &[CertificateDer<'_>],
    ) -> Result<Self, DoorError> {
        let first = chain.first().ok_or(DoorError::NoCertificate)?;
        Ok(Self {
            leaf: DoorLeaf::read(first, server)?,
            pem: format!("{}{}", pem::of_chain(chain), key.to_pem()),
        })
    }

    /// Reads what was saved at `path`. A file that is not this server's door is as good as none: there will be
    /// another one with the next link.
    pub fn load(path: &Path, server: ServerId) -> Result<Option<Self>, DoorError> {
        let contents = secret_file::read(path).map_err(|source| DoorError::File {
            path: path.to_owned(),
            source,
        })?;
        let Some(contents) = contents else {
            return Ok(None);
        };
        let read = || -> Option<Self> {
            let first = CertificateDer::from_pem_slice(&contents).ok()?;
            let leaf = DoorLeaf::read(&first, server).ok()?;
            let pem = String::from_utf8(contents.clone()).ok()?;
            Some(Self { leaf, pem })
        };
        Ok(read())
    }

    /// Replaces what was there.
    pub fn save(&self, file: &DoorFile) -> Result<(), DoorError> {
        file.write(self.pem.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use tidepool_certs::{authority::Authority, request::CheckedRequest};
    use time::macros::datetime;

    use super::*;

    fn server(number: u8) -> ServerId {
        format!("srv_{number:026}").parse().unwrap()
    }

    fn door(dir: &Path) -> Door {
        let now = datetime!(2026-11-23 12:00 UTC);
        let authority = Authority::open_or_create(&dir.join("ca"), now).unwrap();
        let key = AgentKey::generate().unwrap();
        let request = CheckedRequest::check(&key.request().unwrap()).unwrap();
        let chain = authority.door(&request, server(1), now).unwrap();
        Door::new(server(1), &key, &chain).unwrap()
    }

    #[test]
    fn it_reads_back_for_its_own_server_and_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let door = door(dir.path());
        let path = dir.path().join("door.pem");
        assert!(Door::load(&path, server(1)).unwrap().is_none());
        let file = DoorFile { path, owner: None };
        door.save(&file).unwrap();
        let again = Door::load(&file.path, server(1)).unwrap().unwrap();
        assert_eq!((&again.leaf, &again.pem), (&door.leaf, &door.pem));
        assert!(Door::load(&file.path, server(2)).unwrap().is_none());
        let mode = fs::metadata(&file.path).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn what_an_agent_before_kept_elsewhere_is_taken_over_once() {
        let dir = tempfile::tempdir().unwrap();
        let (before, path) = (dir.path().join("before.pem"), dir.path().join("door.pem"));
        let file = DoorFile { path, owner: None };
        file.adopt(&before).unwrap();
        assert!(!file.path.exists());
        fs::write(&before, "old").unwrap();
        file.adopt(&before).unwrap();
        assert_eq!(fs::read_to_string(&file.path).unwrap(), "old");
        fs::write(&file.path, "new").unwrap();
        file.adopt(&before).unwrap();
        assert_eq!(fs::read_to_string(&file.path).unwrap(), "new");
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door.pem");
        fs::write(&path, "half").unwrap();
        assert!(Door::load(&path, server(1)).unwrap().is_none());
    }

    #[test]
    fn the_key_is_not_shown_by_debug() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!format!("{:?}", door(dir.path())).contains("PRIVATE"));
    }
}
