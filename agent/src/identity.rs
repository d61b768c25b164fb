//! Who this server is: its key, its certificate, and the machine it was enrolled on.
//!
//! The key is born here and never leaves. Everything is one file, replaced whole, so that key and
//! certificate always belong together. The file is bound to a machine and to a server: a snapshot or a
//! disk that was copied to another machine must not go on as the first one, so a mismatch is an error
//! that ends the agent, and never a reason to enrol again.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tidepool_certs::{
    leaf::{Leaf, NotAnAgent},
    request::AgentKey,
    secret_file,
};
use tidepool_shared::id::ServerId;

/// A server's identity, enrolled.
pub struct Identity {
    pub server: ServerId,
    /// `/etc/machine-id` at enrolment.
    pub machine_id: String,
    pub key: AgentKey,
    /// Leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// What the leaf says.
    pub leaf: Leaf,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("server", &self.server)
            .field("serial", &self.leaf.serial)
            .finish_non_exhaustive()
    }
}

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("use identity file `{path}`")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("identity file `{0}` is damaged")]
    Damaged(PathBuf),
    #[error("identity belongs to another machine: this disk was copied")]
    AnotherMachine,
    #[error(
        "identity belongs to server `{held}`, but this is server `{expected}`: this disk was copied"
    )]
    AnotherServer { held: ServerId, expected: ServerId },
    #[error("no certificate was issued")]
    NoCertificate,
    #[error("read issued certificate")]
    Certificate(#[source] NotAnAgent),
}

/// The file's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    server: ServerId,
    machine_id: String,
    /// PKCS#8 PEM.
    key: String,
    /// DER in hexadecimal, leaf first.
    chain: Vec<String>,
}

impl Identity {
    /// Puts key and certificate together. The certificate must name `server`.
    pub fn new(
        server: ServerId,
        machine_id: String,
        key: AgentKey,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<Self, IdentityError> {
        let first = chain.first().ok_or(IdentityError::NoCertificate)?;
        let leaf = Leaf::read(first).map_err(IdentityError::Certificate)?;
        if leaf.server != server {
            return Err(IdentityError::AnotherServer {
                held: leaf.server,
                expected: server,
            });
        }
        Ok(Self {
            server,
            machine_id,
            key,
            chain,
            leaf,
        })
    }

    /// Reads the identity in `dir`, if this server was enrolled before. `server` is what user data says
    /// now, `machine_id` what the machine says now.
    pub fn load(
        dir: &Path,
        server: ServerId,
        machine_id: &str,
    ) -> Result<Option<Self>, IdentityError> {
        let path = file_in(dir);
        let contents = secret_file::read(&path).map_err(|source| IdentityError::File {
            path: path.clone(),
            source,
        })?;
        let Some(contents) = contents else {
            return Ok(None);
        };
        let damaged = || IdentityError::Damaged(path.clone());
        let stored: Stored = serde_json::from_slice(&contents).map_err(|_| damaged())?;
        if stored.machine_id != machine_id {
            return Err(IdentityError::AnotherMachine);
        }
        if stored.server != server {
            return Err(IdentityError::AnotherServer {
                held: stored.server,
                expected: server,
            });
        }
        let key = AgentKey::from_pem(&stored.key).map_err(|_| damaged())?;
        let chain = stored
            .chain
            .iter()
            .map(|certificate| from_hex(certificate).map(CertificateDer::from))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(damaged)?;
        Self::new(server, stored.machine_id, key, chain).map(Some)
    }

    /// Writes the identity to `dir`, replacing the one before.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        let path = file_in(dir);
        let stored = Stored {
            server: self.server,
            machine_id: self.machine_id.clone(),
            key: self.key.to_pem(),
            chain: self.chain.iter().map(|der| to_hex(der)).collect(),
        };
        let contents = serde_json::to_vec_pretty(&stored).expect("strings are JSON");
        secret_file::create_dir(dir)
            .and_then(|()| secret_file::write(&path, &contents))
            .map_err(|source| IdentityError::File { path, source })
    }
}

fn file_in(dir: &Path) -> PathBuf {
    dir.join("identity.json")
}

fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
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

    fn enrolled(dir: &Path) -> Identity {
        let now = datetime!(2026-11-23 12:00 UTC);
        let authority = Authority::open_or_create(&dir.join("ca"), now).unwrap();
        let key = AgentKey::generate().unwrap();
        let request = CheckedRequest::check(&key.request().unwrap()).unwrap();
        let life = tidepool_certs::authority::LEAF_LIFE;
        let chain = authority.issue(&request, server(1), life, now).unwrap();
        Identity::new(server(1), "machine-a".into(), key, chain).unwrap()
    }

    #[test]
    fn an_identity_reads_back_and_is_for_its_owner_only() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("identity");
        let identity = enrolled(temp.path());
        identity.save(&dir).unwrap();
        let again = Identity::load(&dir, server(1), "machine-a")
            .unwrap()
            .unwrap();
        assert_eq!(again.chain, identity.chain);
        assert_eq!(again.key.to_pem(), identity.key.to_pem());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&file_in(&dir))), (0o700, 0o600));
    }

    #[test]
    fn a_server_that_was_never_enrolled_has_none() {
        let temp = tempfile::tempdir().unwrap();
        assert!(
            Identity::load(temp.path(), server(1), "machine-a")
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_copy_on_another_machine_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        enrolled(temp.path()).save(temp.path()).unwrap();
        assert!(matches!(
            Identity::load(temp.path(), server(1), "machine-b"),
            Err(IdentityError::AnotherMachine)
        ));
    }

    #[test]
    fn a_copy_under_another_servers_user_data_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        enrolled(temp.path()).save(temp.path()).unwrap();
        assert!(matches!(
            Identity::load(temp.path(), server(2), "machine-a"),
            Err(IdentityError::AnotherServer { .. })
        ));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_a_new_enrolment() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(file_in(temp.path()), "{").unwrap();
        assert!(matches!(
            Identity::load(temp.path(), server(1), "machine-a"),
            Err(IdentityError::Damaged(_))
        ));
    }

    #[test]
    fn the_key_is_not_shown_by_debug() {
        let temp = tempfile::tempdir().unwrap();
        assert!(!format!("{:?}", enrolled(temp.path())).contains("PRIVATE"));
    }
}
