use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::model::sample;

const NOW: Moment = Moment(4_000_000_000);
const TARGET: u32 = 3;

fn here() -> Placement {
    Placement {
        server_type: "small".into(),
        location: "here".into(),
    }
}

fn there() -> Placement {
    Placement {
        location: "there".into(),
        ..here()
    }
}

fn key() -> PoolKey {
    PoolKey {
        tier: "basic".into(),
        region: "eu".into(),
    }
}

fn policy() -> Policy {
    Policy {
        pool: key(),
        placements: vec![here(), there()],
        floor: 1,
        most_idle: 6,
        idle_budget_cents: None,
        hits_per_mille: 995,
        ceiling: 12,
        creating_at_once: 2,
        boot_deadline: Duration::from_mins(5),
        address_rest: Duration::ZERO,
        minimum_idle: Duration::from_mins(10),
        max_age: Duration::from_hours(24),
        failure_pause: Duration::from_secs(10),
        halt_after: 5,
        below_target_for: Duration::from_mins(10),
        limits: GatewayLimits::default(),
    }
}

fn server(number: u128, state: ServerState, since: Moment) -> Server {
    Server {
        name: format!("s{number}"),
        pool: key(),
        placement: here(),
        image: Some("new".into()),
        state,
        created_at: since,
        state_since: since,
        ..sample::server(ServerId::new(Uuid::from_u128(number)))
    }
}

/// What a plan is made from, owned.
#[derive(Debug, Clone)]
struct World {
    servers: Vec<Server>,
    busy: HashSet<ServerId>,
    pending: u32,
    standing: PoolStanding,
    cooling: HashSet<Placement>,
    now: Moment,
}

impl World {
    fn of(servers: Vec<Server>) -> Self {
        Self {
            servers,
            busy: HashSet::new(),
            pending: 0,
            standing: PoolStanding::default(),
            cooling: HashSet::new(),
            now: NOW,
        }
    }

    fn plan(&self, policy: &Policy) -> Vec<Action> {
        let view = View {
            servers: &self.servers,
            busy: &self.busy,
            pending: self.pending,
            target: TARGET,
            standing: &self.standing,
            cooling: &self.cooling,
            images: &HashMap::from([("small".to_owned(), "new".to_owned())]),
            now: self.now,
        };
        plan(policy, &view)
    }

    fn orders(&self, policy: &Policy) -> usize {
        let is_order = |action: &&Action| matches!(action, Action::Order(_));
        self.plan(policy).iter().filter(is_order).count()
    }

    fn count(&self, state: ServerState) -> u32 {
        number(
            self.servers
                .iter()
                .filter(|server| server.state == state)
                .count(),
        )
    }

    /// What the actions lead to when all of them succeed.
    fn play(&mut self, actions: &[Action], next: &mut u128) {
        for action in actions {
            match action {
                Action::Order(_) => {
                    *next += 1;
                    self.servers
                        .push(server(*next, ServerState::Booting, self.now));
                }
                Action::Delete(id) => self.servers.retain(|server| server.id != *id),
                Action::Recover(id) | Action::Fail(id, _) => self.set(*id, ServerState::Failed),
                Action::Retire(id) => self.set(*id, ServerState::Draining),
                Action::Halt => self.standing.halted = true,
                Action::FallBelow => self.standing.below_since = Some(self.now),
                Action::TellBelow => self.standing.told_below = true,
                Action::Reach => {
                    (self.standing.below_since, self.standing.told_below) = (None, false);
                }
            }
        }
    }

    fn set(&mut self, id: ServerId, state: ServerState) {
        for server in self.servers.iter_mut().filter(|server| server.id == id) {
            server.state = state;
            server.state_since = self.now;
        }
    }

    /// Every server on its way arrives, and time passes.
    fn pass(&mut self, while_: Duration) {
        for server in &mut self.servers {
            if server.state == ServerState::Booting {
                server.state = ServerState::Warm;
                server.state_since = self.now;
            }
        }
        self.now = self.now.plus(while_);
    }
}

fn any_state() -> impl Strategy<Value = ServerState> {
    use ServerState::{Booting, Claimed, Creating, Deleting, Draining, Failed, Planned, Warm};
    prop::sample::select(vec![
        Planned, Creating, Booting, Warm, Claimed, Draining, Deleting, Failed,
    ])
}

