//! Budgets: what instances may spend on the operator's keys in a day and in a month.
//!
//! The store holds the truth: what was spent, in the same transaction as the rows that say so, and what
//! is reserved. A proxy reserves a part of what is left, a *grant*, and lets requests begin as long as
//! those under way, at their estimates, and those that ended and are not yet written, at their costs,
//! are less than the grant. So a request waits for the store only when a grant is used up, and what is
//! spent too much is at most what the last requests cost more than there was left. **It fails closed**:
//! what has a budget, and no grant that the store confirmed within [`store::GOOD_FOR`], is not begun.
//!
//! A proxy that dies leaves its grants to run out; what it spent is in its journal.

mod period;
mod store;
mod wallet;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tidepool_shared::{database_url::DatabaseUrl, id::InstanceId};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, timeout},
};

pub(crate) use self::period::{day_of, month_of};
use self::{
    store::{Grants, Wanted},
    wallet::{Held, Wallet},
};
use crate::{directory::Customer, limits::Limits};

/// For a grant.
const PATIENCE: Duration = Duration::from_secs(2);
/// Wallets that are remembered; more than that, and empty ones are forgotten.
const REMEMBERED: usize = 100_000;

/// All instances' budgets.
#[derive(Debug)]
pub struct Budgets {
    wallets: Mutex<HashMap<InstanceId, Wallet>>,
    /// Held while the store is changed and what came of it is noted here: the two must not be mixed up.
    grants: AsyncMutex<Grants>,
    holder: String,
}

/// A budget that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    Day,
    Month,
}

/// Why nothing was reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReserved {
    Spent(Budget),
    /// The store does not say.
    Unknown,
}

/// What an instance spent, and what is left of this proxy's grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) instance: InstanceId,
    pub(crate) microcents: u64,
}

/// What one attempt may cost, until it is known. Dropped, it cost nothing: there is no row.
#[derive(Debug)]
pub struct Reservation {
    budgets: Arc<Budgets>,
    instance: InstanceId,
    microcents: u64,
    cost: u64,
}

impl Budgets {
    /// `holder` names this run of this process.
    pub fn of(database: &DatabaseUrl, holder: &str) -> sqlx::Result<Self> {
        Ok(Self {
            wallets: Mutex::default(),
            grants: AsyncMutex::new(Grants::of(database)?),
            holder: holder.to_owned(),
        })
    }

    /// Names this run in the rows of the ledger.
    pub(crate) fn holder(&self) -> &str {
        &self.holder
    }

    /// Reserves an estimate. `None`: there is no budget.
    pub async fn reserve(
        self: &Arc<Self>,
        customer: &Customer,
        estimate: u64,
    ) -> Result<Option<Reservation>, NotReserved> {
        if !customer.limits.limit_spending() {
            return Ok(None);
        }
        if !self.try_hold(customer, estimate)? {
            timeout(PATIENCE, self.ask(customer, estimate))
                .await
                .unwrap_or_else(|_| {
                    tracing::error!(
                        "the store does not answer: requests with a budget are refused"
                    );
                    Err(NotReserved::Unknown)
                })?;
        }
        Ok(Some(Reservation {
            budgets: Arc::clone(self),
            instance: customer.instance,
            microcents: estimate,
            cost: 0,
        }))
    }

    async fn ask(&self, customer: &Customer, estimate: u64) -> Result<(), NotReserved> {
        let mut grants = self.grants.lock().await;
        // Whoever was before may have brought enough.
        if self.try_hold(customer, estimate)? {
            return Ok(());
        }
        let now = now();
        let wanted = self.with(customer, |wallet| Wanted {
            instance: customer.instance,
            limits: customer.limits,
            microcents: wallet
                .held()
                .saturating_add(ahead(customer.limits, estimate)),
        });
        let asked = Instant::now();
        let granted = grants
            .grant(&wanted, &self.holder, now)
            .await
            .map_err(|error| {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::error!(error, "requests with a budget are refused");
                NotReserved::Unknown
            })?;
        self.with(customer, |wallet| {
            wallet.granted(granted.microcents, asked + store::GOOD_FOR);
            if wallet.try_hold(estimate, asked) == Held::Yes {
                return Ok(());
            }
            wallet.spent(granted.tightest);
            Err(NotReserved::Spent(granted.tightest))
        })
    }

    /// Whether the wallet had it.
    fn try_hold(&self, customer: &Customer, estimate: u64) -> Result<bool, NotReserved> {
        self.with(customer, |wallet| {
            match wallet.try_hold(estimate, Instant::now()) {
                Held::Yes => Ok(true),
                Held::Ask => Ok(false),
                Held::Spent(budget) => Err(NotReserved::Spent(budget)),
            }
        })
    }

    /// Does something with the wallet of this day and these limits.
    fn with<T>(&self, customer: &Customer, with: impl FnOnce(&mut Wallet) -> T) -> T {
        let mut wallets = self.wallets.lock().unwrap_or_else(PoisonError::into_inner);
        if wallets.len() > REMEMBERED {
            wallets.retain(|_, wallet| wallet.held() > 0);
        }
        let wallet = wallets.entry(customer.instance).or_default();
        wallet.renew(customer.limits, day_of(now()));
        with(wallet)
    }

    /// Runs what writes rows, and notes what it wrote: `ended` are the costs of rows with a
    /// reservation, and `left` what the store says that is left of our grants.
    pub(crate) async fn while_writing<E>(
        &self,
        ended: &[Written],
        write: impl Future<Output = Result<Vec<Written>, E>>,
    ) -> Result<(), E> {
        let _order = self.grants.lock().await;
        let left = write.await?;
        let mut wallets = self.wallets.lock().unwrap_or_else(PoisonError::into_inner);
        for row in ended {
            if let Some(wallet) = wallets.get_mut(&row.instance) {
                wallet.written(row.microcents);
            }
        }
        for grant in left {
            if let Some(wallet) = wallets.get_mut(&grant.instance) {
                wallet.left(grant.microcents);
            }
        }
        Ok(())
    }

    fn settle(&self, instance: InstanceId, reserved: u64, cost: u64) {
        let mut wallets = self.wallets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wallet) = wallets.get_mut(&instance) {
            wallet.settle(reserved, cost);
        }
    }
}

impl Reservation {
    /// Now it is known. The cost stays reserved until its row is in the store.
    pub(crate) fn settle(mut self, cost: u64) {
        self.cost = cost;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budgets
            .settle(self.instance, self.microcents, self.cost);
    }
}

/// Enough for this request and some more: a fiftieth of the tightest budget.
fn ahead(limits: Limits, estimate: u64) -> u64 {
    let day = limits.day_microcents.unwrap_or(u64::MAX);
    let month = limits.month_microcents.unwrap_or(u64::MAX);
    estimate.max(day.min(month) / 50).max(1)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a budget is of a day of the calendar"
)]
fn now() -> SystemTime {
    SystemTime::now()
}
