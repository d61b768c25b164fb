//! The board: where loops write what they see, and the link reads the latest [`View`].
//!
//! Each part may have one trouble at a time; health is the worst of them, and the reasons are all of them.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use tidepool_shared::{
    document::Generation,
    message::{Health, Phase, Step},
};
use tokio::sync::watch;

use crate::desk::View;

/// A report holds at most so many.
const MAX_STEPS: usize = 16;
/// A reason may quote a program; people read this much.
const MAX_REASON_CHARS: usize = 300;

/// What can be in trouble by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The gateway is not there or does not answer.
    Gateway,
    /// Another version takes its place.
    Upgrade,
    /// nginx does not serve what it should.
    Nginx,
    /// The packet filter is not told what the gateway may reach.
    Networks,
    /// The last attempt at something failed and will be repeated.
    Attempt,
    /// The customer's configuration was refused.
    Config,
    /// The gateway may take more than its tier allows.
    Limits,
}

/// Shared by the loops of one agent.
#[derive(Debug)]
pub struct Board {
    view: watch::Sender<View>,
    troubles: Mutex<Troubles>,
}

#[derive(Debug, Default)]
struct Troubles {
    by_part: BTreeMap<Part, (Health, String)>,
    /// Before the gateway has answered once nobody knows how it is.
    has_answered: bool,
}

impl Board {
    pub fn new(first: View) -> Self {
        Self {
            view: watch::Sender::new(first),
            troubles: Mutex::default(),
        }
    }

    pub fn subscribe(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    pub fn served(&self) -> Generation {
        self.view.borrow().served
    }

    /// Changes the view; readers are woken only by a difference.
    pub fn change(&self, change: impl FnOnce(&mut View)) {
        self.view.send_if_modified(|view| {
            let before = view.clone();
            change(view);
            *view != before
        });
    }

    /// How far the server is. A claimed server stays claimed; one that gave up goes on trying, but
    /// has given up until it is warm.
    pub fn phase(&self, phase: Phase) {
        let trying = matches!(phase, Phase::Starting | Phase::WarmingUp);
        self.change(|view| match view.phase {
            Phase::Claimed => {}
            Phase::Failed if trying => {}
            Phase::Starting | Phase::WarmingUp | Phase::Warm | Phase::Failed => view.phase = phase,
        });
    }

    /// Notes how long a step took. A step of the same name is replaced.
    pub fn step(&self, name: &str, took: Duration) {
        let ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        self.change(|view| {
            view.steps.retain(|step| step.name != name);
            view.steps.push(Step {
                name: name.to_owned(),
                ms,
            });
            let surplus = view.steps.len().saturating_sub(MAX_STEPS);
            view.steps.drain(..surplus);
        });
    }

    /// The gateway answers.
    pub fn gateway_answers(&self) {
        self.amend(|troubles| {
            troubles.has_answered = true;
            troubles.by_part.remove(&Part::Gateway);
        });
    }

    /// There is none, as is wanted: nobody knows how it would be.
    pub fn gateway_rests(&self) {
        self.amend(|troubles| {
            troubles.has_answered = false;
            troubles.by_part.remove(&Part::Gateway);
        });
    }

    /// A part is in trouble, which makes the server this unwell.
    pub fn trouble(&self, part: Part, health: Health, reason: &str) {
        let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
        self.amend(|troubles| {
            troubles.by_part.insert(part, (health, reason));
        });
    }

    /// A part is well again.
    pub fn well(&self, part: Part) {
        self.amend(|troubles| {
            troubles.by_part.remove(&part);
        });
    }

    fn amend(&self, amend: impl FnOnce(&mut Troubles)) {
        let (health, reasons) = {
            // A poisoned lock means that a loop panicked; its writes are single assignments.
            let mut troubles = self
                .troubles
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            amend(&mut troubles);
            troubles.summary()
        };
        self.change(|view| {
            view.health = health;
            view.reasons = reasons;
        });
    }
}

impl Troubles {
    fn summary(&self) -> (Health, Vec<String>) {
        let reasons = self.by_part.values().map(|(_, reason)| reason.clone());
        let worst = self.by_part.values().map(|(health, _)| *health);
        let well = if self.has_answered {
            Health::Ok
        } else {
            Health::Unknown
        };
        let health = worst.max_by_key(|health| severity(*health)).unwrap_or(well);
        (health, reasons.collect())
    }
}

const fn severity(health: Health) -> u8 {
    match health {
        Health::Ok => 0,
        Health::Unknown => 1,
        Health::Degraded => 2,
        Health::Down => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_the_worst_trouble_and_ok_when_all_are_gone() {
        let board = Board::new(View::default());
        let view = board.subscribe();
        assert_eq!(view.borrow().health, Health::Unknown);
        board.gateway_answers();
        assert_eq!(view.borrow().health, Health::Ok);
        board.trouble(Part::Config, Health::Degraded, "refused");
        board.trouble(Part::Gateway, Health::Down, "gone");
        assert_eq!(view.borrow().health, Health::Down);
        assert_eq!(view.borrow().reasons, ["gone", "refused"]);
        board.gateway_answers();
        assert_eq!(view.borrow().health, Health::Degraded);
        board.well(Part::Config);
        assert_eq!(view.borrow().health, Health::Ok);
    }

    #[test]
    fn a_claimed_server_stays_claimed_and_readers_hear_of_differences_only() {
        let board = Board::new(View::default());
        let mut view = board.subscribe();
        board.phase(Phase::Claimed);
        view.borrow_and_update();
        board.phase(Phase::Warm);
        board.well(Part::Nginx);
        assert!(!view.has_changed().unwrap());
    }

    #[test]
    fn steps_are_bounded_and_told_once() {
        let board = Board::new(View::default());
        for round in 0..40u32 {
            board.step(&format!("s{}", round % 20), Duration::from_millis(5));
        }
        assert_eq!(board.subscribe().borrow().steps.len(), MAX_STEPS);
    }
}
