//! Every step failed, repeated and cut off, forwards and backwards; afterwards nothing is left in the
//! cloud and nothing is missing in the store.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tidepool_shared::{
    document::{GatewayLimits, Generation},
    id::CoordinatorId,
    user_data::Coordinators,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::*;
use crate::{
    ambient::{Chance, ManualClock, Moment},
    api::PoolOutlook,
    cloud::memory::{Call, MemoryCloud, Mishap},
    doorbell::Doorbell,
    model::{Health, Server, ServerReport, sample},
    pool::{Busy, Calls, Forecast, Introduction, Offer, Policy},
    store::{
        EventStore as _, PoolStore as _, SagaStore as _, ServerStore as _, faults::Failure,
        sqlite::SqliteStore,
    },
};

const WANTED: u32 = 2;

/// A pool over a store and a cloud that can both be told to fail.
struct World {
    store: Arc<SqliteStore>,
    cloud: MemoryCloud,
    clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let chance = Arc::new(Chance::from_seed(1));
        let store = SqliteStore::open(&dir.path().join("db"), chance)
            .await
            .unwrap();
        Self {
            store: Arc::new(store),
            cloud: MemoryCloud::default(),
            clock: Arc::new(ManualClock::at(Moment(1_700_000_000_000_000))),
            _dir: dir,
        }
    }

    /// A pool as a new process would have it: nothing remembered.
    fn pool(&self, floor: u32) -> Arc<Pool> {
        let boot = Duration::from_mins(1);
        Arc::new(Pool {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            cloud: Arc::new(self.cloud.clone()),
            doorbell: Doorbell::default(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            chance: Arc::new(Chance::from_os()),
            policy: policy(floor),
            introduction: Introduction {
                coordinators: Coordinators::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1))),
                ca: String::new(),
                proxy: String::new(),
            },
            outlook: PoolOutlook::new(sample::pool(), floor, boot, 2),
            forecast: Forecast::new(boot),
            offer: Offer::default(),
            busy: Busy::default(),
        })
    }

    /// A process takes one turn and ends, in order: what was begun is waited for.
    async fn turn(&self, floor: u32) {
        let (pool, cancel) = (self.pool(floor), CancellationToken::new());
        let calls = Calls {
            tasks: TaskTracker::new(),
            cancel: cancel.clone(),
        };
        // A turn that was cut short is one more that is repeated.
        pool.turn(&calls).await.ok();
        cancel.cancel();
        calls.tasks.close();
        calls.tasks.wait().await;
        self.clock.advance(Duration::from_mins(2));
        self.agents_report().await;
    }

    /// What the agents of all servers that boot would do.
    async fn agents_report(&self) {
        for server in self.servers().await {
            let there = self.cloud.names().contains(&server.name);
            if server.state == ServerState::Booting && there {
                let now = self.clock.now();
                let opened = self
                    .store
                    .open_session(server.id, "2026.9.6", holder(), now);
                // What a failing store did not take in is reported again.
                if let Ok(Some((epoch, _))) = opened.await {
                    let report = warm(epoch);
                    self.store.record_report(server.id, &report, now).await.ok();
                }
            }
        }
    }

    async fn servers(&self) -> Vec<Server> {
        self.store.servers().await.unwrap()
    }

    /// Lets time pass until nothing is to be done, and holds the books against each other.
    async fn settle_with(&self, floor: u32) {
        self.store.faults.heal();
        let wanted = vec![ServerState::Warm; usize::try_from(floor).unwrap()];
        let mut servers = Vec::new();
        for _ in 0..40 {
            self.turn(floor).await;
            servers = self.servers().await;
            if servers.iter().map(|server| server.state).eq(wanted.clone()) {
                break;
            }
        }
        let states: Vec<_> = servers.iter().map(|server| server.state).collect();
        assert_eq!(states, wanted, "{servers:?}");
        let known: BTreeSet<_> = servers.into_iter().map(|server| server.name).collect();
        let there: BTreeSet<_> = self.cloud.names().into_iter().collect();
        assert_eq!(known, there, "store and cloud do not agree");
        let made = self.cloud.made();
        let distinct: BTreeSet<_> = made.iter().collect();
        assert_eq!(made.len(), distinct.len(), "a name was made twice");
    }

    /// A row whose creation was asked for, by somebody who is dead.
    async fn asked_for(&self) -> (ServerId, String) {
        let (id, order) = self.pool(1).intend(sample::placement()).await.unwrap();
        let now = self.clock.now();
        self.store.mark_creating(id, now).await.unwrap();
        (id, order.name)
    }

    /// Destroys everything, as far as it goes.
    async fn retire_all(&self) {
        for server in self.servers().await {
            let now = self.clock.now();
            self.store.retire_unclaimed(server.id, now).await.unwrap();
        }
    }
}

