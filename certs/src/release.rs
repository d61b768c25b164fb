//! Release keys: who may put code on servers. Ed25519.
//!
//! The secret half stays with the operator and is never on a coordinator; the public half is baked into
//! images. What is signed is a statement's text behind a line that says what it is, so that a signature
//! made for anything else never counts here.

use std::{fmt, io, path::Path};

use aws_lc_rs::{
    rand,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use tidepool_shared::artefact::{ReleaseKeyId, Sha256, Signature, SignedArtefact, Statement};

use crate::secret_file;

const PURPOSE: &str = "tidepool artefact 1\n";

/// A release key's secret half. It does not print.
pub struct ReleaseKey(Ed25519KeyPair);

impl fmt::Debug for ReleaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReleaseKey({})", self.id())
    }
}

/// Why there is no release key.
#[derive(Debug, thiserror::Error)]
pub enum NoReleaseKey {
    #[error("read the file")]
    Read(#[source] io::Error),
    #[error("write the file")]
    Write(#[source] io::Error),
    #[error("there is no such file")]
    Missing,
    #[error("there is a file already, and a key that is lost signs nothing more")]
    Exists,
    #[error("it is not a file of 64 hexadecimal digits")]
    Damaged,
    #[error("the machine has no random bytes")]
    Random,
}

/// Why an artefact is not believed.
#[derive(Debug, thiserror::Error)]
pub enum NotTrusted {
    #[error("no release key is known here, so no artefact is taken")]
    NoKeys,
    #[error("it is signed by {0}, which is no release key of this image")]
    UnknownKey(ReleaseKeyId),
    #[error("its signature is not of its statement")]
    Signature,
    #[error("its statement is not readable")]
    Statement(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("it has {size} bytes, over the ceiling of {ceiling}")]
    TooLarge { size: u64, ceiling: u64 },
}

impl ReleaseKey {
    /// A new key in a new file, readable by its owner only.
    pub fn create(path: &Path) -> Result<Self, NoReleaseKey> {
        if path.symlink_metadata().is_ok() {
            return Err(NoReleaseKey::Exists);
        }
        let mut seed = [0; 32];
        rand::fill(&mut seed).map_err(|_| NoReleaseKey::Random)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| NoReleaseKey::Random)?;
        let text = format!("{}\n", Sha256(seed));
        secret_file::write(path, text.as_bytes()).map_err(NoReleaseKey::Write)?;
        Ok(Self(pair))
    }

    /// Reads a key's file.
    pub fn read(path: &Path) -> Result<Self, NoReleaseKey> {
        let bytes = secret_file::read(path).map_err(NoReleaseKey::Read)?;
        let bytes = bytes.ok_or(NoReleaseKey::Missing)?;
        // The digits of a digest are those of a seed.
        let seed: Sha256 = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.trim_end().parse().ok())
            .ok_or(NoReleaseKey::Damaged)?;
        Ed25519KeyPair::from_seed_unchecked(&seed.0)
            .map(Self)
            .map_err(|_| NoReleaseKey::Damaged)
    }

    /// The public half.
    pub fn id(&self) -> ReleaseKeyId {
        let public = self.0.public_key().as_ref();
        ReleaseKeyId(public.try_into().expect("an Ed25519 key has 32 bytes"))
    }

    /// Signs a statement.
    pub fn sign(&self, statement: &Statement) -> SignedArtefact {
        let statement = serde_json::to_string(statement).expect("a statement has string keys only");
        let signature = self.0.sign(&signed_bytes(&statement));
        SignedArtefact {
            statement,
            key: self.id(),
            signature: Signature(
                signature
                    .as_ref()
                    .try_into()
                    .expect("an Ed25519 signature has 64 bytes"),
            ),
        }
    }
}

