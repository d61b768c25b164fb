//! Connections that may be used again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use url::Url;

use super::transport::Transport;

/// A connection that nobody uses is closed after this. Providers close theirs after a minute or more.
const IDLE: Duration = Duration::from_mins(1);
/// For one provider, on one thread.
const IDLE_MAX: usize = 256;

/// Who is at the other end: the scheme, the host, the port.
pub(super) type Origin = Arc<str>;

pub(super) fn origin(url: &Url) -> Origin {
    url[..url::Position::BeforePath].into()
}

/// The idle connections of a thread, newest last.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<HashMap<Origin, VecDeque<(Transport, Instant)>>>);

impl Idle {
    /// One that still stands, as far as this end has heard.
    pub(super) fn take(&self, origin: &Origin) -> Option<Transport> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = all.get_mut(origin)?;
        while let Some((mut transport, since)) = idle.pop_back() {
            if since.elapsed() < IDLE && transport.is_quiet() {
                return Some(transport);
            }
        }
        None
    }

    /// Keeps one, and closes those that were not used for long, whoever they lead to.
    pub(super) fn put(&self, origin: &Origin, transport: Transport) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, idle| {
            while idle
                .front()
                .is_some_and(|(_, since)| since.elapsed() >= IDLE)
            {
                idle.pop_front();
            }
            !idle.is_empty()
        });
        let idle = all.entry(Arc::clone(origin)).or_default();
        if idle.len() >= IDLE_MAX {
            idle.pop_front();
        }
        idle.push_back((transport, Instant::now()));
    }
}
