//! The artefacts that this coordinator has to give: a directory, looked at whenever somebody asks.
//!
//! ```text
//! DIRECTORY/agent-0.2.0/signed.json   the statement and its signature
//! DIRECTORY/agent-0.2.0/bytes         what it is about
//! ```
//!
//! Nothing here can make an artefact that a server would take: it takes what a release key signed, and that
//! key is elsewhere. What is looked at here (digest, size, that the signature is that of the key beside it)
//! is for the operator, who should hear of a damaged file before servers do.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256 as Hasher};
use tidepool_certs::release::{self, NotTrusted};
use tidepool_shared::{
    artefact::{Kind, MAX_SIGNED, Sha256, SignedArtefact, Statement, Version},
    openclaw_version::OpenClawVersion,
};
use tokio::task::spawn_blocking;

const SIGNED: &str = "signed.json";
const BYTES: &str = "bytes";
/// What is being added; no artefact's name begins so.
const INCOMING: &str = ".incoming-";
/// Entries of the directory that are looked at; a directory with more is another one.
const MOST: usize = 512;
const PIECE: usize = 256 * 1024;

/// The directory. Every call that is not async does blocking work.
#[derive(Debug, Clone)]
pub struct Artefacts(PathBuf);

/// One that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefact {
    pub statement: Statement,
    pub signed: SignedArtefact,
    directory: PathBuf,
}

/// Why the directory was not read.
#[derive(Debug, thiserror::Error)]
#[error("read artefacts in `{path}`")]
pub struct Unreadable {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Why a file is not among the artefacts now.
#[derive(Debug, thiserror::Error)]
pub enum NotAdded {
    #[error("read `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is no signed statement")]
    Signed {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the signature is not good")]
    NotTrusted(#[from] NotTrusted),
    #[error("`{0}` is not the file that was signed")]
    Altered(PathBuf),
    #[error("there is another {kind} {version} already, and a version means one thing only")]
    Taken { kind: Kind, version: Version },
}

/// Where the statement of an artefact's file is: beside it.
pub fn signed_beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".signed.json");
    name.into()
}

/// Digest and size of a file.
pub fn measure(path: &Path) -> io::Result<(Sha256, u64)> {
    copy(&mut File::open(path)?, &mut io::sink())
}

impl Artefacts {
    /// Those in this directory, which need not be there.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// All that are whole, in the order of kind and version.
    pub fn list(&self) -> Result<Vec<Artefact>, Unreadable> {
        let failed = |source| Unreadable {
            path: self.0.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for entry in entries.take(MOST) {
            let directory = entry.map_err(failed)?.path();
            found.extend(read(&directory));
        }
        found.sort_by(|one, two| {
            let order = |it: &Artefact| (it.statement.kind, it.statement.version.clone());
            order(one).cmp(&order(two))
        });
        Ok(found)
    }

    /// The artefact of a version.
    pub fn version(&self, kind: Kind, version: &Version) -> Result<Option<Artefact>, Unreadable> {
        let mut all = self.list()?.into_iter();
        Ok(all.find(|it| it.statement.kind == kind && it.statement.version == *version))
    }

    /// What is signed, as JSON, of the artefact that brings this version of OpenClaw; nothing if it is not here.
    pub async fn bringing(&self, version: &OpenClawVersion) -> Result<Option<String>, Unreadable> {
        // What is no version of an artefact is the version of none.
        let Ok(version) = version.as_str().parse::<Version>() else {
            return Ok(None);
        };
        let artefacts = self.clone();
        let found = spawn_blocking(move || artefacts.version(Kind::OpenclawImage, &version));
        let found = found.await.unwrap_or_else(|ended| {
            Err(Unreadable {
                path: self.0.clone(),
                source: ended.into(),
            })
        })?;
        Ok(found.map(|artefact| {
            serde_json::to_string(&artefact.signed).expect("it has string keys only")
        }))
    }

    /// The artefact with these bytes.
    pub fn bytes(&self, sha256: Sha256) -> Result<Option<Artefact>, Unreadable> {
        let mut all = self.list()?.into_iter();
        Ok(all.find(|it| it.statement.sha256 == sha256))
    }

    /// Copies a signed file in: whole and on disk, or not at all.
    pub fn add(&self, file: &Path) -> Result<Artefact, NotAdded> {
        let signed = read_signed(&signed_beside(file))?;
        let statement = release::consistent(&signed)?;
        let (kind, version) = (statement.kind, statement.version.clone());
        let directory = self.0.join(format!("{kind}-{version}"));
        let artefact = Artefact {
            statement,
            signed,
            directory,
        };
        if let Some(present) = read(&artefact.directory) {
            return if present.statement.sha256 == artefact.statement.sha256 {
                Ok(present)
            } else {
                Err(NotAdded::Taken { kind, version })
            };
        }
        let incoming = self.0.join(format!("{INCOMING}{}", std::process::id()));
        let added = self.take_in(file, &incoming, &artefact);
        if added.is_err() {
            // What is left of it is found by no name, and is gone with the next one that fails here.
            drop(fs::remove_dir_all(&incoming));
        }
        added.map(|()| artefact)
    }

    fn take_in(&self, file: &Path, incoming: &Path, artefact: &Artefact) -> Result<(), NotAdded> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| NotAdded::Write { path, source }
        };
        let read = |source| NotAdded::Read {
            path: file.to_owned(),
            source,
        };
        if let Err(error) = fs::remove_dir_all(incoming)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(write(incoming)(error));
        }
        fs::create_dir_all(incoming).map_err(write(incoming))?;
        let bytes = incoming.join(BYTES);
        let mut to = File::create_new(&bytes).map_err(write(&bytes))?;
        let mut from = File::open(file).map_err(read)?;
        let measured = copy(&mut from, &mut to).map_err(write(&bytes))?;
        if measured != (artefact.statement.sha256, artefact.statement.size) {
            return Err(NotAdded::Altered(file.to_owned()));
        }
        to.sync_all().map_err(write(&bytes))?;
        let signed = incoming.join(SIGNED);
        let text = serde_json::to_vec(&artefact.signed).expect("it has string keys only");
        File::create_new(&signed)
            .and_then(|mut to| {
                to.write_all(&text)?;
                to.sync_all()
            })
            .map_err(write(&signed))?;
        let directory = &artefact.directory;
        // A directory of this name without a whole artefact in it is the rest of another one's end.
        if let Err(error) = fs::remove_dir_all(directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(write(directory)(error));
        }
        fs::rename(incoming, directory)
            .and_then(|()| File::open(&self.0)?.sync_all())
            .map_err(write(directory))
    }
}