prop_compose! {
    fn any_world()(
        rows in prop::collection::vec(
            (any_state(), 0i64..4_000_000_000, any::<bool>(), any::<bool>()), 0..16),
        pending in 0u32..20,
    ) -> World {
        let servers = (1u128..).zip(&rows).map(|(number, (state, since, _, is_old))| {
            let image = if *is_old { "old" } else { "new" };
            Server { image: Some(image.into()), ..server(number, *state, Moment(*since)) }
        });
        let mut world = World::of(servers.collect());
        world.pending = pending;
        world.busy = world.servers.iter().zip(&rows).filter(|(_, row)| row.2).map(|(s, _)| s.id).collect();
        world
    }
}

proptest! {
    #[test]
    fn a_claimed_server_is_never_touched(world in any_world()) {
        for action in world.plan(&policy()) {
            let (Action::Recover(id) | Action::Fail(id, _) | Action::Retire(id) | Action::Delete(id)) = action
            else { continue };
            let state = world.servers.iter().find(|server| server.id == id).map(|server| server.state);
            prop_assert!(state.is_some_and(|state| state != ServerState::Claimed));
        }
    }

    #[test]
    fn orders_respect_the_ceiling_and_the_slots(world in any_world()) {
        let orders = world.orders(&policy());
        prop_assert!(orders == 0 || world.servers.len() + orders <= 12);
        let coming = world.servers.iter().filter(|server| COMING.contains(&server.state)).count();
        prop_assert!(orders == 0 || coming + orders <= 2);
    }

    #[test]
    fn a_busy_server_is_left_alone(world in any_world()) {
        for action in world.plan(&policy()) {
            if let Action::Recover(id) | Action::Delete(id) | Action::Fail(id, _) = action {
                prop_assert!(!world.busy.contains(&id));
            }
        }
    }

    #[test]
    fn idle_servers_are_never_taken_below_the_target(mut world in any_world()) {
        let (mut next, policy) = (1000, policy());
        for _ in 0..64 {
            let before = world.count(ServerState::Warm);
            let actions = world.plan(&policy);
            world.play(&actions, &mut next);
            let after = world.count(ServerState::Warm);
            prop_assert!(after == before || after >= TARGET + world.pending);
            world.pass(Duration::from_mins(11));
        }
    }

    #[test]
    fn repeating_the_plan_converges_on_fresh_servers(mut world in any_world()) {
        let (mut next, policy) = (1000, policy());
        (world.busy, world.pending) = (HashSet::new(), 0);
        let kept = world.count(ServerState::Claimed);
        for _ in 0..64 {
            let actions = world.plan(&policy);
            world.play(&actions, &mut next);
            world.pass(Duration::from_mins(11));
        }
        let warm = world.count(ServerState::Warm);
        prop_assert_eq!(world.count(ServerState::Claimed), kept);
        prop_assert_eq!(warm, TARGET.min(12u32.saturating_sub(kept)));
        prop_assert_eq!(number(world.servers.len()), warm + kept);
        // With no room for one more there is nothing to replace an old one with.
        let is_fresh = |server: &Server| {
            server.state != ServerState::Warm || server.image.as_deref() == Some("new")
        };
        prop_assert!(warm + kept == 12 || world.servers.iter().all(is_fresh));
    }
}

#[test]
fn waiting_customers_add_to_the_target() {
    let mut world = World::of(Vec::new());
    world.pending = 5;
    let generous = Policy {
        creating_at_once: 50,
        ..policy()
    };
    assert_eq!(world.orders(&generous), 8);
}

#[test]
fn a_server_that_boots_for_too_long_is_given_up() {
    let world = World::of(vec![server(1, ServerState::Booting, Moment(0))]);
    let id = world.servers[0].id;
    assert!(
        world
            .plan(&policy())
            .contains(&Action::Fail(id, "not warm in time"))
    );
}

#[test]
fn failures_in_a_row_hold_orders_back_for_longer_and_longer_and_then_halt_the_pool() {
    let mut world = World::of(Vec::new());
    let seconds = |s: i64| Moment(NOW.0 - s * 1_000_000);
    for (failures, ago_s, orders) in [(1, 9, 0), (1, 11, 2), (3, 39, 0), (3, 41, 2), (4, 81, 2)] {
        world.standing.failures = failures;
        world.standing.last_failure = Some(seconds(ago_s));
        assert_eq!(
            world.orders(&policy()),
            orders,
            "{failures} failures, {ago_s} s ago"
        );
    }
    world.standing.failures = 5;
    world.standing.last_failure = Some(Moment(0));
    assert_eq!(world.orders(&policy()), 0);
    assert!(world.plan(&policy()).contains(&Action::Halt));
    world.standing.halted = true;
    assert_eq!(world.plan(&policy()), [Action::FallBelow]);
}

