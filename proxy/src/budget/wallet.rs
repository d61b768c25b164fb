//! One instance's grant, and what it is held for.

use std::time::Duration;

use tokio::time::Instant;

use super::Budget;
use crate::limits::Limits;

/// How long an instance is told that its budget is spent without asking the store again.
const TOLD_FOR: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Wallet {
    day: String,
    limits: Limits,
    granted: u64,
    good_until: Option<Instant>,
    /// Requests under way at their estimates, and those that ended and are not in the store at their costs.
    held: u64,
    spent: Option<(Budget, Instant)>,
}

/// Whether an estimate is held now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Yes,
    /// The grant is used up, or too old: the store knows whether there is more.
    Ask,
    Spent(Budget),
}

impl Wallet {
    /// What was granted of another day's budget, or of another budget, is worth nothing.
    pub(super) fn renew(&mut self, limits: Limits, day: String) {
        if self.day != day || self.limits != limits {
            *self = Self {
                day,
                limits,
                held: self.held,
                ..Self::default()
            };
        }
    }

    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Something must be left, not the whole estimate: a small budget may be used to its end.
    pub(super) fn try_hold(&mut self, estimate: u64, now: Instant) -> Held {
        if let Some((budget, at)) = self.spent
            && now < at + TOLD_FOR
        {
            return Held::Spent(budget);
        }
        let is_good = self.good_until.is_some_and(|until| now < until);
        if !is_good || self.held >= self.granted {
            return Held::Ask;
        }
        self.held = self.held.saturating_add(estimate);
        Held::Yes
    }

    pub(super) fn granted(&mut self, microcents: u64, good_until: Instant) {
        self.granted = microcents;
        self.good_until = Some(good_until);
        self.spent = None;
    }

    pub(super) fn spent(&mut self, budget: Budget) {
        self.spent = Some((budget, Instant::now()));
    }

    /// What was reserved and not spent may be there for others.
    pub(super) fn settle(&mut self, reserved: u64, cost: u64) {
        if cost < reserved {
            self.spent = None;
        }
        self.held = self.held.saturating_sub(reserved).saturating_add(cost);
    }

    /// A row that cost so much is in the store, and the store has taken it off the grant.
    pub(super) fn written(&mut self, cost: u64) {
        self.held = self.held.saturating_sub(cost);
        self.granted = self.granted.saturating_sub(cost);
    }

    /// As the store has it.
    pub(super) fn left(&mut self, microcents: u64) {
        self.granted = microcents;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(day: u64) -> Limits {
        Limits {
            day_microcents: Some(day),
            ..Limits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_is_held_settled_and_spent() {
        let mut wallet = Wallet::default();
        wallet.renew(limits(100), "2026-11-27".into());
        assert_eq!(wallet.try_hold(60, Instant::now()), Held::Ask);
        wallet.granted(100, Instant::now() + Duration::from_mins(1));
        assert_eq!(wallet.try_hold(60, Instant::now()), Held::Yes);
        assert_eq!(
            wallet.try_hold(60, Instant::now()),
            Held::Yes,
            "40 are left"
        );
        assert_eq!(wallet.try_hold(1, Instant::now()), Held::Ask);
        wallet.settle(60, 10);
        assert_eq!(wallet.held(), 70);
        wallet.written(10);
        assert_eq!(wallet.try_hold(5, Instant::now()), Held::Yes, "60 of 90");
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(wallet.try_hold(5, Instant::now()), Held::Ask, "too old");
    }

    #[tokio::test(start_paused = true)]
    async fn another_day_or_another_budget_needs_another_grant() {
        let mut wallet = Wallet::default();
        wallet.renew(limits(100), "2026-11-27".into());
        wallet.granted(100, Instant::now() + Duration::from_mins(1));
        wallet.spent(Budget::Day);
        assert_eq!(wallet.try_hold(1, Instant::now()), Held::Spent(Budget::Day));
        wallet.renew(limits(200), "2026-11-27".into());
        assert_eq!(wallet.try_hold(1, Instant::now()), Held::Ask);
        wallet.granted(100, Instant::now() + Duration::from_mins(1));
        wallet.renew(limits(200), "2026-11-28".into());
        assert_eq!(wallet.try_hold(1, Instant::now()), Held::Ask);
    }
}