impl Artefact {
    /// Its bytes.
    pub fn open(&self) -> io::Result<File> {
        File::open(self.directory.join(BYTES))
    }
}

/// What is signed beside a file, as it is written.
fn read_signed(path: &Path) -> Result<SignedArtefact, NotAdded> {
    let text = bounded(path).map_err(|source| NotAdded::Read {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|error| NotAdded::Signed {
        path: path.to_owned(),
        source: error.into(),
    })
}

/// An artefact's directory, if it is one.
fn read(directory: &Path) -> Option<Artefact> {
    let name = directory.file_name()?.to_str()?;
    if name.starts_with('.') {
        return None;
    }
    let signed = bounded(&directory.join(SIGNED)).ok()?;
    let signed: SignedArtefact = serde_json::from_slice(&signed).ok()?;
    let statement = release::consistent(&signed).ok()?;
    let size = fs::metadata(directory.join(BYTES)).ok()?.len();
    (size == statement.size).then(|| Artefact {
        statement,
        signed,
        directory: directory.to_owned(),
    })
}

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(MAX_SIGNED).unwrap_or(u64::MAX);
    let mut text = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut text)?;
    Ok(text)
}

fn copy(from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<(Sha256, u64)> {
    let (mut hasher, mut size, mut piece) = (Hasher::new(), 0, vec![0; PIECE]);
    loop {
        let read = from.read(&mut piece)?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok((Sha256(hasher.finalize().into()), size));
        };
        hasher.update(bytes);
        to.write_all(bytes)?;
        size += u64::try_from(read).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use tidepool_certs::release::ReleaseKey;

    use super::*;

    struct Shop {
        dir: tempfile::TempDir,
        key: ReleaseKey,
    }

    impl Shop {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let key = ReleaseKey::create(&dir.path().join("key")).unwrap();
            Self { dir, key }
        }

        fn file(&self, version: &str, bytes: &[u8]) -> PathBuf {
            self.file_of(Kind::Agent, version, bytes)
        }

        fn file_of(&self, kind: Kind, version: &str, bytes: &[u8]) -> PathBuf {
            let path = self.dir.path().join("program");
            fs::write(&path, bytes).unwrap();
            let (sha256, size) = measure(&path).unwrap();
            let signed = self.key.sign(&Statement {
                kind,
                version: version.parse().unwrap(),
                sha256,
                size,
                replaces_up_to: None,
            });
            fs::write(signed_beside(&path), serde_json::to_vec(&signed).unwrap()).unwrap();
            path
        }

        fn artefacts(&self) -> Artefacts {
            Artefacts::new(self.dir.path().join("artefacts"))
        }
    }

    #[test]
    fn what_was_added_is_found_by_version_and_by_its_bytes() {
        let shop = Shop::new();
        let artefacts = shop.artefacts();
        assert_eq!(artefacts.list().unwrap(), []);
        let added = artefacts.add(&shop.file("0.2.0", b"two")).unwrap();
        artefacts.add(&shop.file("0.10.0", b"ten")).unwrap();
        let versions: Vec<_> = artefacts
            .list()
            .unwrap()
            .iter()
            .map(|it| it.statement.version.to_string())
            .collect();
        assert_eq!(versions, ["0.2.0", "0.10.0"]);
        let by_version = artefacts.version(Kind::Agent, &"0.2.0".parse().unwrap());
        assert_eq!(by_version.unwrap(), Some(added.clone()));
        let found = artefacts.bytes(added.statement.sha256).unwrap().unwrap();
        let mut bytes = String::new();
        found.open().unwrap().read_to_string(&mut bytes).unwrap();
        assert_eq!(bytes, "two");
    }

    #[tokio::test]
    async fn what_brings_a_version_of_openclaw_is_found_by_it_and_an_agent_brings_none() {
        let shop = Shop::new();
        let artefacts = shop.artefacts();
        artefacts.add(&shop.file("2026.9.6", b"an agent")).unwrap();
        let version = "2026.9.6".parse().unwrap();
        assert_eq!(artefacts.bringing(&version).await.unwrap(), None);
        let file = shop.file_of(Kind::OpenclawImage, "2026.9.6", b"OpenClaw");
        let added = artefacts.add(&file).unwrap();
        let signed = artefacts.bringing(&version).await.unwrap().unwrap();
        let signed: SignedArtefact = serde_json::from_str(&signed).unwrap();
        assert_eq!(signed, added.signed);
    }

    #[test]
    fn a_version_means_one_thing_and_may_be_added_again() {
        let shop = Shop::new();
        let artefacts = shop.artefacts();
        artefacts.add(&shop.file("0.2.0", b"two")).unwrap();
        artefacts.add(&shop.file("0.2.0", b"two")).unwrap();
        let other = artefacts.add(&shop.file("0.2.0", b"other"));
        assert!(matches!(other, Err(NotAdded::Taken { .. })));
    }

    #[test]
    fn a_file_that_was_changed_after_it_was_signed_is_not_taken() {
        let shop = Shop::new();
        let file = shop.file("0.2.0", b"two");
        fs::write(&file, b"tow").unwrap();
        let refused = shop.artefacts().add(&file);
        assert!(matches!(refused, Err(NotAdded::Altered(_))));
        assert_eq!(shop.artefacts().list().unwrap(), []);
        assert_eq!(
            fs::read_dir(shop.dir.path().join("artefacts"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn half_an_artefact_is_none_and_is_replaced() {
        let shop = Shop::new();
        let artefacts = shop.artefacts();
        artefacts.add(&shop.file("0.2.0", b"two")).unwrap();
        let bytes = shop.dir.path().join("artefacts/agent-0.2.0/bytes");
        fs::write(&bytes, b"t").unwrap();
        assert_eq!(artefacts.list().unwrap(), []);
        artefacts.add(&shop.file("0.2.0", b"two")).unwrap();
        assert_eq!(fs::read(&bytes).unwrap(), b"two");
    }
}