/// The statement, if one of `keys` has signed it.
pub fn verify(signed: &SignedArtefact, keys: &[ReleaseKeyId]) -> Result<Statement, NotTrusted> {
    if keys.is_empty() {
        return Err(NotTrusted::NoKeys);
    }
    if !keys.contains(&signed.key) {
        return Err(NotTrusted::UnknownKey(signed.key));
    }
    consistent(signed)
}

/// The statement, if it was signed by the key that is named beside it, whoever's that is. For who only
/// carries an artefact.
pub fn consistent(signed: &SignedArtefact) -> Result<Statement, NotTrusted> {
    UnparsedPublicKey::new(&ED25519, signed.key.0)
        .verify(&signed_bytes(&signed.statement), &signed.signature.0)
        .map_err(|_| NotTrusted::Signature)?;
    let statement: Statement = serde_json::from_str(&signed.statement)
        .map_err(|error| NotTrusted::Statement(error.into()))?;
    let (size, ceiling) = (statement.size, statement.kind.max_size());
    if size > ceiling {
        return Err(NotTrusted::TooLarge { size, ceiling });
    }
    Ok(statement)
}

fn signed_bytes(statement: &str) -> Vec<u8> {
    [PURPOSE, statement].concat().into_bytes()
}

#[cfg(test)]
mod tests {
    use tidepool_shared::artefact::Kind;

    use super::*;

    fn statement() -> Statement {
        Statement {
            kind: Kind::Agent,
            version: "0.2.0".parse().unwrap(),
            sha256: Sha256([7; 32]),
            size: 12,
            replaces_up_to: None,
        }
    }

    fn key() -> (tempfile::TempDir, ReleaseKey) {
        let dir = tempfile::tempdir().unwrap();
        let key = ReleaseKey::create(&dir.path().join("key")).unwrap();
        (dir, key)
    }

    #[test]
    fn what_a_known_key_signed_is_believed() {
        let (dir, key) = key();
        let again = ReleaseKey::read(&dir.path().join("key")).unwrap();
        assert_eq!(again.id(), key.id());
        let signed = again.sign(&statement());
        assert_eq!(verify(&signed, &[key.id()]).unwrap(), statement());
    }

    #[test]
    fn a_key_is_never_written_over() {
        let (dir, key) = key();
        let again = ReleaseKey::create(&dir.path().join("key"));
        assert!(matches!(again, Err(NoReleaseKey::Exists)));
        let kept = ReleaseKey::read(&dir.path().join("key")).unwrap();
        assert_eq!(kept.id(), key.id());
    }

    #[test]
    fn nobody_elses_signature_and_no_changed_word_is_believed() {
        let ((_one, key), (_other, stranger)) = (key(), key());
        let signed = key.sign(&statement());
        assert!(matches!(verify(&signed, &[]), Err(NotTrusted::NoKeys)));
        assert!(matches!(
            verify(&stranger.sign(&statement()), &[key.id()]),
            Err(NotTrusted::UnknownKey(_))
        ));
        let altered = SignedArtefact {
            statement: signed.statement.replace("0.2.0", "0.3.0"),
            ..signed.clone()
        };
        assert!(matches!(
            verify(&altered, &[key.id()]),
            Err(NotTrusted::Signature)
        ));
        let claimed = SignedArtefact {
            key: key.id(),
            ..stranger.sign(&statement())
        };
        assert!(matches!(
            verify(&claimed, &[key.id()]),
            Err(NotTrusted::Signature)
        ));
    }

    #[test]
    fn a_signed_statement_over_the_ceiling_is_refused() {
        let (_dir, key) = key();
        let signed = key.sign(&Statement {
            size: u64::MAX,
            ..statement()
        });
        assert!(matches!(
            verify(&signed, &[key.id()]),
            Err(NotTrusted::TooLarge { .. })
        ));
    }

    #[test]
    fn a_release_key_does_not_print() {
        let (dir, key) = key();
        let secret = std::fs::read_to_string(dir.path().join("key")).unwrap();
        assert!(!format!("{key:?}").contains(secret.trim()));
    }
}