fn holder() -> CoordinatorId {
    CoordinatorId::new(Uuid::from_u128(1))
}

fn policy(floor: u32) -> Policy {
    Policy {
        pool: sample::pool(),
        placements: vec![sample::placement()],
        floor,
        most_idle: floor,
        idle_budget_cents: None,
        hits_per_mille: 995,
        ceiling: 10,
        creating_at_once: 2,
        boot_deadline: Duration::from_mins(15),
        address_rest: Duration::ZERO,
        minimum_idle: Duration::ZERO,
        max_age: Duration::from_hours(1000),
        failure_pause: Duration::from_secs(1),
        halt_after: 50,
        below_target_for: Duration::from_mins(10),
        limits: GatewayLimits::default(),
    }
}

fn warm(epoch: u64) -> ServerReport {
    ServerReport {
        epoch,
        warm: true,
        failed: None,
        served: Generation(0),
        observed: Generation(0),
        health: Health::Ok,
        reasons: Vec::new(),
        gateway_starts: 1,
        steps: Vec::new(),
        rejected: None,
        openclaw: None,
    }
}

const MISHAPS: [Mishap; 4] = [
    Mishap::Lost,
    Mishap::Refused(Fault::Busy),
    Mishap::Refused(Fault::Invalid),
    Mishap::Refused(Fault::NoCapacity),
];

#[tokio::test]
async fn a_call_that_fails_in_any_way_while_servers_are_made_leaves_nothing_behind() {
    for call in [Call::Create, Call::Settle, Call::Find] {
        for mishap in MISHAPS {
            let world = World::new().await;
            world.cloud.mishap(call, mishap);
            world.cloud.mishap(call, mishap);
            world.settle_with(WANTED).await;
        }
    }
}

#[tokio::test]
async fn a_deletion_that_fails_in_any_way_is_repeated_until_it_is_done() {
    for mishap in MISHAPS {
        let world = World::new().await;
        world.settle_with(WANTED).await;
        world.retire_all().await;
        for _ in 0..3 {
            world.cloud.mishap(Call::Delete, mishap);
        }
        world.settle_with(0).await;
    }
}

#[tokio::test]
async fn the_credentials_or_the_limit_refused_hold_the_pool_and_are_told_once() {
    for fault in [Fault::Unauthorized, Fault::LimitReached] {
        let world = World::new().await;
        world.cloud.mishap(Call::Create, Mishap::Refused(fault));
        world.cloud.mishap(Call::Create, Mishap::Refused(fault));
        world.turn(WANTED).await;
        assert!(world.cloud.names().is_empty());
        let standing = world.store.pool_standing(&sample::pool()).await.unwrap();
        assert!(standing.held_until.is_some() && standing.failures == 0);
        world.settle_with(WANTED).await;
        let events = world.store.events_after(0, None, 1000).await.unwrap();
        let held = events.iter().filter(|event| event.kind == "pool.held");
        assert_eq!(held.count(), 1);
    }
}

/// How many writes a life of the pool takes: making, then unmaking everything.
async fn writes_of_a_life() -> usize {
    let world = World::new().await;
    world.settle_with(WANTED).await;
    world.retire_all().await;
    world.settle_with(0).await;
    world.store.faults.writes()
}

#[tokio::test]
async fn a_store_that_fails_at_any_write_loses_nothing() {
    for at in 0..writes_of_a_life().await {
        for failure in [Failure::Refuse, Failure::Lose] {
            let world = World::new().await;
            world.store.faults.fail(at, failure);
            for _ in 0..3 {
                world.turn(WANTED).await;
            }
            world.settle_with(WANTED).await;
            world.retire_all().await;
            world.settle_with(0).await;
        }
    }
}

