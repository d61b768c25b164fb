//! Artefacts on their way in: fetched over the link, on disk as they come, believed only when whole.
//!
//! What is asked for was named by a signed statement ([`tidepool_certs::release`]), so nothing that comes
//! has to be trusted: a byte that is not the signed one is found by the digest. A transfer that is cut off
//! goes on where it stopped, with the next link or the next agent. One runs at a time.
//!
//! ```text
//! DIRECTORY/agent/SHA256.partial    as far as it came
//! DIRECTORY/agent/SHA256            whole
//! ```

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use quinn::{Connection, RecvStream};
use sha2::{Digest as _, Sha256 as Hasher};
use tidepool_certs::{
    release::{self, NotTrusted},
    secret_file,
};
use tidepool_shared::{
    artefact::{self, MAX_SIGNED, ReleaseKeyId, Sha256, SignedArtefact, Statement},
    frame::Kind,
    message::{ArtefactFollows, FetchArtefact, Refused},
};
use tokio::{
    fs::OpenOptions,
    io::AsyncWriteExt as _,
    sync::{Mutex, watch},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    disk::{self, UNSYNCED},
    link::{
        Backoff, Line, error_chain,
        wire::{self, FrameReader, WireError},
    },
};

/// What stays free on the disk for everything else.
const ROOM: u64 = 256 * 1024 * 1024;
/// The same beside an agent: the slot that it is copied to.
const AGENT_ROOM: u64 = 64 * 1024 * 1024;
/// How long nothing may come.
const PATIENCE: Duration = Duration::from_mins(1);
/// Read at once.
const PIECE: usize = 64 * 1024;

/// Where artefacts are kept, and the line that they come on.
#[derive(Debug)]
pub struct Depot {
    directory: PathBuf,
    line: watch::Receiver<Option<Line>>,
    backoff: Backoff,
    turn: Mutex<()>,
}

/// Why an artefact is not here. Asking again may help where a person has changed something.
#[derive(Debug, thiserror::Error)]
pub enum NotFetched {
    #[error("keep it in `{path}`")]
    Disk {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no room for its {size} bytes")]
    NoRoom { size: u64 },
    #[error("the coordinator refused it: {0}")]
    Refused(String),
    #[error("what came is not what was signed")]
    Altered,
    #[error("this agent stops")]
    Stopping,
}

/// Why what a coordinator names is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotBelieved {
    #[error("it is no signed artefact")]
    Unreadable,
    #[error(transparent)]
    NotTrusted(#[from] NotTrusted),
    #[error("it is of the kind {is}, and not {wanted}")]
    Kind {
        is: artefact::Kind,
        wanted: artefact::Kind,
    },
}

/// What a signed artefact says, if one of `keys` has signed it and it is of this kind.
pub(crate) fn believe(
    signed: &str,
    wanted: artefact::Kind,
    keys: &[ReleaseKeyId],
) -> Result<Statement, NotBelieved> {
    if signed.len() > MAX_SIGNED {
        return Err(NotBelieved::Unreadable);
    }
    let signed: SignedArtefact =
        serde_json::from_str(signed).map_err(|_| NotBelieved::Unreadable)?;
    let statement = release::verify(&signed, keys)?;
    let is = statement.kind;
    if is == wanted {
        Ok(statement)
    } else {
        Err(NotBelieved::Kind { is, wanted })
    }
}

/// Why a transfer ended before its end.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("open a stream")]
    Open(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("nothing came for {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the stream ended early")]
    Short,
    #[error("not now: {0}")]
    NotNow(String),
    #[error("answer is of kind {0}")]
    Kind(u16),
    #[error(transparent)]
    Final(NotFetched),
}

impl Depot {
    /// Keeps artefacts in this directory, which it makes when the first one comes.
    pub fn new(directory: PathBuf, line: watch::Receiver<Option<Line>>, backoff: Backoff) -> Self {
        Self {
            directory,
            line,
            backoff,
            turn: Mutex::default(),
        }
    }

