//! Trials: an image is tried on a server of its own before customers' servers are made from it.
//!
//! Somebody wishes for a trial in the store; whoever leads has a server made of the image by the pool's own
//! sagas, waits until it is warm, measures, compares with what is promoted, writes down what came of it, and
//! removes the server. Nobody has to be there meanwhile: a trial that is not done by its time is refused, and
//! a server of this pool without a trial under way is taken out of service, whatever crashed before.
//!
//! The servers are of a pool that no configuration may name, so no customer is given one; to sweep, presence
//! and proxy they are servers like others.

use std::sync::Arc;

use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Action as PoolAction, Calls, Policy, Pool, TURN_INTERVAL, saga::Undone};
use crate::{
    ambient::Moment,
    causes::chain,
    cloud::{Labels, Placement},
    doorbell::Ring,
    model::{Baseline, Conclusion, Figures, PoolKey, Server, Verification},
    store::Transition,
};

pub mod compare;
mod measure;
mod plan;

use plan::{Action, View};

/// The tier of the servers on which images are tried; no pool of customers may have it.
pub const TIER: &str = "image-trial";

/// Begins the names of these servers.
const NAME: &str = "tidepool-trial";

/// The reconciler of trials. It is a pool that makes nothing by itself.
pub struct Trials(Arc<Pool>);

impl Trials {
    /// Of a pool with [`Trials::policy`].
    pub fn new(pool: Pool) -> Self {
        Self(Arc::new(pool))
    }

    /// Places where any pool's servers are made, and the patience of the most patient one. Nothing is wanted.
    pub fn policy(pools: &[Policy]) -> Option<Policy> {
        let mut placements: Vec<Placement> = Vec::new();
        for placement in pools.iter().flat_map(|policy| &policy.placements) {
            if !placements.contains(placement) {
                placements.push(placement.clone());
            }
        }
        let longest = |of: fn(&Policy) -> std::time::Duration| pools.iter().map(of).max();
        Some(Policy {
            pool: PoolKey {
                tier: TIER.to_owned(),
                region: "any".to_owned(),
            },
            placements,
            floor: 0,
            most_idle: 0,
            ceiling: 1,
            boot_deadline: longest(|policy| policy.boot_deadline)?,
            address_rest: longest(|policy| policy.address_rest)?,
            ..pools.first()?.clone()
        })
    }

    /// Runs until cancelled, then waits for the calls that are under way.
    pub async fn run(&self, cancel: CancellationToken) {
        let calls = Calls {
            tasks: TaskTracker::new(),
            cancel: cancel.clone(),
        };
        // What an earlier leader left is looked for once; later this one knows what it made.
        let mut linger = true;
        while !cancel.is_cancelled() {
            match self.turn(linger, &calls).await {
                Ok(left) => linger = left,
                Err(error) => {
                    tracing::error!(error = %chain(&error), "a turn of trials was cut short");
                }
            }
            cancel.run_until_cancelled(sleep(TURN_INTERVAL)).await;
        }
        calls.tasks.close();
        calls.tasks.wait().await;
    }

    /// One turn; whether servers are left to be looked after.
    async fn turn(&self, linger: bool, calls: &Calls) -> Result<bool, Undone> {
        let pool = &self.0;
        let verification = pool.store.open_verification().await?;
        if verification.is_none() && !linger {
            return Ok(false);
        }
        let mut servers = pool.store.servers().await?;
        servers.retain(|server| server.pool == pool.policy.pool);
        let view = View {
            verification: verification.as_ref(),
            servers: &servers,
            busy: pool.busy.servers(),
            now: pool.clock.now(),
        };
        for action in plan::plan(&pool.policy, &view) {
            self.act(action, &servers, calls).await?;
        }
        Ok(verification.is_some() || !servers.is_empty())
    }

