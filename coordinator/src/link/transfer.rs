//! Artefacts on their way to agents, each on a stream of its own.
//!
//! Bulk must not be felt by anything else on the link: the stream yields to all others, is paced below
//! what a server's line carries, and only so many run at once. An agent that is cut off asks again for the
//! rest. What is sent is public to every server of ours, so whoever has a link may have it.
//!
//! A server that means harm gets no more than one that fails now and then needs: a transfer has a time to end in,
//! and of each artefact a server is sent so much a day.

use std::{
    collections::{HashMap, HashSet},
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
/// A transfer may take so many times as long as at our rate, and this beside.
const SLOWER: u32 = 4;
const GRACE: Duration = Duration::from_mins(1);
/// So many times its size a server is sent of an artefact in a day.
const OFTEN: u64 = 3;
const DAY: Duration = Duration::from_hours(24);
/// Sums that are kept at least; beyond it, those of the day before are forgotten.
const SUMS: usize = 4096;

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
    sent: Mutex<HashMap<(ServerId, Sha256), Sum>>,
    rate: u32,
}

/// What a server was sent of an artefact in the day that began then.
#[derive(Debug, Clone, Copy)]
struct Sum {
    bytes: u64,
    since: Instant,
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
    #[error("the agent takes it too slowly")]
    TooSlow,
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
            sent: Mutex::default(),
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
        if !self.may_have(server, sha256, size) {
            return refuse(send, "it was sent often enough for a day", Retry::Later).await;
        }
        let (kind, version) = (artefact.statement.kind, &artefact.statement.version);
        debug!(server.id = %server, artefact.kind = %kind, artefact.version = %version, offset, "sending");
        // A stream that the agent has stopped has no use for a priority.
        drop(send.set_priority(PRIORITY));
        wire::write(send, &ArtefactFollows { size }).await?;
        let sending = self.send(server, &artefact, offset, send);
        timeout(self.longest(size - offset), sending)
            .await
            .map_err(|_| TransferError::TooSlow)??;
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

    /// Whether the server was not sent this often enough lately.
    fn may_have(&self, server: ServerId, sha256: Sha256, size: u64) -> bool {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.len() >= SUMS {
            sent.retain(|_, sum| sum.since.elapsed() < DAY);
        }
        let sum = sent.get(&(server, sha256));
        let sum = sum.filter(|sum| sum.since.elapsed() < DAY);
        sum.is_none_or(|sum| sum.bytes < size.saturating_mul(OFTEN))
    }

    fn count(&self, server: ServerId, sha256: Sha256, bytes: u64) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let anew = Sum {
            bytes: 0,
            since: Instant::now(),
        };
        let sum = sent.entry((server, sha256)).or_insert(anew);
        if sum.since.elapsed() >= DAY {
            *sum = anew;
        }
        sum.bytes = sum.bytes.saturating_add(bytes);
    }

    /// How long so many bytes may take.
    fn longest(&self, bytes: u64) -> Duration {
        let seconds = bytes.div_ceil(u64::from(self.rate));
        Duration::from_secs(seconds) * SLOWER + GRACE
    }

    async fn send(
        &self,
        server: ServerId,
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
            let taken = u64::try_from(piece.len()).unwrap_or(left);
            self.count(server, artefact.statement.sha256, taken);
            left -= taken;
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn transfers() -> Transfers {
        Transfers::new(Artefacts::new("nowhere".into()), Pacing::default())
    }

    #[test]
    fn a_transfer_has_a_time_to_end_in() {
        let transfers = transfers();
        assert_eq!(transfers.longest(0), GRACE);
        // A minute at our rate.
        let longest = transfers.longest(240 * MIB);
        assert_eq!(longest, Duration::from_mins(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_sent_an_artefact_so_often_a_day() {
        let transfers = transfers();
        let server = |number| ServerId::new(Uuid::from_u128(number));
        let (one, other) = (Sha256([1; 32]), Sha256([2; 32]));
        for _ in 0..OFTEN {
            assert!(transfers.may_have(server(1), one, MIB));
            transfers.count(server(1), one, MIB);
        }
        assert!(!transfers.may_have(server(1), one, MIB));
        assert!(transfers.may_have(server(1), other, MIB));
        assert!(transfers.may_have(server(2), one, MIB));
        tokio::time::advance(DAY).await;
        assert!(transfers.may_have(server(1), one, MIB));
        transfers.count(server(1), one, 1);
        assert!(transfers.may_have(server(1), one, MIB));
    }
}
