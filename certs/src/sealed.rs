//! Secrets at rest in a database: sealed by a key that is not in it.
//!
//! A sealed secret opens only for the purpose it was sealed for, such as `provider/openai`: a row that
//! was copied onto another does not open there. What a backup of the database alone gives away is how
//! long each secret is. Layout: a version (1), the first four bytes of the master key's SHA-256, a random
//! nonce (12), AES-256-GCM's ciphertext and tag; version, key id and purpose are authenticated with it.

use std::{
    fmt::{self, Write as _},
    io,
    path::Path,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest, rand,
};

use crate::secret_file;

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 4;
/// Version, key id, nonce.
const HEAD_BYTES: usize = 1 + ID_BYTES + NONCE_LEN;
/// Master keys in a file; more are a file of something else.
const KEYS_MAX: usize = 16;

/// The master keys of a deployment, newest first: the newest seals, all open.
pub struct MasterKeys(Vec<MasterKey>);

struct MasterKey {
    id: [u8; ID_BYTES],
    bytes: [u8; KEY_BYTES],
}

/// Why there are no master keys.
#[derive(Debug, thiserror::Error)]
pub enum NoKeys {
    #[error("read the file")]
    Read(#[source] io::Error),
    #[error("write the file")]
    Write(#[source] io::Error),
    #[error("there is no such file")]
    Missing,
    #[error("it is not a file of 1 to {KEYS_MAX} lines of 64 hexadecimal digits")]
    Damaged,
    #[error("there are {KEYS_MAX} keys already; forget the old ones first")]
    Full,
    #[error("the machine has no random bytes")]
    Random,
}

/// Why a sealed secret does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    #[error("it is no sealed secret")]
    Layout,
    #[error("it was sealed with a master key that is not in the file")]
    UnknownKey,
    #[error("it was altered, or sealed for another purpose")]
    Refused,
}

/// A secret in memory. It does not print.
pub struct Secret(String);

impl MasterKeys {
    /// Reads the file, or makes it with one new key.
    pub fn read_or_create(path: &Path) -> Result<Self, NoKeys> {
        match Self::read(path) {
            Err(NoKeys::Missing) => {
                let keys = Self(vec![MasterKey::random()?]);
                keys.write(path)?;
                Ok(keys)
            }
            other => other,
        }
    }

    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, NoKeys> {
        let bytes = secret_file::read(path).map_err(NoKeys::Read)?;
        let bytes = bytes.ok_or(NoKeys::Missing)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| NoKeys::Damaged)?;
        let keys: Option<Vec<_>> = text.lines().map(MasterKey::parse).collect();
        keys.filter(|keys| (1..=KEYS_MAX).contains(&keys.len()))
            .map(Self)
            .ok_or(NoKeys::Damaged)
    }

    /// Puts a new key in front of those in the file: it seals from now on, and all of them open.
    pub fn add(path: &Path) -> Result<Self, NoKeys> {
        let mut keys = Self::read(path)?;
        if keys.0.len() == KEYS_MAX {
            return Err(NoKeys::Full);
        }
        keys.0.insert(0, MasterKey::random()?);
        keys.write(path)?;
        Ok(keys)
    }

    /// Forgets all but the newest: what they sealed never opens again.
    pub fn forget_old(mut self, path: &Path) -> Result<Self, NoKeys> {
        self.0.truncate(1);
        self.write(path)?;
        Ok(self)
    }

    /// Whether the newest key has sealed this.
    pub fn is_newest(&self, sealed: &[u8]) -> bool {
        self.0
            .first()
            .is_some_and(|key| sealed.get(1..=ID_BYTES) == Some(key.id.as_slice()))
    }

    fn write(&self, path: &Path) -> Result<(), NoKeys> {
        secret_file::write(path, self.text().as_bytes()).map_err(NoKeys::Write)
    }

    /// Seals for one purpose.
    ///
    /// # Panics
    /// Never: the newest key is a key, and so is its length.
    pub fn seal(&self, secret: &str, purpose: &str) -> Vec<u8> {
        let key = &self.0[0];
        let mut sealed = secret.as_bytes().to_vec();
        let nonce = key
            .cipher()
            .seal_in_place_append_tag(Aad::from(key.associated(purpose)), &mut sealed)
            .expect("a secret is shorter than AES-GCM's 64 GiB");
        let mut whole = vec![VERSION];
        whole.extend_from_slice(&key.id);
        whole.extend_from_slice(nonce.as_ref());
        whole.append(&mut sealed);
        whole
    }

    /// Opens what was sealed for this purpose.
    pub fn open(&self, sealed: &[u8], purpose: &str) -> Result<Secret, NotOpened> {
        let (head, body) = sealed
            .split_at_checked(HEAD_BYTES)
            .ok_or(NotOpened::Layout)?;
        let (version, head) = head.split_first().ok_or(NotOpened::Layout)?;
        let (id, nonce) = head.split_at(ID_BYTES);
        if *version != VERSION {
            return Err(NotOpened::Layout);
        }
        let key = self
            .0
            .iter()
            .find(|key| key.id == id)
            .ok_or(NotOpened::UnknownKey)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotOpened::Layout)?;
        let mut body = body.to_vec();
        let opened = key
            .cipher()
            .open_in_place(nonce, Aad::from(key.associated(purpose)), &mut body)
            .map_err(|_| NotOpened::Refused)?;
        String::from_utf8(opened.to_vec())
            .map(Secret)
            .map_err(|_| NotOpened::Layout)
    }

    fn text(&self) -> String {
        self.0.iter().map(MasterKey::line).collect()
    }
}

