//! What versions are made ready from, while another one runs, and the task that does it.

use std::sync::{Arc, Mutex, PoisonError};

use tidepool_shared::{document::OpenClawOrder, openclaw_version::OpenClawVersion};
use tokio::{
    sync::Notify,
    task::{JoinSet, spawn_blocking},
};

use super::{Edition, Maker};
use crate::{release::Shelf, upgrade::Saved};

/// The versions, and the disk that they need.
pub(super) struct Stock {
    pub(super) shelf: Shelf,
    pub(super) maker: Maker,
    pub(super) saved: Saved,
}

/// What an order for another version asks of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The version takes it over, and a copy stays.
    Onward,
    /// The version's own, which is kept, comes back.
    Back,
}

impl Stock {
    pub(super) fn edition_of(&self, version: &str) -> anyhow::Result<Edition> {
        let release = self.shelf.find(version)?;
        Ok(Edition::of(&release, &self.maker)?)
    }

    async fn make_ready(
        &self,
        order: &OpenClawOrder,
        held: &OpenClawVersion,
        direction: Direction,
    ) -> anyhow::Result<()> {
        self.shelf.bring(order, held).await?;
        let edition = self.edition_of(order.version.as_str())?;
        edition.runtime.make_ready().await?;
        if direction == Direction::Onward {
            let saved = self.saved.clone();
            spawn_blocking(move || saved.check_room()).await??;
        }
        Ok(())
    }
}

/// What became of a preparation; nothing yet, or why it failed.
type Outcome = Arc<Mutex<Option<Result<(), String>>>>;

/// An order that is being prepared. Dropped, it is given up.
pub(super) struct Preparation {
    pub(super) order: u64,
    outcome: Outcome,
    task: JoinSet<()>,
}

impl Preparation {
    /// Begins; rings when it is over.
    pub(super) fn begin(
        stock: Arc<Stock>,
        order: OpenClawOrder,
        held: OpenClawVersion,
        direction: Direction,
        over: Arc<Notify>,
    ) -> Self {
        let number = order.number;
        let outcome = Outcome::default();
        let told = Arc::clone(&outcome);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let ended = stock.make_ready(&order, &held, direction).await;
            let ended = ended.map_err(|error| format!("{error:#}"));
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
            over.notify_one();
        });
        Self {
            order: number,
            outcome,
            task,
        }
    }

    /// What became of it, if it is over.
    pub(super) fn outcome(&mut self) -> Option<Result<(), String>> {
        let told = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some() {
            return told.clone();
        }
        match self.task.try_join_next() {
            Some(Err(panicked)) => Some(Err(panicked.to_string())),
            Some(Ok(())) | None => None,
        }
    }
}
