//! The one task that writes: looks at the store when the bell rings or a witness has seen something, lets
//! [`plan`](super::plan) decide, and writes that, never faster than Traefik should be told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Routes,
    alarm::Alarm,
    plan::{Change, Plan, plan},
    sink::{Publish, Sink, SinkError, Written},
    tree::{self, Name, Revision, Tree, Wanted},
    witness::{Asked, Seen, Staged},
};
use crate::{
    causes::chain,
    doorbell::{Heard, Listener, Ring},
    store::StoreError,
};

/// A lost ring costs at most this long.
const LOOK_OVER: Duration = Duration::from_secs(10);
/// How long what is known of the tree counts as what is there.
const KNOWN_FOR: Duration = Duration::from_secs(30);
/// Between publications, when Traefik keeps up, and when it does not.
const PACE: Duration = Duration::from_secs(1);
const SLOW_PACE: Duration = Duration::from_secs(5);
/// When Traefik is told again what it has not taken in; far more than it needs, for each time costs it a look
/// at everything.
const REPEAT: Duration = Duration::from_secs(8);
/// Between looks at the store.
const BREATH: Duration = Duration::from_millis(50);
/// After something failed.
const AGAIN: Duration = Duration::from_millis(500);
/// A listing of Traefik's takes less, so that none is under way any more that began this long ago.
const LISTING: Duration = Duration::from_secs(2);

/// Why a turn did not end.
#[derive(Debug, thiserror::Error)]
enum TurnFailed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// What is in Redis, as far as is known.
struct Known {
    tree: Tree,
    /// Until when that counts.
    until: Instant,
}

/// The writer. Owns the connection to Redis.
pub(super) struct Writer<'r> {
    routes: &'r Routes,
    sink: Option<Sink>,
    known: Option<Known>,
    asked: watch::Sender<Asked>,
    seen: Vec<watch::Receiver<Seen>>,
    /// Rung by witnesses.
    stirred: Arc<Notify>,
    /// When routers were staged, if that was here.
    staged: BTreeMap<Name, Revision>,
    /// The last publication, and whether one is due although nothing changes.
    published: Option<Instant>,
    must_tell: bool,
    alarm: Alarm<'r>,
    is_failing: bool,
}

impl<'r> Writer<'r> {
    pub(super) fn new(
        routes: &'r Routes,
        asked: watch::Sender<Asked>,
        seen: Vec<watch::Receiver<Seen>>,
        stirred: Arc<Notify>,
    ) -> Self {
        Self {
            routes,
            sink: None,
            known: None,
            asked,
            seen,
            stirred,
            staged: BTreeMap::new(),
            published: None,
            must_tell: false,
            alarm: Alarm::new(routes, "Redis".to_owned()),
            is_failing: false,
        }
    }

    /// Writes until cancelled.
    pub(super) async fn run(mut self, cancel: &CancellationToken) {
        // The ear is there before the first look, so that no change falls between the two.
        let mut ear = self.routes.doorbell.listen();
        let forever = async {
            loop {
                match self.turn().await {
                    Ok(()) => {
                        self.is_failing = false;
                        self.alarm.look(None).await;
                        self.rest(&mut ear).await;
                    }
                    Err(error) => {
                        self.failed(&error);
                        self.alarm.look(Some("it is not written to".into())).await;
                        sleep(AGAIN).await;
                    }
                }
            }
        };
        // Cut off anywhere, a turn is one that a crash ended: a transaction is whole or not there.
        cancel.run_until_cancelled(forever).await;
    }

    fn failed(&mut self, error: &TurnFailed) {
        if self.is_failing {
            tracing::debug!(error = %chain(error), "routes are still not written");
        } else {
            tracing::warn!(error = %chain(error), "routes are not written");
        }
        self.is_failing = true;
        if matches!(error, TurnFailed::Sink(_)) {
            (self.sink, self.known) = (None, None);
        }
    }

    /// Waits for a reason to look again, and until it may be written again.
    async fn rest(&mut self, ear: &mut Listener) {
        let (now, stirred) = (Instant::now(), Arc::clone(&self.stirred));
        let mut is_due = self.must_tell;
        loop {
            let next = if is_due {
                self.may_publish_at(now)
            } else {
                now + if self.has_seen_all() {
                    LOOK_OVER
                } else {
                    REPEAT
                }
            };
            tokio::select! {
                () = sleep_until(next) => return,
                () = stirred.notified() => is_due = true,
                heard = ear.hear() => match heard {
                    Heard::Ring(Ring::Instance(_) | Ring::Server(_) | Ring::Pool) | Heard::Missed => {
                        is_due = true;
                    }
                    Heard::Ring(Ring::Images | Ring::Events) => {}
                    // The program ends, and with it this task.
                    Heard::Closed => std::future::pending().await,
                },
            }
        }
    }

    fn may_publish_at(&self, turned: Instant) -> Instant {
        let pace = if self.has_seen_all() { PACE } else { SLOW_PACE };
        let publish = self.published.map_or(turned, |at| at + pace);
        publish.max(turned + BREATH)
    }

    /// Whether every Traefik that answers has taken in what is written.
    fn has_seen_all(&self) -> bool {
        let revision = self.asked.borrow().revision;
        let has_seen = |seen: &watch::Receiver<Seen>| {
            let seen = seen.borrow();
            !seen.answers || seen.revision == revision
        };
        self.seen.iter().all(has_seen)
    }