#[tokio::test]
async fn a_process_stopped_after_any_write_is_continued_by_the_next() {
    for at in 0..writes_of_a_life().await {
        let world = World::new().await;
        world.store.faults.fail(at, Failure::Hang);
        let life = async {
            for _ in 0..3 {
                world.turn(WANTED).await;
            }
            world.retire_all().await;
            for _ in 0..3 {
                world.turn(0).await;
            }
        };
        // Killed at the write that was its last.
        tokio::select! {
            () = life => {}
            () = world.store.faults.hung() => {}
        }
        world.settle_with(WANTED).await;
        world.retire_all().await;
        world.settle_with(0).await;
    }
}

#[tokio::test]
async fn every_step_and_every_undo_may_be_repeated() {
    let world = World::new().await;
    world.settle_with(WANTED).await;
    let pool = world.pool(WANTED);
    for server in world.servers().await {
        for _ in 0..2 {
            pool.recover(server.id, &server.name).await.unwrap();
        }
        // Neither may touch a server that is warm.
        pool.destroy(server.id, &server.name).await.unwrap();
    }
    world.settle_with(WANTED).await;
    let before = world.servers().await;
    world.retire_all().await;
    for server in before {
        for _ in 0..2 {
            pool.destroy(server.id, &server.name).await.unwrap();
        }
    }
    world.settle_with(0).await;
}

#[tokio::test]
async fn a_server_that_a_dead_leader_asked_for_is_waited_for() {
    let world = World::new().await;
    let minute = Duration::from_mins(1);
    world.cloud.appears_within(minute);
    let (pool, (id, name)) = (world.pool(1), world.asked_for().await);
    let early = pool.recover(id, &name).await;
    assert!(matches!(early, Err(Undone::NotYet)), "{early:?}");
    world.cloud.appear(&name);
    pool.recover(id, &name).await.unwrap();
    assert_eq!(world.servers().await[0].state, ServerState::Booting);

    let (late, late_name) = world.asked_for().await;
    world.clock.advance(minute);
    pool.recover(late, &late_name).await.unwrap();
    let row = world.store.server(late).await.unwrap().unwrap();
    assert_eq!(row.state, ServerState::Failed);
}

#[tokio::test]
async fn a_leader_that_slept_makes_nothing_for_a_row_that_was_closed() {
    let world = World::new().await;
    let pool = world.pool(1);
    let (id, order) = pool.intend(sample::placement()).await.unwrap();
    pool.give_up(id, "test", Blame::Nobody).await.unwrap();
    pool.destroy(id, &order.name).await.unwrap();
    pool.provision(id, &order).await.unwrap();
    assert!(world.cloud.made().is_empty());

    // Or it slept between its request and the answer.
    let (id, name) = world.asked_for().await;
    pool.give_up(id, "test", Blame::Nobody).await.unwrap();
    pool.destroy(id, &name).await.unwrap();
    world.cloud.appear(&name);
    pool.recover(id, &name).await.unwrap();
    assert!(world.cloud.names().is_empty());
}

#[tokio::test]
async fn a_cloud_without_time_is_not_asked_again_at_once() {
    let world = World::new().await;
    world
        .cloud
        .mishap(Call::Create, Mishap::Refused(Fault::Busy));
    let pool = world.pool(1);
    let (id, order) = pool.intend(sample::placement()).await.unwrap();
    pool.provision(id, &order).await.unwrap_err();
    let cooling = |at| world.store.cooling(at);
    let now = world.clock.now();
    assert!(cooling(now).await.unwrap().contains(&sample::placement()));
    let later = now.plus(BREATHER);
    assert!(cooling(later).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_log_tells_each_step_from_its_beginning_to_its_end() {
    let world = World::new().await;
    world.settle_with(1).await;
    let id = world.servers().await[0].id;
    world.retire_all().await;
    world.settle_with(0).await;
    let steps = world.store.steps(id).await.unwrap();
    let told: Vec<_> = steps
        .iter()
        .map(|step| format!("{} {}", step.step, step.state.word()))
        .collect();
    let expected = [
        "reserve", "create", "record", "settle", "mark", "delete", "close",
    ]
    .iter()
    .flat_map(|step| [format!("{step} begun"), format!("{step} done")]);
    assert_eq!(told, expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_whose_address_is_trusted_is_not_deleted() {
    let world = World::new().await;
    world.settle_with(1).await;
    let server = world.servers().await.remove(0);
    world
        .pool(1)
        .destroy(server.id, &server.name)
        .await
        .unwrap();
    assert_eq!(world.cloud.names(), [server.name]);
}