impl MasterKey {
    fn random() -> Result<Self, NoKeys> {
        let mut bytes = [0; KEY_BYTES];
        rand::fill(&mut bytes).map_err(|_| NoKeys::Random)?;
        Ok(Self::of(bytes))
    }

    fn of(bytes: [u8; KEY_BYTES]) -> Self {
        let mut id = [0; ID_BYTES];
        let hash = digest::digest(&digest::SHA256, &bytes);
        id.copy_from_slice(&hash.as_ref()[..ID_BYTES]);
        Self { id, bytes }
    }

    fn parse(line: &str) -> Option<Self> {
        let mut bytes = [0; KEY_BYTES];
        if line.len() != 2 * KEY_BYTES || !line.is_ascii() {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(line.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self::of(bytes))
    }

    fn line(&self) -> String {
        let mut line = String::with_capacity(2 * KEY_BYTES + 1);
        for byte in self.bytes {
            write!(line, "{byte:02x}").expect("writing to a string cannot fail");
        }
        line.push('\n');
        line
    }

    fn cipher(&self) -> RandomizedNonceKey {
        RandomizedNonceKey::new(&AES_256_GCM, &self.bytes).expect("a key of 32 bytes")
    }

    fn associated(&self, purpose: &str) -> Vec<u8> {
        let mut associated = vec![VERSION];
        associated.extend_from_slice(&self.id);
        associated.extend_from_slice(purpose.as_bytes());
        associated
    }
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKeys")
            .field("keys", &self.0.len())
            .finish_non_exhaustive()
    }
}

impl Secret {
    /// The secret itself; for a header, never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> MasterKeys {
        MasterKeys(
            bytes
                .iter()
                .map(|byte| MasterKey::of([*byte; KEY_BYTES]))
                .collect(),
        )
    }

    #[test]
    fn a_secret_opens_for_its_purpose_only() {
        let keys = keys(&[1]);
        let sealed = keys.seal("sk-abc", "provider/openai");
        assert_eq!(
            keys.open(&sealed, "provider/openai").unwrap().expose(),
            "sk-abc"
        );
        assert_eq!(
            keys.open(&sealed, "provider/xai").unwrap_err(),
            NotOpened::Refused
        );
        assert_ne!(
            sealed,
            keys.seal("sk-abc", "provider/openai"),
            "no nonce is used twice"
        );
        assert!(!sealed.windows(6).any(|window| window == b"sk-abc"));
    }

    #[test]
    fn a_newer_key_seals_and_the_older_one_still_opens() {
        let sealed = keys(&[1]).seal("old", "p");
        let rotated = keys(&[2, 1]);
        assert_eq!(rotated.open(&sealed, "p").unwrap().expose(), "old");
        assert_eq!(
            keys(&[2]).open(&sealed, "p").unwrap_err(),
            NotOpened::UnknownKey
        );
        assert!(keys(&[2]).open(&rotated.seal("new", "p"), "p").is_ok());
    }

    #[test]
    fn an_altered_byte_anywhere_is_refused() {
        let keys = keys(&[1]);
        let sealed = keys.seal("secret", "p");
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(keys.open(&altered, "p").is_err(), "byte {at}");
            assert!(keys.open(&sealed[..at], "p").is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_file_is_made_once_and_a_damaged_one_is_not_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("master.keys");
        assert!(matches!(MasterKeys::read(&path), Err(NoKeys::Missing)));
        let sealed = MasterKeys::read_or_create(&path).unwrap().seal("x", "p");
        assert!(
            MasterKeys::read_or_create(&path)
                .unwrap()
                .open(&sealed, "p")
                .is_ok()
        );
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(
            MasterKeys::read_or_create(&path),
            Err(NoKeys::Damaged)
        ));
    }

    #[test]
    fn a_key_is_added_in_front_and_old_ones_are_forgotten() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("master.keys");
        assert!(matches!(MasterKeys::add(&path), Err(NoKeys::Missing)));
        let old = MasterKeys::read_or_create(&path).unwrap().seal("x", "p");
        let keys = MasterKeys::add(&path).unwrap();
        let new = keys.seal("x", "p");
        assert!(keys.is_newest(&new) && !keys.is_newest(&old) && !keys.is_newest(b""));
        let read = MasterKeys::read(&path).unwrap();
        assert!(read.open(&old, "p").is_ok() && read.open(&new, "p").is_ok());
        read.forget_old(&path).unwrap();
        let read = MasterKeys::read(&path).unwrap();
        assert_eq!(read.open(&old, "p").unwrap_err(), NotOpened::UnknownKey);
        assert!(read.open(&new, "p").is_ok());
        while MasterKeys::add(&path).is_ok() {}
        assert!(matches!(MasterKeys::add(&path), Err(NoKeys::Full)));
    }

    #[test]
    fn neither_keys_nor_secrets_print() {
        let keys = keys(&[0xab]);
        let secret = keys.open(&keys.seal("hush", "p"), "p").unwrap();
        let printed = format!("{keys:?} {secret:?}");
        assert!(
            !printed.contains("ab") && !printed.contains("hush"),
            "{printed}"
        );
    }
}
