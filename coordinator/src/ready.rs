//! Readiness: turns `starting` into `running` once the customer's own URL has answered.
//!
//! The agent's word that nginx was switched is not enough: the coordinator asks once through the edge,
//! over the path that the customer's browser will take. Woken by the bell, so that the claim waits for
//! nothing; also looks at everything on a timer, so that a lost ring costs a second and no instance.

mod steps;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tidepool_shared::{document::Generation, id::InstanceId};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    ambient::{Clock, Moment},
    doorbell::{Doorbell, Heard, Ring},
    edge::EdgeHandle,
    model::{Instance, InstanceStatus},
    store::{Page, Store, StoreError, Transition},
};

use steps::Seen;

/// Every instance that is starting is looked at this often, whatever the bell says.
const TURN_INTERVAL: Duration = Duration::from_secs(1);

/// An instance that has a server and does not answer after this long needs a person.
const START_DEADLINE: Duration = Duration::from_mins(5);

/// Questions through the edge that may be under way at once.
const AT_ONCE: usize = 64;

/// The readiness reconciler.
pub struct Readiness {
    pub store: Arc<dyn Store>,
    pub edge: EdgeHandle,
    pub doorbell: Doorbell,
    pub clock: Arc<dyn Clock>,
}

impl Readiness {
    /// Runs until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let readiness = Arc::new(self);
        let mut bell = readiness.doorbell.listen();
        let mut looks = Looks::since(readiness.clock.now());
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                heard = bell.hear() => match heard {
                    Heard::Ring(Ring::Instance(id)) => looks.begin(&readiness, id),
                    Heard::Ring(_) => {}
                    Heard::Missed | Heard::Closed => readiness.look_at_all(&mut looks).await,
                },
                Some(ended) = looks.tasks.join_next() => looks.end(ended, &readiness),
                () = sleep(TURN_INTERVAL) => readiness.look_at_all(&mut looks).await,
            }
        }
        looks.tasks.shutdown().await;
    }

    async fn look_at_all(self: &Arc<Self>, looks: &mut Looks) {
        let mut starting = HashSet::new();
        let mut page = Page {
            after: None,
            limit: 200,
        };
        loop {
            match self
                .store
                .instances(Some(InstanceStatus::Starting), &page)
                .await
            {
                Ok(instances) => {
                    let Some(last) = instances.last() else {
                        return looks.keep(&starting);
                    };
                    page.after = Some(last.id);
                    for instance in &instances {
                        starting.insert(instance.id);
                        looks.begin(self, instance.id);
                    }
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "list instances");
                    return;
                }
            }
        }
    }

    /// Looks at one instance; does what can be done now.
    async fn look(&self, id: InstanceId, known: Known) -> Result<(), StoreError> {
        let Some(instance) = self.store.instance(id).await? else {
            return Ok(());
        };
        if instance.status != InstanceStatus::Starting {
            return Ok(());
        }
        let Some(server) = instance.server else {
            return Ok(());
        };
        let served = self.store.server(server).await?.map(|found| found.served);
        if served.unwrap_or_default() >= Generation::FIRST {
            let served = self.clock.now();
            match self.edge.verify(&instance).await {
                Ok(_) => {
                    let seen = Seen {
                        committed: known.committed(&instance),
                        routed: self.edge.routed_at(&instance),
                        served,
                        verified: self.clock.now(),
                    };
                    return self.mark_running(&instance, &seen).await;
                }
                Err(error) => tracing::info!(
                    error = &error as &dyn std::error::Error,
                    instance.id = %id,
                    "instance does not answer through the edge yet"
                ),
            }
        }
        self.give_up_if_late(&instance, known.process).await
    }

    async fn mark_running(&self, instance: &Instance, seen: &Seen) -> Result<(), StoreError> {
        let (timings, now) = (steps::steps(instance, seen), seen.verified);
        if self.store.mark_running(instance.id, &timings, now).await? == Transition::Done {
            tracing::info!(instance.id = %instance.id, name = %instance.name, "instance is running");
            self.doorbell.ring(Ring::Instance(instance.id));
            self.doorbell.ring(Ring::Events);
        }
        Ok(())
    }

    /// Time in which no coordinator ran does not count: nobody could have seen it answer.
    async fn give_up_if_late(&self, instance: &Instance, since: Moment) -> Result<(), StoreError> {
        let now = self.clock.now();
        let claimed = instance.claimed_at.unwrap_or(instance.created_at);
        if now.since(claimed.max(since)) > START_DEADLINE {
            let problem = "the server did not answer through the edge in time";
            tracing::error!(instance.id = %instance.id, problem, "instance failed to start");
            self.store
                .mark_instance_failed(instance.id, problem, now)
                .await?;
            self.doorbell.ring(Ring::Instance(instance.id));
            self.doorbell.ring(Ring::Events);
        }
        Ok(())
    }
}

/// Since when this process looks at all, and since when it knows of one instance.
#[derive(Debug, Clone, Copy)]
struct Known {
    process: Moment,
    instance: Moment,
}

impl Known {
    /// When the instance was committed: whoever committed it rang at once. Unknown if that was before
    /// this process listened.
    fn committed(self, instance: &Instance) -> Option<Moment> {
        (self.process <= instance.created_at).then_some(self.instance)
    }
}

/// The looks that are under way: at most one an instance, and one more if it rang meanwhile.
struct Looks {
    since: Moment,
    /// When each instance that may be starting was first heard of.
    heard: HashMap<InstanceId, Moment>,
    tasks: JoinSet<InstanceId>,
    under_way: HashSet<InstanceId>,
    again: HashSet<InstanceId>,
}

impl Looks {
    fn since(since: Moment) -> Self {
        Self {
            since,
            heard: HashMap::new(),
            tasks: JoinSet::new(),
            under_way: HashSet::new(),
            again: HashSet::new(),
        }
    }

    /// Forgets since when it knows of any but these and those that it looks at now.
    fn keep(&mut self, starting: &HashSet<InstanceId>) {
        let under_way = &self.under_way;
        self.heard
            .retain(|id, _| starting.contains(id) || under_way.contains(id));
    }

    fn begin(&mut self, readiness: &Arc<Readiness>, id: InstanceId) {
        let known = Known {
            process: self.since,
            instance: *self
                .heard
                .entry(id)
                .or_insert_with(|| readiness.clock.now()),
        };
        if self.under_way.contains(&id) {
            self.again.insert(id);
        } else if self.tasks.len() < AT_ONCE {
            self.under_way.insert(id);
            let readiness = Arc::clone(readiness);
            self.tasks.spawn(async move {
                if let Err(error) = readiness.look(id, known).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, instance.id = %id, "look at instance");
                }
                id
            });
        }
        // Beyond the bound the timer comes back to it.
    }

    fn end(
        &mut self,
        ended: Result<InstanceId, tokio::task::JoinError>,
        readiness: &Arc<Readiness>,
    ) {
        match ended {
            Ok(id) => {
                self.under_way.remove(&id);
                if self.again.remove(&id) {
                    self.begin(readiness, id);
                }
            }
            Err(error) => {
                tracing::error!(%error, "a look at an instance panicked");
                // Which one is not known any more: the timer looks at all of them.
                self.under_way.clear();
            }
        }
    }
}
