//! The ledger: the last document that this server accepted, on its own disk before anything acts on it.
//!
//! It is why a server serves on while the coordinator is away, and why a repeated, late or reordered
//! message changes nothing. The rules, in order:
//! - another instance than the one held is refused for ever: a server serves one customer in its life;
//! - an older generation is refused;
//! - the same generation with the same bytes is nothing new, with other bytes it is an alarm;
//! - a newer one replaces the held one, durably, before the caller hears of it.
//!
//! The file holds a label line and then the very bytes as they came. A file that cannot be read is an
//! error and never an empty ledger: forgetting would let a second customer onto the server.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tidepool_shared::{
    document::{DesiredDocument, Digest, Generation, SealedDocument, UnreadableDocument},
    id::InstanceId,
};

use tidepool_certs::secret_file;

/// Larger documents are refused; a customer's configuration is some kilobytes.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// The last accepted document, in memory and on disk.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    held: Option<Entry>,
}

/// A document and its opened form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub sealed: SealedDocument,
    pub document: DesiredDocument,
}

/// What became of an offered document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is newer than what was held and is on disk now.
    New,
    /// It is what was held already.
    Same,
}

impl Ledger {
    /// Reads the ledger of `directory`, which must exist.
    pub fn open(directory: &Path) -> Result<Self, UnreadableLedger> {
        let path = directory.join("document.ledger");
        let bytes = secret_file::read(&path).map_err(|source| UnreadableLedger::Read {
            path: path.clone(),
            source,
        })?;
        let held = bytes.map(|bytes| decode(&bytes)).transpose()?;
        Ok(Self { path, held })
    }

    /// The document that is held.
    pub fn held(&self) -> Option<&Entry> {
        self.held.as_ref()
    }

    /// Takes a document in, or says why not. When this returns [`Accepted::New`], it is on disk.
    pub fn accept(&mut self, offered: SealedDocument) -> Result<Accepted, RejectedDocument> {
        if let Some(held) = &self.held {
            let held = &held.sealed;
            if offered.instance != held.instance {
                return Err(RejectedDocument::Foreign {
                    offered: offered.instance,
                    held: held.instance,
                });
            }
            if offered.generation < held.generation {
                return Err(RejectedDocument::Stale {
                    offered: offered.generation,
                    held: held.generation,
                });
            }
            if offered.generation == held.generation {
                return if offered.bytes == held.bytes {
                    Ok(Accepted::Same)
                } else {
                    Err(RejectedDocument::Altered(offered.generation))
                };
            }
        }
        if offered.bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(RejectedDocument::TooLarge(offered.bytes.len()));
        }
        let document = offered.open()?;
        secret_file::write(&self.path, &encode(&offered)).map_err(|source| {
            RejectedDocument::Persist {
                path: self.path.clone(),
                source,
            }
        })?;
        self.held = Some(Entry {
            sealed: offered,
            document,
        });
        Ok(Accepted::New)
    }
}

/// The first line of the file.
#[derive(Serialize, Deserialize)]
struct Label {
    instance: InstanceId,
    generation: Generation,
    digest: String,
}

fn encode(sealed: &SealedDocument) -> Vec<u8> {
    let label = Label {
        instance: sealed.instance,
        generation: sealed.generation,
        digest: sealed.digest.to_string(),
    };
    let mut file = serde_json::to_vec(&label).expect("a label has string keys only");
    file.push(b'\n');
    file.extend_from_slice(&sealed.bytes);
    file
}

fn decode(file: &[u8]) -> Result<Entry, UnreadableLedger> {
    let end = file
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or(UnreadableLedger::Label)?;
    let (label, rest) = file.split_at(end);
    let label: Label = serde_json::from_slice(label).map_err(|_| UnreadableLedger::Label)?;
    let bytes = rest.get(1..).unwrap_or_default().to_vec();
    let digest = Digest::of(&bytes);
    if digest.to_string() != label.digest {
        return Err(UnreadableLedger::Document(UnreadableDocument::Digest));
    }
    let sealed = SealedDocument {
        instance: label.instance,
        generation: label.generation,
        digest,
        bytes,
    };
    let document = sealed.open().map_err(UnreadableLedger::Document)?;
    Ok(Entry { sealed, document })
}