    /// Looks at the store and makes Redis true to it.
    async fn turn(&mut self) -> Result<(), TurnFailed> {
        let destinations = self.routes.store.routes.destinations().await?;
        let wanted = tree::wanted(destinations, self.routes.settings.server_port);
        let is_late = self.published.is_some_and(|at| at.elapsed() >= REPEAT);
        let is_unseen = is_late && !self.has_seen_all();
        let is_old = |known: &Known| known.until <= Instant::now();
        if is_unseen || self.known.as_ref().is_some_and(is_old) {
            self.known = None;
        }
        let mut sink = self.connected().await?;
        let known = match self.known.take() {
            Some(known) => known,
            None => Known {
                tree: sink.read().await?,
                until: Instant::now() + KNOWN_FOR,
            },
        };
        match plan(&wanted, &known.tree, &self.confirmed()) {
            Plan::Rest => {
                if self.must_tell || is_unseen {
                    sink.publish().await?;
                    self.must_tell = false;
                    self.published = Some(Instant::now());
                }
                self.known = Some(known);
            }
            Plan::Change(change) => self.commit(&mut sink, known, change).await?,
            Plan::Restore { frame, rules } => {
                self.restore(&mut sink, known, &frame, rules).await?;
            }
        }
        self.sink = Some(sink);
        self.ask(&wanted);
        Ok(())
    }

    async fn connected(&mut self) -> Result<Sink, SinkError> {
        if let Some(sink) = self.sink.take() {
            return Ok(sink);
        }
        // Traefik may have lost its connection, too, and with it what was told meanwhile.
        self.must_tell = true;
        self.routes.settings.redis.connect().await
    }

    /// Writes and publishes. What is known afterwards is that, or nothing.
    async fn commit(
        &mut self,
        sink: &mut Sink,
        mut known: Known,
        change: Change,
    ) -> Result<(), SinkError> {
        let before = Revision::of_tree(&known.tree);
        let next = self.next_revision(before);
        if sink.write(before, &change, Publish::As(next)).await? == Written::NotTheTree {
            tracing::warn!(
                "the routes in Redis are not those that were written: all are looked at"
            );
            self.must_tell = true;
            return Ok(());
        }
        for key in change
            .set
            .keys()
            .filter(|key| !known.tree.contains_key(*key))
        {
            self.staged
                .extend(tree::router_of(key).map(|name| (name, next)));
        }
        change.apply(&mut known.tree);
        known.tree.insert(Revision::key(), next.rule());
        tracing::debug!(
            set = change.set.len(),
            deleted = change.delete.len(),
            "routes are written"
        );
        self.published = Some(Instant::now());
        self.must_tell = false;
        self.known = Some(known);
        Ok(())
    }

    /// What was lost comes back; afterwards it is read again, as it may have been lost meanwhile.
    async fn restore(
        &mut self,
        sink: &mut Sink,
        mut known: Known,
        frame: &Change,
        rules: Change,
    ) -> Result<(), SinkError> {
        tracing::warn!(
            routes = rules.set.len(),
            "there are no routes in Redis: all are written"
        );
        if !frame.is_empty() {
            let before = Revision::of_tree(&known.tree);
            if sink.write(before, frame, Publish::Nothing).await? == Written::NotTheTree {
                self.must_tell = true;
                return Ok(());
            }
            frame.apply(&mut known.tree);
            sleep(LISTING).await;
        }
        known.until = Instant::now();
        self.commit(sink, known, rules).await
    }

    /// Greater than any before, and in all likelihood than any of another coordinator.
    fn next_revision(&self, before: Option<Revision>) -> Revision {
        let now = u64::try_from(self.routes.clock.now().0).unwrap_or_default();
        let after = before.map_or(0, |revision| revision.0.saturating_add(1));
        Revision(now.max(after))
    }

    /// Staged routers that a Traefik has shown whole, and every one that answers now.
    fn confirmed(&self) -> BTreeSet<Name> {
        let staged = Arc::clone(&self.asked.borrow().staged);
        let seen: Vec<Seen> = self.seen.iter().map(|seen| seen.borrow().clone()).collect();
        let is_confirmed = |name: &Name, at: Revision| {
            let is_whole = |seen: &Seen| seen.whole.get(name) == Some(&at);
            seen.iter().any(is_whole)
                && seen.iter().all(|seen| !seen.answers || is_whole(seen))
                && self.staged_at(name) == at
        };
        staged
            .iter()
            .filter(|(name, router)| is_confirmed(name, router.at))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn staged_at(&self, name: &Name) -> Revision {
        self.staged.get(name).copied().unwrap_or(Revision(0))
    }

    /// Asks the witnesses about what is there now.
    fn ask(&mut self, wanted: &Wanted) {
        let Some(known) = &self.known else { return };
        let staged: BTreeMap<Name, Staged> = tree::staged(wanted, &known.tree)
            .filter_map(|name| {
                let url = wanted.get(name)?.url();
                let at = self.staged_at(name);
                Some((name.clone(), Staged { url, at }))
            })
            .collect();
        self.staged.retain(|name, _| wanted.contains_key(name));
        let revision = Revision::of_tree(&known.tree);
        self.asked.send_if_modified(|asked| {
            if asked.revision == revision && *asked.staged == staged {
                return false;
            }
            if asked.revision != revision {
                asked.since = Instant::now();
            }
            (asked.revision, asked.staged) = (revision, Arc::new(staged));
            true
        });
    }
}
