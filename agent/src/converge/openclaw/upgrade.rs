//! The stages of an order for another version, each of which can be begun again after a crash.

use std::sync::{
    Arc, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Context as _;
use tidepool_shared::document::OpenClawOrder;
use time::OffsetDateTime;
use tokio::task::spawn_blocking;

use super::{Edition, OpenClaw, chain};
use crate::{
    runtime::STOP_GRACE,
    upgrade::{
        Journal, JournalFile, KEPT_FOR, Kept, MOST_TRIES, NotSaved, Saved, Stage, Trial, UnderWay,
    },
};

impl OpenClaw {
    pub(super) fn journal(&self) -> MutexGuard<'_, JournalFile> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Journal)) -> anyhow::Result<()> {
        self.journal()
            .change(change)
            .context("write the journal of upgrades")
    }

    /// Looks whether the order can be carried out, with the old version running.
    pub(super) async fn take_order(&self, order: &OpenClawOrder) -> anyhow::Result<()> {
        let to = order.version.to_string();
        if order.version == self.edition().version {
            return self.note(|journal| journal.settle(order.number, None));
        }
        tracing::info!(
            order = order.number,
            version = to,
            "OpenClaw is to be upgraded"
        );
        if let Err(refused) = self.can_run(&to).await {
            return self.give_up(order.number, &format!("{refused:#}"));
        }
        self.note(|journal| {
            journal.under_way = Some(UnderWay {
                order: order.number,
                to,
                stage: Stage::Saving,
                tries: 0,
                why: None,
            });
        })
    }

    async fn can_run(&self, version: &str) -> anyhow::Result<()> {
        let edition = self.edition_of(version)?;
        edition.runtime.make_ready().await?;
        let saved = self.saved.clone();
        spawn_blocking(move || saved.check_room()).await??;
        Ok(())
    }

    fn edition_of(&self, version: &str) -> anyhow::Result<Edition> {
        let release = self.shelf.find(version)?;
        Ok(Edition::of(&release, &self.maker)?)
    }

    fn run_as(&self, edition: Edition) {
        *self.edition.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(edition);
    }

    /// The order is over, and nothing has changed.
    fn give_up(&self, order: u64, why: &str) -> anyhow::Result<()> {
        tracing::error!(order, why, "OpenClaw is not upgraded");
        self.note(|journal| journal.settle(order, Some(why.to_owned())))
    }

    /// Notes that a stage is begun once more; `None` when that was too often.
    fn begin(&self, stage: Stage) -> anyhow::Result<Option<UnderWay>> {
        self.note(|journal| {
            if let Some(under_way) = &mut journal.under_way {
                under_way.tries = under_way.tries.saturating_add(1);
            }
        })?;
        let under_way = self.journal().read().under_way.clone();
        let under_way = under_way
            .filter(|under_way| under_way.stage == stage)
            .context("no order is at this stage")?;
        Ok((under_way.tries <= MOST_TRIES).then_some(under_way))
    }

    fn current(&self) -> anyhow::Result<UnderWay> {
        let under_way = self.journal().read().under_way.clone();
        under_way.context("no order is under way")
    }

    fn enter(&self, stage: Stage, why: Option<String>) -> anyhow::Result<()> {
        self.note(|journal| {
            if let Some(under_way) = &mut journal.under_way {
                under_way.stage = stage;
                under_way.tries = 0;
                under_way.why = why;
            }
        })
    }

    pub(super) async fn save(&self) -> anyhow::Result<()> {
        let Some(under_way) = self.begin(Stage::Saving)? else {
            let order = self.current()?.order;
            return self.give_up(order, "it was cut off while the state was copied");
        };
        let next = match self.edition_of(&under_way.to) {
            Ok(next) => next,
            Err(gone) => return self.give_up(under_way.order, &format!("{gone:#}")),
        };
        self.edition().runtime.stop(STOP_GRACE).await?;
        // A file that the gateway would not take must not meet the next version.
        self.reloader().await?.take_back()?;
        match copied(&self.saved).await {
            Ok(()) => {}
            Err(NotSaved::Stopped) => anyhow::bail!("told to stop"),
            Err(failed @ (NotSaved::Copy(_) | NotSaved::Grown)) => {
                return self.give_up(under_way.order, &chain(&failed));
            }
        }
        // What was kept of an earlier upgrade has been replaced.
        self.note(|journal| journal.kept = None)?;
        self.enter(Stage::Trying, None)?;
        self.run_as(next);
        Ok(())
    }

    pub(super) async fn try_out(&self) -> anyhow::Result<()> {
        let Some(under_way) = self.begin(Stage::Trying)? else {
            let why = "it was cut off while it was on trial".to_owned();
            return self.enter(Stage::Restoring, Some(why));
        };
        let edition = self.edition();
        let outcome = match edition.runtime.start().await {
            Ok(_) => {
                let trial = Trial {
                    runtime: edition.runtime.as_ref(),
                    gateway: &self.gateway,
                    place: &self.place,
                    version: &edition.version,
                    patience: self.deadlines.trial,
                    steady: self.deadlines.steady,
                };
                trial.run().await.map_err(|failing| chain(&failing))
            }
            Err(error) => Err(chain(&error)),
        };
        if let Err(why) = outcome {
            tracing::error!(why, version = under_way.to, "the new OpenClaw goes back");
            return self.enter(Stage::Restoring, Some(why));
        }
        tracing::info!(version = under_way.to, "OpenClaw is upgraded");
        let before = self.version_before()?;
        self.note(|journal| {
            journal.kept = Some(Kept {
                version: before,
                until: now() + KEPT_FOR.as_secs().cast_signed(),
            });
            journal.version = Some(under_way.to);
            journal.settle(under_way.order, None);
        })
    }

    /// The version that the state belonged to when the order came.
    fn version_before(&self) -> anyhow::Result<String> {
        let version = self.journal().read().version.clone();
        let first = self.shelf.first();
        version
            .or_else(|| first.map(|first| first.openclaw_version.clone()))
            .context("the manifest names no version")
    }

    pub(super) async fn restore(&self) -> anyhow::Result<()> {
        let under_way = self.current()?;
        self.edition().runtime.stop(STOP_GRACE).await?;
        let saved = self.saved.clone();
        spawn_blocking(move || saved.put_back())
            .await?
            .context("put the state of before back")?;
        let before = self.edition_of(&self.version_before()?)?;
        let why = under_way.why.unwrap_or_default();
        self.give_up(under_way.order, &why)?;
        self.run_as(before);
        Ok(())
    }

    /// Removes the state of before the last upgrade when its time is over.
    pub(super) async fn forget_old_state(&self) -> anyhow::Result<()> {
        let is_old = |kept: &Kept| kept.until <= now();
        if !self.journal().read().kept.as_ref().is_some_and(is_old) {
            return Ok(());
        }
        let saved = self.saved.clone();
        spawn_blocking(move || saved.forget()).await??;
        self.note(|journal| journal.kept = None)
    }
}

/// Copies on a thread of its own, which ends with this future: nothing may be copied while a gateway that
/// is started meanwhile writes.
async fn copied(saved: &Saved) -> Result<(), NotSaved> {
    let stop = Arc::new(AtomicBool::new(false));
    let _stopped = StopOnDrop(Arc::clone(&stop));
    let saved = saved.clone();
    spawn_blocking(move || saved.save(&stop))
        .await
        .map_err(|_ended| NotSaved::Stopped)?
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is kept for days is kept by the machine's own calendar"
)]
fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}
