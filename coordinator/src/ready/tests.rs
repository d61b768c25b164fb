//! When an instance is given up, and what its steps took.

use super::*;
use crate::{
    ambient::{Chance, ManualClock},
    edge::{Edge, EdgeSettings},
    store::{
        InstanceStore as _,
        conformance::world::{at, claimed},
        sqlite::SqliteStore,
    },
};

/// A readiness whose one instance was claimed 5 seconds after the beginning, on a server that says nothing.
struct World {
    readiness: Readiness,
    clock: Arc<ManualClock>,
    instance: InstanceId,
    _directory: tempfile::TempDir,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let chance = Arc::new(Chance::from_seed(1));
        let path = directory.path().join("store.db");
        let store = SqliteStore::open(&path, Arc::clone(&chance)).await?;
        let instance = claimed(&store, 1).await?.id;
        let store: Arc<dyn Store> = Arc::new(store);
        let clock = Arc::new(ManualClock::at(at(5)));
        let doorbell = Doorbell::default();
        let settings = EdgeSettings {
            listen: ([127, 0, 0, 1], 0).into(),
            ..EdgeSettings::default()
        };
        let edge = Edge::bind(
            settings,
            Arc::clone(&store),
            &doorbell,
            clock.clone(),
            chance,
        );
        Ok(Self {
            readiness: Readiness {
                edge: edge.await?.handle(),
                store,
                doorbell,
                clock: clock.clone(),
            },
            clock,
            instance,
            _directory: directory,
        })
    }

    /// The instance's status after a look by a process that began to look then.
    async fn look(&self, since: Moment) -> anyhow::Result<InstanceStatus> {
        self.readiness.look(self.instance, since).await?;
        let found = self.readiness.store.instance(self.instance).await?;
        found
            .map(|instance| instance.status)
            .ok_or_else(|| anyhow::anyhow!("the instance is gone"))
    }
}

#[tokio::test]
async fn an_instance_that_does_not_start_in_time_fails() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.clock.advance(START_DEADLINE);
    assert_eq!(world.look(at(0)).await?, InstanceStatus::Starting);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.look(at(0)).await?, InstanceStatus::Failed);
    Ok(())
}

#[tokio::test]
async fn time_without_a_coordinator_does_not_count() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.clock.advance(START_DEADLINE * 10);
    let began = world.clock.now();
    assert_eq!(world.look(began).await?, InstanceStatus::Starting);
    world.clock.advance(START_DEADLINE);
    assert_eq!(world.look(began).await?, InstanceStatus::Starting);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.look(began).await?, InstanceStatus::Failed);
    Ok(())
}
