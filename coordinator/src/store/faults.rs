//! A store's writes that fail, or never answer, at a chosen point. For the tests of this crate.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// What becomes of the chosen write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is rolled back, and the caller is told.
    Refuse,
    /// It is committed, and the caller is told that it failed.
    Lose,
    /// It is committed, and neither it nor any later one ever answers: the process was killed there.
    Hang,
}

/// Counts writes and makes one of them fail.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    writes: AtomicUsize,
    due: Mutex<Option<(usize, Failure)>>,
    hung: Notify,
}

impl Faults {
    /// The write of this number, from now on and from 0, fails.
    pub(crate) fn fail(&self, number: usize, failure: Failure) {
        self.writes.store(0, Ordering::SeqCst);
        self.set(Some((number, failure)));
    }

    /// Writes succeed from now on.
    pub(crate) fn heal(&self) {
        self.set(None);
    }

    /// Writes since the beginning, or since a failure was chosen.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    /// Waits for the first write that hangs.
    pub(crate) async fn hung(&self) {
        self.hung.notified().await;
    }

    fn set(&self, due: Option<(usize, Failure)>) {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }

    fn due(&self) -> Option<(usize, Failure)> {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asked before a write is committed.
    pub(crate) fn before_commit(&self) -> sqlx::Result<()> {
        match self.due() {
            Some((number, Failure::Refuse)) if self.writes() == number => {
                self.writes.fetch_add(1, Ordering::SeqCst);
                Err(sqlx::Error::WorkerCrashed)
            }
            _ => Ok(()),
        }
    }

    /// Asked after a write was committed.
    pub(crate) async fn after_commit(&self) -> sqlx::Result<()> {
        let this = self.writes.fetch_add(1, Ordering::SeqCst);
        match self.due() {
            Some((number, Failure::Lose)) if this == number => Err(sqlx::Error::WorkerCrashed),
            Some((number, Failure::Hang)) if this >= number => {
                self.hung.notify_one();
                std::future::pending().await
            }
            _ => Ok(()),
        }
    }
}