/// Why an offered document was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RejectedDocument {
    #[error("this server belongs to `{held}`, not to `{offered}`")]
    Foreign {
        offered: InstanceId,
        held: InstanceId,
    },
    #[error("generation {offered} is older than {held}")]
    Stale {
        offered: Generation,
        held: Generation,
    },
    #[error("generation {0} was already accepted with other content")]
    Altered(Generation),
    #[error("document of {0} bytes is too large")]
    TooLarge(usize),
    #[error("document cannot be read")]
    Unreadable(#[from] UnreadableDocument),
    #[error("write ledger `{path}`")]
    Persist {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Why the ledger on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableLedger {
    #[error("read ledger `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("ledger has no readable label line")]
    Label,
    #[error("document in the ledger cannot be read")]
    Document(#[source] UnreadableDocument),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidepool_shared::{
        document::{EdgeProof, GatewayLimits, Power},
        networks::Networks,
    };
    use uuid::Uuid;

    use super::*;

    fn sealed(instance: u128, generation: u64, restarts: u64) -> SealedDocument {
        SealedDocument::seal(&DesiredDocument {
            instance: InstanceId::new(Uuid::from_u128(instance)),
            generation: Generation(generation),
            hosts: vec!["a.localhost".into()],
            origins: Vec::new(),
            edge_proof: EdgeProof("ab".into()),
            config: serde_json::json!({}),
            restarts,
            limits: GatewayLimits::default(),
            power: Power::On,
            evictions: 0,
            max_body_bytes: None,
            openclaw: None,
            networks: Networks::default(),
        })
    }

    #[test]
    fn what_was_accepted_is_there_after_a_restart_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let document = sealed(1, 4, 0);
        let mut ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.accept(document.clone()).unwrap(), Accepted::New);
        let again = Ledger::open(dir.path()).unwrap();
        assert_eq!(again.held().unwrap().sealed, document);
    }

    #[test]
    fn older_altered_and_foreign_documents_are_refused_and_the_same_one_is_nothing_new() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        ledger.accept(sealed(1, 4, 0)).unwrap();
        assert_eq!(ledger.accept(sealed(1, 4, 0)).unwrap(), Accepted::Same);
        assert!(matches!(
            ledger.accept(sealed(1, 3, 0)),
            Err(RejectedDocument::Stale { .. })
        ));
        assert!(matches!(
            ledger.accept(sealed(1, 4, 9)),
            Err(RejectedDocument::Altered(Generation(4)))
        ));
        assert!(matches!(
            ledger.accept(sealed(2, 5, 0)),
            Err(RejectedDocument::Foreign { .. })
        ));
        assert_eq!(ledger.held().unwrap().sealed, sealed(1, 4, 0));
    }

    #[test]
    fn bytes_that_are_not_what_their_label_says_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        let mut forged = sealed(1, 4, 0);
        forged.generation = Generation(9);
        assert!(matches!(
            ledger.accept(forged),
            Err(RejectedDocument::Unreadable(_))
        ));
        assert!(ledger.held().is_none());
    }

    #[test]
    fn a_damaged_ledger_is_an_error_and_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        ledger.accept(sealed(1, 4, 0)).unwrap();
        let path = dir.path().join("document.ledger");
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            Ledger::open(dir.path()).unwrap_err();
        }
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_document() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        ledger.accept(sealed(1, 4, 0)).unwrap();
        std::fs::write(dir.path().join("document.next"), b"half a docu").unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.held().unwrap().sealed, sealed(1, 4, 0));
        assert_eq!(ledger.accept(sealed(1, 5, 0)).unwrap(), Accepted::New);
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.held().unwrap().sealed, sealed(1, 5, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is offered in whatever order, with restarts of the agent in between: the first
        /// instance stays, the highest of its generations is held with the content that came first.
        #[test]
        fn any_sequence_of_offers_ends_at_the_newest_document_of_the_first_instance(
            offers in proptest::collection::vec((1u128..3, 1u64..6, 0u64..3, any::<bool>()), 1..24)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut ledger = Ledger::open(dir.path()).unwrap();
            let mut expected: Option<(u128, u64, u64)> = None;
            for (instance, generation, restarts, reopen) in offers {
                let newer = expected.is_none_or(|(i, g, _)| i == instance && generation > g);
                let same = expected == Some((instance, generation, restarts));
                let outcome = ledger.accept(sealed(instance, generation, restarts));
                if newer {
                    prop_assert_eq!(outcome.unwrap(), Accepted::New);
                    expected = Some((instance, generation, restarts));
                } else if same {
                    prop_assert_eq!(outcome.unwrap(), Accepted::Same);
                } else {
                    prop_assert!(outcome.is_err());
                }
                if reopen {
                    ledger = Ledger::open(dir.path()).unwrap();
                }
                let (i, g, r) = expected.unwrap();
                prop_assert_eq!(&ledger.held().unwrap().sealed, &sealed(i, g, r));
            }
        }
    }
}
