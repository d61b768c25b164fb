//! The stages of an order for another version, each of which can be begun again after a crash.

use std::{
    collections::BTreeSet,
    sync::{Arc, MutexGuard, PoisonError, atomic::AtomicBool},
};

use anyhow::Context as _;
use tidepool_shared::{document::OpenClawOrder, manifest::Release};
use time::OffsetDateTime;
use tokio::task::spawn_blocking;

use super::{
    Edition, OpenClaw, chain,
    stock::{Direction, Preparation},
};
use crate::{
    disk::StopOnDrop,
    runtime::{EngineFailed, STOP_GRACE},
    upgrade::{
        Discarded, Journal, JournalFile, KEPT_FOR, Keep, Kept, MOST_TRIES, NotSaved, Saved, Trial,
        UnderWay, UpgradeStage,
    },
};

impl OpenClaw {
    pub(super) fn journal(&self) -> MutexGuard<'_, JournalFile> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn preparation(&self) -> MutexGuard<'_, Option<Preparation>> {
        self.preparation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Journal)) -> anyhow::Result<()> {
        self.journal()
            .change(change)
            .context("write the journal of upgrades")
    }

    /// Prepares an order, with the old version running; begins with it when that is done.
    pub(super) fn take_order(&self, order: &OpenClawOrder) -> anyhow::Result<()> {
        if order.version == self.edition().version {
            *self.preparation() = None;
            return self.note(|journal| journal.settle(order.number, None));
        }
        let direction = self.direction(order);
        match self.prepared(order, direction) {
            None => Ok(()),
            Some(Err(refused)) => {
                *self.preparation() = None;
                self.give_up(order.number, &refused)
            }
            Some(Ok(())) => {
                self.note(|journal| {
                    journal.under_way = Some(UnderWay {
                        order: order.number,
                        to: order.version.to_string(),
                        stage: match direction {
                            Direction::Onward => UpgradeStage::Saving,
                            Direction::Back => UpgradeStage::Restoring,
                        },
                        tries: 0,
                        why: None,
                    });
                })?;
                *self.preparation() = None;
                Ok(())
            }
        }
    }

    /// What became of the order's preparation, which is begun if it is not under way.
    fn prepared(&self, order: &OpenClawOrder, direction: Direction) -> Option<Result<(), String>> {
        let mut preparation = self.preparation();
        match preparation.as_mut() {
            Some(present) if present.order == order.number => present.outcome(),
            Some(_) | None => {
                let version = &order.version;
                tracing::info!(order = order.number, %version, "OpenClaw is to be upgraded");
                *preparation = Some(Preparation::begin(
                    Arc::clone(&self.stock),
                    order.clone(),
                    self.edition().version.clone(),
                    direction,
                    Arc::clone(&self.prepared),
                ));
                None
            }
        }
    }

    /// A version whose own state is kept would refuse what has become of it since.
    fn direction(&self, order: &OpenClawOrder) -> Direction {
        let is_kept = |kept: &Kept| kept.version == order.version.as_str();
        let is_noted = self.journal().read().kept.as_ref().is_some_and(is_kept);
        if is_noted && self.stock.saved.path().exists() {
            Direction::Back
        } else {
            Direction::Onward
        }
    }

    fn run_as(&self, edition: Edition) {
        *self.edition.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(edition);
    }

    /// The order is over, and nothing has changed.
    fn give_up(&self, order: u64, why: &str) -> anyhow::Result<()> {
        tracing::error!(order, why, "OpenClaw is not upgraded");
        self.note(|journal| journal.settle(order, Some(why.to_owned())))
    }

    /// Ends a stage that nobody wants any more.
    pub(super) async fn stop_at(&self, stage: UpgradeStage, why: &str) -> anyhow::Result<()> {
        match stage {
            UpgradeStage::Saving => self.give_up(self.current()?.order, why),
            UpgradeStage::Trying => self.go_back(why).await,
            UpgradeStage::Restoring => Ok(()),
        }
    }

    /// Notes that a stage is begun once more; `None` when that was too often.
    fn begin(&self, stage: UpgradeStage) -> anyhow::Result<Option<UnderWay>> {
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

    fn enter(&self, stage: UpgradeStage, why: Option<String>) -> anyhow::Result<()> {
        self.note(|journal| {
            if let Some(under_way) = &mut journal.under_way {
                under_way.stage = stage;
                under_way.tries = 0;
                under_way.why = why;
            }
        })
    }

    pub(super) async fn save(&self) -> anyhow::Result<()> {
        let Some(under_way) = self.begin(UpgradeStage::Saving)? else {
            let order = self.current()?.order;
            return self.give_up(order, "it was cut off while the state was copied");
        };
        let next = match self.stock.edition_of(&under_way.to) {
            Ok(next) => next,
            Err(gone) => return self.give_up(under_way.order, &format!("{gone:#}")),
        };
        self.edition().runtime.stop(STOP_GRACE).await?;
        // A file that the gateway would not take must not meet the next version.
        self.reloader().await?.take_back()?;
        match copied(&self.stock.saved).await {
            Ok(()) => {}
            Err(NotSaved::Stopped) => anyhow::bail!("told to stop"),
            Err(failed @ (NotSaved::Copy(_) | NotSaved::Grown)) => {
                return self.give_up(under_way.order, &chain(&failed));
            }
        }
        // What was kept of an earlier upgrade is no way back from here on.
        self.note(|journal| journal.kept = None)?;
        self.stock.saved.keep().context("keep the copy")?;
        self.enter(UpgradeStage::Trying, None)?;
        self.run_as(next);
        Ok(())
    }

    pub(super) async fn try_out(&self) -> anyhow::Result<()> {
        let under_way = match self.begin(UpgradeStage::Trying) {
            Ok(Some(under_way)) => under_way,
            Ok(None) => return self.go_back("it was cut off while it was on trial").await,
            // On a full disk, which the way back empties.
            Err(error) => return self.go_back(&format!("{error:#}")).await,
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
            return self.go_back(&why).await;
        }
        tracing::info!(version = under_way.to, "OpenClaw is upgraded");
        let before = self.version_before()?;
        self.note(|journal| {
            journal.kept = Some(Kept {
                version: before,
                until: until(),
            });
            journal.version = Some(under_way.to);
            journal.settle(under_way.order, None);
        })
    }

    async fn go_back(&self, why: &str) -> anyhow::Result<()> {
        tracing::error!(why, "the new OpenClaw goes back");
        // What has filled the disk must not take the room of the reserve, too.
        self.edition().runtime.stop(STOP_GRACE).await?;
        self.stock.saved.release_reserve()?;
        self.enter(UpgradeStage::Restoring, Some(why.to_owned()))
    }

    /// The version that the state belonged to when the order came.
    fn version_before(&self) -> anyhow::Result<String> {
        let version = self.journal().read().version.clone();
        let first = self.stock.shelf.first();
        version
            .or_else(|| first.map(|first| first.openclaw_version.clone()))
            .context("the manifest names no version")
    }

    /// Tried as often as it takes: there is nothing else that could be run on what the state is now.
    pub(super) async fn restore(&self) -> anyhow::Result<()> {
        let under_way = self.current()?;
        let order = under_way.order;
        self.edition().runtime.stop(STOP_GRACE).await?;
        let saved = self.stock.saved.clone();
        spawn_blocking(move || saved.put_back(order))
            .await?
            .context("put the state of before back")?;
        let (version, why) = match under_way.why {
            None => (under_way.to, None),
            Some(why) => (self.version_before()?, Some(why)),
        };
        let (discarded, fate) = self.put_aside(order).await?;
        let failed = why.map(|why| format!("{why}; {fate}"));
        if let Some(why) = &failed {
            tracing::error!(order, why, "OpenClaw is not upgraded");
        } else {
            tracing::info!(order, version, fate, "OpenClaw is back");
        }
        let back = version.clone();
        self.note(|journal| {
            // Only what is not the image's own has to be named.
            if failed.is_none() {
                journal.version = Some(back);
                journal.kept = None;
            }
            journal.discarded = discarded;
            journal.settle(order, failed);
        })?;
        match self.stock.edition_of(&version) {
            Ok(edition) => self.run_as(edition),
            Err(gone) => self.refuse(format!("{gone:#}")),
        }
        Ok(())
    }

    /// What becomes of the state that the one of before took the place of, and a word on it.
    async fn put_aside(&self, order: u64) -> anyhow::Result<(Option<Discarded>, String)> {
        let saved = self.stock.saved.clone();
        let place = saved.discarded(order);
        if !place.try_exists()? {
            return Ok((None, "nothing was written meanwhile".to_owned()));
        }
        if saved.has_margin()? {
            let days = KEPT_FOR.as_secs() / (24 * 60 * 60);
            let fate = format!(
                "what was written meanwhile is in `{}` for {days} days",
                place.display()
            );
            let until = until();
            return Ok((Some(Discarded { order, until }), fate));
        }
        spawn_blocking(move || saved.keep_only(Keep::Copy, None)).await??;
        let fate = "what was written meanwhile is gone, because the disk was full";
        Ok((None, fate.to_owned()))
    }

    /// Removes what nobody needs any more: states whose time is over, versions that are neither run nor kept, and what
    /// was cut off.
    pub(super) async fn sweep(&self) -> anyhow::Result<()> {
        let journal = self.journal().read().clone();
        if journal.under_way.is_some() || self.unusable().is_some() {
            return Ok(());
        }
        let now = now();
        let kept = journal.kept.filter(|kept| kept.until > now);
        let discarded = journal.discarded.filter(|it| it.until > now);
        let number = discarded.as_ref().map(|it| it.order);
        let copy = kept.as_ref().map_or(Keep::Nothing, |_| Keep::Copy);
        let mut versions: BTreeSet<String> = [
            Some(self.edition().version.to_string()),
            kept.as_ref().map(|kept| kept.version.clone()),
        ]
        .into_iter()
        .flatten()
        .collect();
        let is_preparing = self.preparation().is_some();
        if !is_preparing {
            // Before their directories, by which they are found: what does not go now is tried again.
            for release in self.stock.shelf.surplus(&versions)? {
                if let Err(error) = self.discard(&release).await {
                    let version = release.openclaw_version;
                    tracing::warn!(version, error = chain(&error), "this OpenClaw stays");
                    versions.insert(version);
                }
            }
        }
        let stock = Arc::clone(&self.stock);
        spawn_blocking(move || {
            stock.saved.keep_only(copy, number)?;
            if is_preparing {
                return Ok(());
            }
            stock.shelf.keep_only(&versions)
        })
        .await??;
        let is_noted = {
            let noted = self.journal();
            noted.read().kept == kept && noted.read().discarded == discarded
        };
        if is_noted {
            return Ok(());
        }
        self.note(|journal| {
            journal.kept = kept;
            journal.discarded = discarded;
        })
    }
}

impl OpenClaw {
    /// The image of the version that is baked in stays, whatever else is made from it.
    async fn discard(&self, release: &Release) -> Result<(), EngineFailed> {
        let baked = self.stock.shelf.first();
        if baked.is_some_and(|baked| baked.container == release.container) {
            return Ok(());
        }
        self.edition().runtime.discard(release).await
    }
}

/// Copies on a thread of its own, which ends with this future: nothing may be copied while a gateway that
/// is started meanwhile writes.
async fn copied(saved: &Saved) -> Result<(), NotSaved> {
    let stop = Arc::new(AtomicBool::new(false));
    let _stopped = StopOnDrop(Arc::clone(&stop));
    let saved = saved.clone();
    spawn_blocking(move || saved.copy(&stop))
        .await
        .map_err(|_ended| NotSaved::Stopped)?
}

/// What is kept from now on.
fn until() -> i64 {
    now() + KEPT_FOR.as_secs().cast_signed()
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is kept for days is kept by the machine's own calendar"
)]
fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}