    async fn act(
        &self,
        action: Action<'_>,
        servers: &[Server],
        calls: &Calls,
    ) -> Result<(), Undone> {
        match action {
            Action::Begin(verification) => self.begin(verification, calls).await,
            Action::Measure(verification, server) => self.measure(verification, server).await,
            Action::Refuse(verification, why) => self.conclude(verification, &refusal(why)).await,
            Action::Keep(action) => self.0.begin(action, servers, calls).await,
        }
    }

    async fn begin(&self, verification: &Verification, calls: &Calls) -> Result<(), Undone> {
        let pool = &self.0;
        let now = pool.clock.now();
        let placement = match self.place(&verification.image, now).await? {
            Place::Here(placement) => placement,
            Place::Later => return Ok(()),
            Place::Nowhere => {
                let refusal = refusal("no server type of any pool takes this image");
                return self.conclude(verification, &refusal).await;
            }
        };
        let labels = Labels::from([("role".to_owned(), TIER.to_owned())]);
        let (new, mut order) = pool.intention(NAME, placement, labels, now);
        order.image = Some(verification.image.clone());
        let begun = pool.store.begin_verification(verification.id, &new, now);
        if begun.await? == Transition::NotPossible {
            return Ok(());
        }
        pool.tell_of(new.id);
        pool.spawn(calls, new.id, move |pool| async move {
            pool.provision(new.id, &order).await
        });
        Ok(())
    }

    /// The most preferred placement that has room and takes the image.
    async fn place(&self, image: &str, now: Moment) -> Result<Place, Undone> {
        let pool = &self.0;
        let cooling = pool.store.cooling(now).await?;
        let mut found = Place::Nowhere;
        for placement in &pool.policy.placements {
            if !pool.cloud.fits(image, &placement.server_type).await? {
                continue;
            }
            if !cooling.contains(placement) {
                return Ok(Place::Here(placement.clone()));
            }
            found = Place::Later;
        }
        Ok(found)
    }

    async fn measure(&self, verification: &Verification, server: &Server) -> Result<(), Undone> {
        let pool = &self.0;
        let conclusion = match measure::figures(pool, server).await? {
            measure::Measured::NotYet => return Ok(()),
            measure::Measured::Not(why) => refusal(why),
            measure::Measured::Figures(figures) => self.compared(figures, server).await?,
        };
        self.conclude(verification, &conclusion).await
    }

    /// With what a server of the same type would be made from now.
    async fn compared(&self, figures: Figures, server: &Server) -> Result<Conclusion, Undone> {
        let pool = &self.0;
        let promoted = pool.cloud.image(&server.placement.server_type).await?;
        let baseline = match promoted {
            Some(image) => self.figures_of(image).await?,
            None => None,
        };
        let problems = baseline.as_ref().map_or_else(Vec::new, |baseline| {
            compare::regressions(&figures, &baseline.figures)
        });
        Ok(Conclusion {
            figures: Some(figures),
            baseline,
            problems,
        })
    }

    async fn figures_of(&self, image: String) -> Result<Option<Baseline>, Undone> {
        let passed = self.0.store.passed_verification(&image).await?;
        let figures = passed.and_then(|verification| verification.figures);
        Ok(figures.map(|figures| Baseline { image, figures }))
    }

    async fn conclude(
        &self,
        verification: &Verification,
        conclusion: &Conclusion,
    ) -> Result<(), Undone> {
        let pool = &self.0;
        let image = &verification.image;
        tracing::info!(%image, problems = ?conclusion.problems, "a trial has ended");
        let now = pool.clock.now();
        pool.store
            .conclude_verification(verification.id, conclusion, now)
            .await?;
        pool.doorbell.ring(Ring::Events);
        Ok(())
    }
}

/// Nothing was measured.
fn refusal(why: impl Into<String>) -> Conclusion {
    Conclusion {
        figures: None,
        baseline: None,
        problems: vec![why.into()],
    }
}

/// Where a trial's server can be made.
enum Place {
    Here(Placement),
    /// Where it could be there is no room now.
    Later,
    Nowhere,
}
