//! Whether a Traefik has taken in what was written: asked of its own API, never concluded from time.
//!
//! The revision shows that everything up to it was read, but for keys that were new while Traefik listed.
//! So a router that was staged is looked at itself, with its service, before it may become live.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    alarm::{self, Alarm, Trouble},
    api::Api,
    tree::{Name, Revision},
};

/// Between looks right after something was written, when that took longer, and when nothing is awaited.
const SOON: Duration = Duration::from_millis(50);
const LATER: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(5);
/// Far above what a Traefik needs that can keep up.
const SOON_FOR: Duration = Duration::from_secs(3);

/// What a witness is asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Of the tree; `None` until it is known.
    pub(super) revision: Option<Revision>,
    /// When it was written.
    pub(super) since: Instant,
    pub(super) staged: Arc<BTreeMap<Name, Staged>>,
}

/// A router that waits to be confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Staged {
    pub(super) url: String,
    /// At which it was written, so that an older confirmation does not count.
    pub(super) at: Revision,
}

/// What a witness has seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seen {
    pub(super) answers: bool,
    pub(super) revision: Option<Revision>,
    /// Staged routers that it has shown whole.
    pub(super) whole: BTreeMap<Name, Revision>,
}

/// One Traefik.
pub(super) struct Witness {
    api: Api,
    asked: watch::Receiver<Asked>,
    seen: watch::Sender<Seen>,
    stirred: Arc<Notify>,
    /// Staged routers that it has not shown whole, and since when that is looked for.
    missing: BTreeMap<Name, (Revision, Instant)>,
}

impl Witness {
    pub(super) fn new(
        api: Api,
        asked: watch::Receiver<Asked>,
        stirred: Arc<Notify>,
    ) -> (Self, watch::Receiver<Seen>) {
        let (seen, receiver) = watch::channel(Seen::default());
        let witness = Self {
            api,
            asked,
            seen,
            stirred,
            missing: BTreeMap::new(),
        };
        (witness, receiver)
    }

    /// Looks until cancelled.
    pub(super) async fn run(mut self, mut alarm: Alarm<'_>, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            let asked = self.asked.borrow_and_update().clone();
            let pause = match asked.revision {
                None => IDLE,
                Some(revision) => {
                    let looked = cancel.run_until_cancelled(self.look(&asked, revision));
                    let Some(trouble) = looked.await else { return };
                    alarm.look(trouble).await;
                    self.pause(&asked)
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = sleep(pause) => {}
                changed = self.asked.changed() => if changed.is_err() { return },
            }
        }
    }

    fn pause(&self, asked: &Asked) -> Duration {
        let seen = self.seen.borrow();
        let is_done = seen.revision == asked.revision
            && asked
                .staged
                .iter()
                .all(|(name, staged)| seen.whole.get(name) == Some(&staged.at));
        if is_done {
            IDLE
        } else if asked.since.elapsed() < SOON_FOR {
            SOON
        } else {
            LATER
        }
    }

    /// Looks once; what is wrong, if anything.
    async fn look(&mut self, asked: &Asked, revision: Revision) -> Option<Trouble> {
        let before = self.seen.borrow().clone();
        let (seen, trouble) = match self.api.router(Revision::ROUTER).await {
            Err(error) => {
                tracing::debug!(%error, "Traefik does not answer");
                // What was whole is so still; one that starts again reads everything.
                let seen = Seen {
                    whole: before.whole.clone(),
                    ..Seen::default()
                };
                (seen, Some("it does not answer".into()))
            }
            Ok(shown) => {
                let shown = shown.and_then(|router| Revision::of_rule(&router.rule));
                let mut seen = Seen {
                    answers: true,
                    revision: shown,
                    whole: before.whole.clone(),
                };
                let trouble = if shown == Some(revision) {
                    seen.whole = self.whole(asked, &before.whole).await;
                    self.overdue(asked, &seen.whole)
                } else {
                    Some("it does not show the routes".into())
                };
                (seen, trouble)
            }
        };
        if seen != before {
            self.seen.send_replace(seen);
            self.stirred.notify_one();
        }
        trouble
    }

    /// Routers that were read and are not in use, or not as they should be, for too long.
    fn overdue(&mut self, asked: &Asked, whole: &BTreeMap<Name, Revision>) -> Option<Trouble> {
        let now = Instant::now();
        let missing = asked
            .staged
            .iter()
            .filter(|(name, staged)| whole.get(*name) != Some(&staged.at));
        let missing = missing.map(|(name, staged)| {
            let known = self.missing.get(name).filter(|(at, _)| *at == staged.at);
            let since = known.map_or(now, |(_, since)| *since);
            (name.clone(), (staged.at, since))
        });
        self.missing = missing.collect();
        let overdue: Vec<Instant> = self
            .missing
            .values()
            .map(|(_, since)| *since)
            .filter(|since| now.duration_since(*since) >= alarm::AFTER)
            .collect();
        let since = overdue.iter().min().copied()?;
        Some(Trouble {
            why: format!("staged routers that it does not take in: {}", overdue.len()).into(),
            since: Some(since),
        })
    }

    /// Of what is staged, what was whole before and what is now.
    async fn whole(
        &self,
        asked: &Asked,
        before: &BTreeMap<Name, Revision>,
    ) -> BTreeMap<Name, Revision> {
        let mut whole = BTreeMap::new();
        for (name, staged) in asked.staged.iter() {
            let is_known = before.get(name) == Some(&staged.at);
            if is_known || self.is_whole(name, staged).await {
                whole.insert(name.clone(), staged.at);
            }
        }
        whole
    }

    async fn is_whole(&self, name: &Name, staged: &Staged) -> bool {
        let name = name.to_string();
        let (router, service) = (self.api.router(&name), self.api.service(&name));
        match (router.await, service.await) {
            (Ok(Some(router)), Ok(Some(service))) => {
                router.is_whole(&name) && service.leads_to(&staged.url)
            }
            _ => false,
        }
    }
}