    /// The file with the bytes that the statement is about; waits for the link as long as it takes. Whoever
    /// has the file may move it away. Others of its kind are removed.
    pub async fn fetch(&self, statement: &Statement) -> Result<PathBuf, NotFetched> {
        let _turn = self.turn.lock().await;
        let place = Place::prepare(&self.directory, statement)?;
        // What an earlier boot left may have holes that a power cut made: then all of it comes anew, once.
        for last in [false, true] {
            self.complete(&place, statement).await?;
            match place.check(statement).await {
                Err(NotFetched::Altered) if !last => warn!("what came is not whole, once more"),
                checked => return checked.map(|()| place.whole),
            }
        }
        Err(NotFetched::Altered)
    }

    /// Removes what came of this kind, unless something comes just now.
    pub fn clear(&self, kind: artefact::Kind) -> io::Result<()> {
        match self.turn.try_lock() {
            Ok(_turn) => disk::remove_tree(&self.directory.join(kind.name())),
            Err(_) => Ok(()),
        }
    }

    /// Until all bytes are there.
    async fn complete(&self, place: &Place, statement: &Statement) -> Result<(), NotFetched> {
        let mut line = self.line.clone();
        let mut failures = 0;
        loop {
            let have = place.have()?;
            if have == statement.size {
                return Ok(());
            }
            let connection = match line.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(Line(connection))) => connection.clone(),
                Ok(None) | Err(_) => return Err(NotFetched::Stopping),
            };
            let cut = match receive(&connection, place, statement, have).await {
                Ok(()) => continue,
                Err(Cut::Final(failure)) => return Err(failure),
                Err(cut) => cut,
            };
            if place.have()? > have {
                failures = 0;
            }
            let wait = self.backoff.wait(failures);
            failures = failures.saturating_add(1);
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            info!(reason = %error_chain(&cut), wait_ms, "an artefact waits");
            sleep(wait).await;
        }
    }
}

/// The files of one artefact.
struct Place {
    partial: PathBuf,
    whole: PathBuf,
}

impl Place {
    /// Makes room: nothing else of its kind is left.
    fn prepare(directory: &Path, statement: &Statement) -> Result<Self, NotFetched> {
        let directory = directory.join(statement.kind.name());
        let failed = |source| NotFetched::Disk {
            path: directory.clone(),
            source,
        };
        secret_file::create_dir(&directory).map_err(failed)?;
        let whole = directory.join(statement.sha256.to_string());
        let partial = whole.with_extension("partial");
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path != whole && path != partial {
                fs::remove_file(&path).map_err(failed)?;
            }
        }
        // What is whole is checked again like what comes: nobody has to remember whether it was.
        match fs::rename(&whole, &partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let place = Self { partial, whole };
        if place.have()? > statement.size {
            fs::remove_file(&place.partial).map_err(failed)?;
        }
        place.room(statement)?;
        Ok(place)
    }

    fn room(&self, statement: &Statement) -> Result<(), NotFetched> {
        let size = statement.size;
        let directory = self.partial.parent().unwrap_or(&self.partial);
        // Agents are small and must come to servers whose disk is full, too.
        let (free, room) = match statement.kind {
            artefact::Kind::Agent => (disk::reserved_bytes(directory), AGENT_ROOM),
            artefact::Kind::OpenclawImage => (disk::free_bytes(directory), ROOM),
        };
        let free = free.map_err(|error| self.failed(error))?;
        if free < (size - self.have()?).saturating_add(room) {
            return Err(NotFetched::NoRoom { size });
        }
        Ok(())
    }

