//! When an instance is given up, and what its steps took.

use tidepool_certs::authority::Authority;
use time::OffsetDateTime;

use super::*;
use crate::{
    ambient::{Chance, ManualClock},
    edge::{Edge, EdgeSettings},
    store::{
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
        let authority = Authority::open_or_create(directory.path(), OffsetDateTime::UNIX_EPOCH)?;
        let settings = EdgeSettings {
            listen: ([127, 0, 0, 1], 0).into(),
            ..EdgeSettings::default()
        };
        let edge = Edge::bind(
            settings,
            Arc::clone(&store),
            &doorbell,
            Arc::new(authority),
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
    async fn look(&self, process: Moment) -> anyhow::Result<InstanceStatus> {
        let instance = self.clock.now();
        let known = Known { process, instance };
        self.readiness.look(self.instance, known).await?;
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

/// What each step took when the instance was created at 5 s and these moments were seen, in milliseconds after.
async fn steps_of(
    committed: Option<u64>,
    routed: Option<u64>,
    [served, verified]: [u64; 2],
) -> anyhow::Result<Vec<(String, u64)>> {
    let world = World::start().await?;
    let found = world.readiness.store.instance(world.instance).await?;
    let instance = found.ok_or_else(|| anyhow::anyhow!("no instance"))?;
    let after = |ms: u64| at(5).plus(Duration::from_millis(ms));
    let seen = Seen {
        committed: committed.map(after),
        routed: routed.map(after),
        served: after(served),
        verified: after(verified),
    };
    let steps = steps::steps(&instance, &seen);
    Ok(steps.into_iter().map(|step| (step.name, step.ms)).collect())
}

fn named<const N: usize>(steps: [(&str, u64); N]) -> Vec<(String, u64)> {
    steps.map(|(name, ms)| (name.to_owned(), ms)).to_vec()
}

#[tokio::test]
async fn the_steps_add_up_to_the_total() -> anyhow::Result<()> {
    let steps = steps_of(Some(4), Some(5), [40, 52]).await?;
    let expected = [
        ("claim", 4),
        ("route", 1),
        ("agent", 35),
        ("verify", 12),
        ("total", 52),
    ];
    assert_eq!(steps, named(expected));
    Ok(())
}

#[tokio::test]
async fn a_route_that_came_last_leaves_nothing_to_the_agent() -> anyhow::Result<()> {
    let steps = steps_of(Some(4), Some(45), [40, 52]).await?;
    let expected = [
        ("claim", 4),
        ("route", 41),
        ("agent", 0),
        ("verify", 7),
        ("total", 52),
    ];
    assert_eq!(steps, named(expected));
    Ok(())
}

#[tokio::test]
async fn a_moment_that_was_not_seen_has_no_step() -> anyhow::Result<()> {
    let steps = steps_of(None, None, [40, 52]).await?;
    let expected = [("agent", 40), ("verify", 12), ("total", 52)];
    assert_eq!(steps, named(expected));
    Ok(())
}

#[tokio::test]
async fn a_commit_is_seen_by_whoever_listened_then() -> anyhow::Result<()> {
    let world = World::start().await?;
    let found = world.readiness.store.instance(world.instance).await?;
    let instance = found.ok_or_else(|| anyhow::anyhow!("no instance"))?;
    let known = |process| Known {
        process,
        instance: at(6),
    };
    assert_eq!(known(at(5)).committed(&instance), Some(at(6)));
    assert_eq!(known(at(6)).committed(&instance), None);
    Ok(())
}
