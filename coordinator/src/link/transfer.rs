//! Artefacts on their way to agents, each on a stream of its own.
//!
//! Bulk must not be felt by anything else on the link: the stream yields to all others, is paced below
//! what a server's line carries, and only so many run at once. An agent that is cut off asks again for the
//! rest. What is sent is public to every server of ours, so whoever has a link may have it.

use std::{
    collections::HashSet,
    io::{self, Read as _, Seek as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quinn::SendStream;
use tidepool_shared::{
    artefact::Sha256,
    id::ServerId,
    message::{ArtefactFollows, FetchArtefact, Refused},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinError,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, error, info};

use super::wire::{self, WireError};
use crate::{
    artefacts::{Artefact, Artefacts},
    causes::chain,
};

/// Below every other stream, which have 0.
const PRIORITY: i32 = -1;
/// Read and sent at once.
const PIECE: usize = 64 * 1024;
/// How long an agent may take no byte.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much goes out.
#[derive(Debug, Clone, Copy)]
pub struct Pacing {
    /// Transfers at the same time.
    pub at_once: usize,
    /// Of each, in bytes a second.
    pub rate: u32,
}

impl Default for Pacing {
    /// Half a gigabit in all: 240 MB take a minute.
    fn default() -> Self {
        Self {
            at_once: 16,
            rate: 4 * 1024 * 1024,
        }
    }
}

/// All transfers of this coordinator.
#[derive(Debug)]
pub(super) struct Transfers {
    artefacts: Artefacts,
    places: Arc<Semaphore>,
    served: Arc<Mutex<HashSet<ServerId>>>,
    rate: u32,
}

/// A place among them, one a server.
struct Place {
    server: ServerId,
    served: Arc<Mutex<HashSet<ServerId>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.remove(&self.server);
    }
}

/// Why a transfer did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("read the artefact")]
    Read(#[from] io::Error),
    #[error("read the artefact")]
    Reader(#[from] JoinError),
}

impl Transfers {
    pub(super) fn new(artefacts: Artefacts, pacing: Pacing) -> Self {
        Self {
            artefacts,
            places: Arc::new(Semaphore::new(pacing.at_once)),
            served: Arc::default(),
            rate: pacing.rate.max(1),
        }
    }

    /// Sends what was asked for, or says why not. The stream is the agent's to finish reading.
    pub(super) async fn serve(
        &self,
        server: ServerId,
        FetchArtefact { sha256, offset }: FetchArtefact,
        send: &mut SendStream,
    ) -> Result<(), TransferError> {
        let Some(_place) = self.enter(server) else {
            return refuse(send, "others are served first", Retry::Later).await;
        };
        let sha256 = Sha256(sha256);
        let artefacts = self.artefacts.clone();
        let found = tokio::task::spawn_blocking(move || artefacts.bytes(sha256)).await?;
        let artefact = match found {
            // Another coordinator may have it, or this one a moment later.
            Ok(None) => return refuse(send, "it is not here", Retry::Later).await,
            Err(failure) => {
                error!(error = %chain(&failure), "no artefact is served");
                return refuse(send, "not ready", Retry::Later).await;
            }
            Ok(Some(artefact)) => artefact,
        };
        let size = artefact.statement.size;
        if offset > size {
            return refuse(send, "it is not that long", Retry::Never).await;
        }
        let (kind, version) = (artefact.statement.kind, &artefact.statement.version);
        debug!(server.id = %server, artefact.kind = %kind, artefact.version = %version, offset, "sending");
        // A stream that the agent has stopped has no use for a priority.
        drop(send.set_priority(PRIORITY));
        wire::write(send, &ArtefactFollows { size }).await?;
        self.send(&artefact, offset, send).await?;
        info!(server.id = %server, artefact.kind = %kind, artefact.version = %version, offset, "sent");
        Ok(())
    }

    fn enter(&self, server: ServerId) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.insert(server).then(|| Place {
            server,
            served: Arc::clone(&self.served),
            _permit: permit,
        })
    }

    async fn send(
        &self,
        artefact: &Artefact,
        offset: u64,
        send: &mut SendStream,
    ) -> Result<(), TransferError> {
        let mut file = artefact.open()?;
        file.seek(io::SeekFrom::Start(offset))?;
        let mut left = artefact.statement.size - offset;
        let mut due = Instant::now();
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
            let (back, piece) = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; wanted];
                file.read_exact(&mut piece)?;
                Ok::<_, io::Error>((file, piece))
            })
            .await??;
            file = back;
            timeout(PATIENCE, send.write_all(&piece))
                .await
                .map_err(|_| WireError::Stalled)?
                .map_err(WireError::from)?;
            left -= u64::try_from(piece.len()).unwrap_or(left);
            // A line that was slow for a while is not made up for by a burst.
            due = due.max(Instant::now()) + self.time_of(piece.len());
            sleep_until(due).await;
        }
        Ok(())
    }

    fn time_of(&self, bytes: usize) -> Duration {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Duration::from_secs(1) * bytes / self.rate
    }
}

#[derive(Debug, Clone, Copy)]
enum Retry {
    Later,
    Never,
}

async fn refuse(send: &mut SendStream, reason: &str, retry: Retry) -> Result<(), TransferError> {
    let refused = Refused {
        reason: reason.to_owned(),
        retry: matches!(retry, Retry::Later),
    };
    Ok(wire::write(send, &refused).await?)
}
