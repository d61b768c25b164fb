//! An attempt under way. However it ends, one end is noted for it.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Shared,
    attempt::{Ending, Seen},
    id::AttemptId,
    row::{Ended, Row},
};

/// Notes an end when it is dropped, so that no way out of a request leaves none: not a client that
/// goes away, not a task that is cancelled, not a panic.
#[derive(Debug)]
#[must_use = "the attempt ends, as abandoned, when this is dropped"]
pub struct Entry {
    shared: Arc<Shared>,
    id: AttemptId,
    began: Instant,
    /// Taken by the end.
    open: Option<Ended>,
}

impl Entry {
    pub(super) fn new(shared: Arc<Shared>, id: AttemptId, begun_in: u64, row: Row) -> Self {
        Self {
            shared,
            id,
            began: Instant::now(),
            open: Some(Ended { begun_in, row }),
        }
    }

    pub fn id(&self) -> AttemptId {
        self.id
    }

    /// How long it has been under way.
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Says what is known so far: it stands if this is dropped. In memory only; costs nothing.
    pub fn seen(&mut self, so_far: Seen) {
        if let Some(open) = &mut self.open {
            open.row.see(so_far);
        }
    }

    /// Notes the end.
    pub fn finish(mut self, ending: Ending) {
        if let Some(mut open) = self.open.take() {
            open.row.end(ending);
            self.shared.journal.end(open);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(mut open) = self.open.take() {
            open.row.abandon(self.elapsed_ms());
            self.shared.journal.end(open);
        }
    }
}