    fn have(&self) -> Result<u64, NotFetched> {
        match fs::metadata(&self.partial) {
            Ok(found) => Ok(found.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, source: io::Error) -> NotFetched {
        NotFetched::Disk {
            path: self.partial.clone(),
            source,
        }
    }

    /// Gives the file its name if it is what was signed, and removes it if not.
    async fn check(&self, statement: &Statement) -> Result<(), NotFetched> {
        let (partial, whole, wanted) = (self.partial.clone(), self.whole.clone(), statement.sha256);
        let checked = tokio::task::spawn_blocking(move || {
            if digest(&partial)? != wanted {
                fs::remove_file(&partial)?;
                return Ok(false);
            }
            File::open(&partial)?.sync_all()?;
            fs::rename(&partial, &whole)?;
            File::open(whole.parent().unwrap_or(&whole))?.sync_all()?;
            Ok(true)
        });
        match checked
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
        {
            Ok(true) => Ok(()),
            Ok(false) => Err(NotFetched::Altered),
            Err(error) => Err(self.failed(error)),
        }
    }
}

/// SHA-256 of a file.
pub(crate) fn digest(path: &Path) -> io::Result<Sha256> {
    let (mut file, mut hasher) = (File::open(path)?, Hasher::new());
    let mut piece = vec![0; 4 * PIECE];
    loop {
        let read = file.read(&mut piece)?;
        match piece.get(..read) {
            Some(bytes) if !bytes.is_empty() => hasher.update(bytes),
            _ => return Ok(Sha256(hasher.finalize().into())),
        }
    }
}

async fn receive(
    connection: &Connection,
    place: &Place,
    statement: &Statement,
    offset: u64,
) -> Result<(), Cut> {
    let asked = async {
        let (mut send, recv) = connection.open_bi().await?;
        let wanted = FetchArtefact {
            sha256: statement.sha256.0,
            offset,
        };
        wire::write(&mut send, &wanted).await?;
        // Nothing more is said; the stream cannot be finished already.
        drop(send.finish());
        let mut reader = FrameReader::new(recv);
        let frame = reader.answer().await?;
        Ok::<_, Cut>((frame, reader))
    };
    let (frame, reader) = timeout(PATIENCE, asked).await.map_err(|_| Cut::Silent)??;
    match frame.kind {
        Kind::ARTEFACT_FOLLOWS => {
            let ArtefactFollows { size } = frame.message().map_err(WireError::from)?;
            if size != statement.size {
                return Err(Cut::Final(NotFetched::Altered));
            }
        }
        Kind::REFUSED => {
            let Refused { reason, retry } = frame.message().map_err(WireError::from)?;
            return Err(if retry {
                Cut::NotNow(reason)
            } else {
                Cut::Final(NotFetched::Refused(reason))
            });
        }
        Kind(other) => return Err(Cut::Kind(other)),
    }
    let (stream, first) = reader.into_rest();
    write_down(stream, first, place, statement.size - offset).await
}

/// Appends what comes, and no more than is due.
async fn write_down(
    mut stream: RecvStream,
    first: Vec<u8>,
    place: &Place,
    due: u64,
) -> Result<(), Cut> {
    let failed = |source| Cut::Final(place.failed(source));
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&place.partial)
        .await
        .map_err(failed)?;
    let (mut left, mut unsynced) = (due, 0);
    let mut piece = bytes::Bytes::from(first);
    let ended = loop {
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        left = match left.checked_sub(length) {
            Some(left) => left,
            None => break Err(Cut::Final(NotFetched::Altered)),
        };
        file.write_all(&piece).await.map_err(failed)?;
        unsynced += length;
        if unsynced >= UNSYNCED {
            file.sync_data().await.map_err(failed)?;
            unsynced = 0;
        }
        if left == 0 {
            break Ok(());
        }
        match timeout(PATIENCE, stream.read_chunk(PIECE, true)).await {
            Ok(Ok(Some(chunk))) => piece = chunk.bytes,
            Ok(Ok(None)) => break Err(Cut::Short),
            Ok(Err(error)) => break Err(Cut::Wire(error.into())),
            Err(_) => break Err(Cut::Silent),
        }
    };
    // Whatever came counts, also of a transfer that was cut.
    file.flush().await.map_err(failed)?;
    file.sync_data().await.map_err(failed)?;
    ended
}
