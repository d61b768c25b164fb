//! Who is connected: one session per server, by the newest epoch.
//!
//! A cache of nothing: it says which connections this process holds, and is empty after a restart.

use std::{
    collections::{HashMap, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quinn::Connection;
use tidepool_shared::{
    capability::close,
    frame::Kind,
    id::ServerId,
    message::{LogLines, LogRequest, Refused},
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::wire::{self, FrameReader, WireError};

/// How long an agent may take to answer a request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);

/// A server whose sessions displace each other more often than this in a minute is more than one.
const MAX_SUPERSEDED: usize = 3;
const SUPERSEDED_WINDOW: Duration = Duration::from_mins(1);

/// The links of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Links(Arc<Mutex<HashMap<ServerId, Link>>>);

#[derive(Debug)]
struct Link {
    epoch: u64,
    connection: Connection,
    wake: Arc<Notify>,
    /// When a session of this server displaced a live one; only the last minute's.
    superseded: Vec<Instant>,
}

/// What became of a new session.
#[derive(Debug)]
pub(super) enum Entered {
    /// It is the server's session now; `wake` is notified when the store should be read.
    In { wake: Arc<Notify>, clones: Clones },
    /// A newer one is there already.
    Stale,
}

/// Whether a server's sessions look like those of several machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clones {
    Unlikely,
    Suspected,
}

/// Why there are no log lines.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error("server is not connected")]
    NotConnected,
    #[error("link was lost")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer in time")]
    Late,
    #[error("agent refused: {0}")]
    Refused(String),
    #[error("agent cannot do that")]
    Unsupported,
}

impl Links {
    /// Whether this process holds the server's link.
    pub fn is_connected(&self, server: ServerId) -> bool {
        self.lock().contains_key(&server)
    }

    /// How many links this process holds.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// The last lines of a server's gateway log, oldest first.
    pub async fn logs(&self, server: ServerId, lines: u32) -> Result<Vec<String>, LogsError> {
        let connection = self
            .lock()
            .get(&server)
            .map(|link| link.connection.clone())
            .ok_or(LogsError::NotConnected)?;
        timeout(REQUEST_DEADLINE, ask_for_logs(&connection, lines))
            .await
            .map_err(|_| LogsError::Late)?
    }

    /// Tells a server's session to read the store.
    pub(super) fn wake(&self, server: ServerId) {
        if let Some(link) = self.lock().get(&server) {
            link.wake.notify_one();
        }
    }

    /// Tells every session to read the store.
    pub(super) fn wake_all(&self) {
        for link in self.lock().values() {
            link.wake.notify_one();
        }
    }

    /// Puts a session in its place and closes the one that it displaces.
    pub(super) fn enter(&self, server: ServerId, epoch: u64, connection: Connection) -> Entered {
        let wake = Arc::new(Notify::new());
        let link = Link {
            epoch,
            connection,
            wake: Arc::clone(&wake),
            superseded: Vec::new(),
        };
        match self.lock().entry(server) {
            hash_map::Entry::Occupied(held) if held.get().epoch > epoch => Entered::Stale,
            hash_map::Entry::Occupied(mut held) => {
                let older = held.insert(link);
                let mut superseded = older.superseded;
                older
                    .connection
                    .close(close::SUPERSEDED.into(), b"a newer session took over");
                let clones = count(&mut superseded, Instant::now());
                held.get_mut().superseded = superseded;
                Entered::In { wake, clones }
            }
            hash_map::Entry::Vacant(place) => {
                place.insert(link);
                Entered::In {
                    wake,
                    clones: Clones::Unlikely,
                }
            }
        }
    }

    /// Takes a session out, unless a newer one has its place.
    pub(super) fn leave(&self, server: ServerId, epoch: u64) {
        if let hash_map::Entry::Occupied(held) = self.lock().entry(server)
            && held.get().epoch == epoch
        {
            held.remove();
        }
    }

    /// The guard never lives across an await.
    fn lock(&self) -> MutexGuard<'_, HashMap<ServerId, Link>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one more displacement. A suspicion starts the count anew, so that it is raised once a minute at
/// most.
fn count(superseded: &mut Vec<Instant>, now: Instant) -> Clones {
    superseded.retain(|when| now.duration_since(*when) < SUPERSEDED_WINDOW);
    superseded.push(now);
    if superseded.len() > MAX_SUPERSEDED {
        superseded.clear();
        Clones::Suspected
    } else {
        Clones::Unlikely
    }
}

async fn ask_for_logs(connection: &Connection, lines: u32) -> Result<Vec<String>, LogsError> {
    let lost = |error: WireError| LogsError::Lost(Box::new(error));
    let (mut send, recv) = connection
        .open_bi()
        .await
        .map_err(|error| LogsError::Lost(Box::new(error)))?;
    wire::write(&mut send, &LogRequest { lines })
        .await
        .map_err(lost)?;
    // The stream cannot be finished already.
    drop(send.finish());
    let frame = FrameReader::bulk(recv).expect().await.map_err(lost)?;
    match frame.kind {
        Kind::LOG_LINES => frame
            .message()
            .map(|LogLines { lines: mut said }| {
                said.truncate(usize::try_from(lines).unwrap_or(usize::MAX));
                said
            })
            .map_err(|error| lost(error.into())),
        Kind::REFUSED => {
            let refused: Refused = frame.message().map_err(|error| lost(error.into()))?;
            Err(LogsError::Refused(refused.reason))
        }
        _ => Err(LogsError::Unsupported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_displacement_in_a_minute_is_suspect_and_counting_starts_anew() {
        let start = Instant::now();
        let mut superseded = Vec::new();
        let suspected: Vec<bool> = (0..8u64)
            .map(|second| {
                let now = start + Duration::from_secs(second);
                count(&mut superseded, now) == Clones::Suspected
            })
            .collect();
        let fourth_and_eighth = [false, false, false, true, false, false, false, true];
        assert_eq!(suspected, fourth_and_eighth);
    }

    #[test]
    fn displacements_of_other_minutes_do_not_count() {
        let start = Instant::now();
        let mut superseded = Vec::new();
        for minute in 0..20 {
            let now = start + SUPERSEDED_WINDOW * minute;
            assert_eq!(count(&mut superseded, now), Clones::Unlikely);
        }
    }
}