#[test]
fn a_paused_pool_orders_and_retires_nothing_but_cleans_up() {
    let mut world = World::of(vec![server(1, ServerState::Draining, Moment(0))]);
    world.standing.paused = true;
    world.pending = 4;
    let id = world.servers[0].id;
    assert_eq!(
        world.plan(&policy()),
        [Action::Delete(id), Action::FallBelow]
    );
}

#[test]
fn an_address_rests_before_its_server_is_deleted() {
    let policy = Policy {
        address_rest: Duration::from_secs(65),
        ..policy()
    };
    let mut world = World::of(vec![
        server(1, ServerState::Draining, Moment(0)),
        server(2, ServerState::Failed, Moment(0)),
    ]);
    world.standing.paused = true;
    world.now = Moment(64_999_999);
    assert_eq!(world.plan(&policy), [Action::FallBelow]);
    world.now = Moment(65_000_000);
    let deleted = world.servers.iter().map(|server| Action::Delete(server.id));
    let expected: Vec<_> = deleted.chain([Action::FallBelow]).collect();
    assert_eq!(world.plan(&policy), expected);
}

#[test]
fn a_held_pool_orders_nothing_until_then() {
    let mut world = World::of(Vec::new());
    world.standing.held_until = Some(NOW.plus(Duration::from_secs(1)));
    assert_eq!(world.orders(&policy()), 0);
    world.now = NOW.plus(Duration::from_secs(1));
    assert_eq!(world.orders(&policy()), 2);
}

#[test]
fn a_full_placement_gives_way_to_the_next_and_none_is_none() {
    let mut world = World::of(Vec::new());
    let places = |world: &World| -> Vec<_> {
        let actions = world.plan(&policy());
        let place = |action| match action {
            Action::Order(placement) => Some(placement),
            _ => None,
        };
        actions.into_iter().filter_map(place).collect()
    };
    assert_eq!(places(&world), [here(), here()]);
    world.cooling.insert(here());
    assert_eq!(places(&world), [there(), there()]);
    world.cooling.insert(there());
    assert_eq!(places(&world), []);
}

#[test]
fn a_young_idle_server_is_not_surplus_and_an_old_one_is() {
    let idle = |since| {
        (1..=5)
            .map(|n| server(n, ServerState::Warm, since))
            .collect()
    };
    assert_eq!(World::of(idle(NOW)).plan(&policy()), []);
    let old = World::of(idle(Moment(0)));
    let ids = [old.servers[0].id, old.servers[1].id].map(Action::Retire);
    assert_eq!(old.plan(&policy()), ids);
}

#[test]
fn an_expired_server_is_retired_once_its_replacement_is_warm() {
    let mut world = World::of((1..=3).map(|n| server(n, ServerState::Warm, NOW)).collect());
    world.servers[1].image = Some("old".into());
    assert_eq!(world.plan(&policy()), [Action::Order(here())]);
    world.servers.push(server(4, ServerState::Booting, NOW));
    assert_eq!(world.plan(&policy()), []);
    world.servers[3].state = ServerState::Warm;
    assert_eq!(world.plan(&policy()), [Action::Retire(world.servers[1].id)]);
}

#[test]
fn a_pool_below_its_target_is_told_once_and_late() {
    let mut world = World::of(Vec::new());
    world.standing.paused = true;
    let mut told = Vec::new();
    for _ in 0..30 {
        let actions = world.plan(&policy());
        world.play(&actions, &mut 1000);
        told.extend(actions);
        world.now = world.now.plus(Duration::from_mins(1));
    }
    assert_eq!(told, [Action::FallBelow, Action::TellBelow]);
}

#[test]
fn the_budget_caps_the_target_but_not_the_floor() {
    let busy: Vec<_> = (0..200).map(|n| Moment(NOW.0 - n * 1_000_000)).collect();
    let boot = Duration::from_secs(90);
    let of = |affordable| target(&policy(), &busy, boot, affordable, NOW);
    assert_eq!([of(100), of(4), of(0)], [6, 4, 1]);
    assert_eq!(target(&policy(), &[], boot, 100, NOW), 1);
}
