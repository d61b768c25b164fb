//! One poller for all open actions, whoever waits for them.
//!
//! Those who wait take turns: whoever holds the turn asks for the actions of all of them at once, the
//! others sleep until theirs has an outcome. So there is no task to own, and one that is cancelled
//! hands its turn on.
//!
//! An action that resolves no more proves nothing, neither good nor bad: its outcome is [`Outcome::Lost`],
//! and the one who waited looks at the thing itself.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{self, watch};

use super::{
    api::{Api, Twice},
    call::{Call, CallFailed},
    code::Meaning,
    wire::{Action, ActionStatus},
};

/// The most ids in one call.
const BATCH: usize = 25;

/// Seconds between two looks, at first.
const FIRST_INTERVAL: u32 = 1;

/// Seconds between two looks at what takes long.
const LONGEST_INTERVAL: u32 = 5;

/// How an action ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// With success or an error.
    Ended(Action),
    /// Hetzner does not know it any more.
    Lost,
}

/// All actions that are waited for.
#[derive(Debug, Default)]
pub(super) struct ActionWaiter {
    state: Mutex<State>,
    /// Held by the one who asks for all.
    turn: sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<u64, Open>,
    /// Looks since there was news, or something new to look for.
    quiet_looks: u32,
}

#[derive(Debug)]
struct Open {
    outcome: watch::Sender<Option<Outcome>>,
    waiting: usize,
}

/// That somebody waits for an action. Dropping it says that they do not any more.
struct Waiting<'a> {
    waiter: &'a ActionWaiter,
    id: u64,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl ActionWaiter {
    /// Waits until this action has an outcome.
    pub(super) async fn wait(&self, api: &Api, id: u64) -> Result<Outcome, CallFailed> {
        let mut waiting = self.register(id);
        loop {
            let known = waiting.outcome.borrow_and_update().clone();
            if let Some(outcome) = known {
                return Ok(outcome);
            }
            tokio::select! {
                biased;
                // It cannot close: the sender lives as long as somebody is registered.
                _ = waiting.outcome.changed() => {}
                looked = self.look(api) => looked?,
            }
        }
    }

    /// Takes a turn: waits, asks once for everything that is open, tells everyone.
    async fn look(&self, api: &Api) -> Result<(), CallFailed> {
        let _turn = self.turn.lock().await;
        let seconds = (FIRST_INTERVAL + self.state().quiet_looks).min(LONGEST_INTERVAL);
        tokio::time::sleep(api.pace().seconds(seconds) + api.jitter(api.pace().seconds(1))).await;
        let ids = self.state().unknown();
        let mut news = false;
        for batch in ids.chunks(BATCH) {
            let found = ask(api, batch).await?;
            for id in batch {
                let outcome = match found.get(id) {
                    Some(action) if action.status == ActionStatus::Running => continue,
                    Some(action) if is_at_an_end(action) => Outcome::Ended(action.clone()),
                    // A status that is newer than this client may still change.
                    Some(_) => continue,
                    None => Outcome::Lost,
                };
                news = true;
                self.tell(*id, outcome);
            }
        }
        let mut state = self.state();
        state.quiet_looks = if news {
            0
        } else {
            state.quiet_looks.saturating_add(1)
        };
        Ok(())
    }

    fn register(&self, id: u64) -> Waiting<'_> {
        let mut state = self.state();
        state.quiet_looks = 0;
        let entry = state.open.entry(id).or_insert_with(|| Open {
            outcome: watch::Sender::new(None),
            waiting: 0,
        });
        entry.waiting += 1;
        Waiting {
            waiter: self,
            id,
            outcome: entry.outcome.subscribe(),
        }
    }

    fn tell(&self, id: u64, outcome: Outcome) {
        if let Some(open) = self.state().open.get(&id) {
            open.outcome.send_replace(Some(outcome));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Those without an outcome yet.
    fn unknown(&self) -> Vec<u64> {
        self.open
            .iter()
            .filter(|(_, open)| open.outcome.borrow().is_none())
            .map(|(id, _)| *id)
            .collect()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.waiter.state();
        if let Some(entry) = state.open.get_mut(&self.id) {
            entry.waiting -= 1;
            if entry.waiting == 0 {
                state.open.remove(&self.id);
            }
        }
    }
}

fn is_at_an_end(action: &Action) -> bool {
    matches!(action.status, ActionStatus::Success | ActionStatus::Error)
}

/// Those of the actions that Hetzner still knows.
async fn ask(api: &Api, ids: &[u64]) -> Result<BTreeMap<u64, Action>, CallFailed> {
    let call = ids
        .iter()
        .fold(Call::get("actions"), |call, id| call.with("id", id));
    let actions: Vec<Action> = match api.call(&call, Twice::IsHarmless).await {
        Ok(mut answer) => answer.part("actions")?,
        Err(error) if error.means(Meaning::NotFound) => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(actions
        .into_iter()
        .map(|action| (action.id, action))
        .collect())
}
