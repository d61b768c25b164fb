//! What the parts of a running fake share.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidepool_coordinator::ambient::Moment;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    clock::Clock,
    fault::Faults,
    machines::{Keeper, Machines},
    project::Project,
    rate::Level,
    settings::Settings,
};

/// How long the clockwork sleeps when nothing is planned; a change wakes it.
const IDLE: Duration = Duration::from_hours(1);

pub(super) struct Fake {
    pub(super) settings: Arc<Settings>,
    pub(super) clock: Clock,
    pub(super) faults: Arc<Faults>,
    pub(super) keeper: Keeper,
    /// Whether servers get their addresses from machines.
    pub(super) has_machines: bool,
    project: Mutex<Project>,
    changed: Notify,
}

impl Fake {
    pub(super) fn new(settings: Settings, machines: Option<Arc<dyn Machines>>) -> Self {
        let settings = Arc::new(settings);
        let faults = Arc::new(Faults::new(settings.seed));
        let clock = Clock::start();
        let project = Project::new(settings.clone(), faults.clone(), clock.now());
        let has_machines = machines.is_some();
        let machines = machines.unwrap_or_else(|| Arc::new(super::NoMachines));
        Self {
            settings,
            clock,
            faults,
            keeper: Keeper::new(machines),
            has_machines,
            project: Mutex::new(project),
            changed: Notify::new(),
        }
    }

    /// The Project as it is now.
    pub(super) fn lock(&self) -> MutexGuard<'_, Project> {
        let mut project = self.project.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: time never runs backwards in the Project.
        project.advance(self.clock.now());
        project
    }

    /// The Project for an operation.
    pub(super) fn lock_at(&self, operation: &'static str) -> MutexGuard<'_, Project> {
        let mut project = self.lock();
        project.operation = operation;
        project
    }

    /// Takes one request out of the bucket.
    pub(super) fn take_request(&self) -> Result<Level, Level> {
        let mut project = self.lock();
        let now = project.now;
        project.bucket.take(now)
    }

    /// Something may be due earlier than it was.
    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }

    /// Lets things happen when they are due, whether or not anybody asks, until cancelled. The only
    /// one that speaks to machines, so that they hear everything in order.
    pub(super) async fn run(&self, cancel: CancellationToken) {
        loop {
            let due = self.turn().await;
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.changed.notified() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    async fn turn(&self) -> Instant {
        let (wishes, due) = {
            let mut project = self.lock();
            // What falls due by itself is nobody's operation.
            project.operation = "";
            (std::mem::take(&mut project.wishes), project.next_due())
        };
        for (server, power) in wishes {
            self.keeper.want(server, power).await;
        }
        due.map_or_else(
            || Instant::now() + IDLE,
            |due: Moment| self.clock.instant(due),
        )
    }
}
