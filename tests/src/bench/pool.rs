//! How many customers find a warm server, and what idle servers cost: the planner of the product played
//! against arrivals of recorded shape, side by side with the fixed two idle servers of the first design.
//!
//! The shapes (customers an hour over the day) are a quiet day, a launch day whose noon brings fifty
//! times as many, and a day that is all night. Each follows a quiet day that the pool remembers. Boots
//! take 75 to 150 seconds. Idle cost is what servers cost until they are claimed or removed, boots
//! included, in started hours for those that nobody claimed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidepool_coordinator::{
    ambient::Moment,
    model::{PoolStanding, Server, ServerState, sample},
    pool::plan::{self, Action, Policy, View},
};
use tidepool_shared::{document::GatewayLimits, id::ServerId};
use uuid::Uuid;

use super::Figure;

const DAY_S: i64 = 24 * 3600;

/// Time advances by this much.
const STEP_S: i64 = 5;

/// The last so many boots are what the pool expects the next to take, as in the product.
const BOOTS: usize = 8;

/// How to play it.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Days of each shape
    #[arg(long, default_value_t = 40)]
    days: u32,
    /// What the first day's chance begins with
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Customers an hour at a second of the day.
type Shape = fn(i64) -> f64;

fn quiet(second: i64) -> f64 {
    match second / 3600 {
        0..7 => 0.2,
        7..9 | 21..24 => 1.0,
        9..12 | 18..21 => 3.0,
        _ => 2.0,
    }
}

fn launch(second: i64) -> f64 {
    match second / 3600 {
        12 => quiet(second) * 50.0,
        13..16 => quiet(second) * 10.0,
        _ => quiet(second),
    }
}

fn night(_second: i64) -> f64 {
    0.2
}

/// What a day came to.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    arrivals: u32,
    warm: u32,
    idle_s: f64,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.arrivals += other.arrivals;
        self.warm += other.warm;
        self.idle_s += other.idle_s;
    }

    fn warm_share(self) -> f64 {
        f64::from(self.warm) / f64::from(self.arrivals.max(1))
    }
}

/// Plays all shapes under both policies and prints the figures.
pub fn run(arguments: &Arguments) -> std::io::Result<()> {
    for (name, shape) in [
        ("quiet_day", quiet as Shape),
        ("launch_day", launch),
        ("night", night),
    ] {
        let (mut ours, mut fixed) = (Outcome::default(), Outcome::default());
        for day in 0..arguments.days {
            let seed = arguments.seed.wrapping_add(day.into());
            ours.add(play(shape, adaptive(), seed));
            fixed.add(play(shape, fixed_two(), seed));
        }
        let budgets = match name {
            "quiet_day" => [Some(0.995), Some(1.0)],
            _ => [None, None],
        };
        let figure = |suffix: &str, value, budget| Figure {
            bench: "pool",
            name: format!("{name}_{suffix}"),
            value,
            unit: "share",
            budget,
        };
        figure("warm_share", ours.warm_share(), budgets[0]).print_at_least()?;
        figure("warm_share_fixed_two", fixed.warm_share(), None).print_at_least()?;
        let ratio = ours.idle_s / fixed.idle_s.max(1.0);
        figure("idle_cost_ratio", ratio, budgets[1]).print()?;
    }
    Ok(())
}

fn adaptive() -> Policy {
    Policy {
        floor: 1,
        most_idle: 40,
        ..fixed_two()
    }
}

fn fixed_two() -> Policy {
    Policy {
        pool: sample::pool(),
        placements: vec![sample::placement()],
        floor: 2,
        most_idle: 2,
        hits_per_mille: 990,
        idle_budget_cents: None,
        ceiling: u32::MAX,
        creating_at_once: 5,
        boot_deadline: Duration::from_mins(15),
        address_rest: Duration::ZERO,
        minimum_idle: Duration::from_hours(1),
        max_age: Duration::from_hours(7 * 24),
        failure_pause: Duration::from_secs(10),
        halt_after: 5,
        below_target_for: Duration::from_mins(10),
        limits: GatewayLimits::default(),
    }
}

/// A pool that is played: its servers, its customers, its books.
struct Game {
    policy: Policy,
    now_s: i64,
    servers: Vec<Server>,
    warm_at: Vec<(ServerId, i64)>,
    boots: VecDeque<Duration>,
    arrivals: Vec<Moment>,
    pending: u32,
    next: u128,
    rng: StdRng,
    books: Outcome,
}

fn moment(second: i64) -> Moment {
    Moment(second * 1_000_000)
}

/// A quiet day that is remembered, then the day of this shape, which counts.
fn play(shape: Shape, policy: Policy, seed: u64) -> Outcome {
    let mut game = Game {
        policy,
        now_s: 0,
        servers: Vec::new(),
        warm_at: Vec::new(),
        boots: VecDeque::from([Duration::from_secs(90)]),
        arrivals: Vec::new(),
        pending: 0,
        next: 0,
        rng: StdRng::seed_from_u64(seed),
        books: Outcome::default(),
    };
    // Customers come by a generator of their own: the same ones whatever the pool does.
    let mut customers = StdRng::seed_from_u64(seed ^ 0x7469_6465);
    while game.now_s < 2 * DAY_S {
        let rate = if game.now_s < DAY_S { quiet } else { shape }(game.now_s % DAY_S);
        let chance = rate * f64::from(i32::try_from(STEP_S).unwrap_or(1)) / 3600.0;
        if game.now_s == DAY_S {
            game.books = Outcome::default();
        }
        game.step(customers.random_bool(chance.min(1.0)));
    }
    game.books
}

impl Game {
    fn step(&mut self, somebody_comes: bool) {
        self.now_s += STEP_S;
        self.boot();
        if somebody_comes {
            self.arrive();
        }
        let memory = moment(self.now_s - 25 * 3600);
        self.arrivals.retain(|at| *at > memory);
        self.turn();
        let idle = u32::try_from(self.servers.len()).unwrap_or(u32::MAX);
        self.books.idle_s += f64::from(idle) * f64::from(i32::try_from(STEP_S).unwrap_or(1));
    }

    /// Servers whose time has come become warm; who waits gets them.
    fn boot(&mut self) {
        let now_s = self.now_s;
        let ready: HashSet<_> = self
            .warm_at
            .iter()
            .filter(|(_, at)| *at <= now_s)
            .map(|(id, _)| *id)
            .collect();
        self.warm_at.retain(|(_, at)| *at > now_s);
        for server in self
            .servers
            .iter_mut()
            .filter(|server| ready.contains(&server.id))
        {
            server.state = ServerState::Warm;
            server.state_since = moment(now_s);
            self.boots
                .push_back(server.state_since.since(server.created_at));
        }
        while self.boots.len() > BOOTS {
            self.boots.pop_front();
        }
        while self.pending > 0 && self.claim() {
            self.pending -= 1;
        }
    }

    fn arrive(&mut self) {
        self.arrivals.push(moment(self.now_s));
        self.books.arrivals += 1;
        if self.pending == 0 && self.claim() {
            self.books.warm += 1;
        } else {
            self.pending += 1;
        }
    }

    /// Takes the oldest warm server; a claimed one is the customer's to pay.
    fn claim(&mut self) -> bool {
        let warm = self
            .servers
            .iter()
            .position(|server| server.state == ServerState::Warm);
        warm.map(|index| self.servers.remove(index)).is_some()
    }

    fn turn(&mut self) {
        let sum: Duration = self.boots.iter().sum();
        let boots = u32::try_from(self.boots.len()).unwrap_or(u32::MAX);
        let (now, boot) = (
            moment(self.now_s),
            sum.checked_div(boots).unwrap_or_default(),
        );
        let target = plan::target(&self.policy, &self.arrivals, boot, u32::MAX, now);
        let view = View {
            servers: &self.servers,
            busy: &HashSet::new(),
            pending: self.pending,
            target,
            standing: &PoolStanding::default(),
            cooling: &HashSet::new(),
            images: &HashMap::new(),
            now,
        };
        for action in plan::plan(&self.policy, &view) {
            match action {
                Action::Order(_) => self.order(),
                Action::Retire(id) => self.remove(id),
                // Nothing fails here, and nobody is told anything.
                Action::Recover(_)
                | Action::Fail(..)
                | Action::Delete(_)
                | Action::Halt
                | Action::FallBelow
                | Action::TellBelow
                | Action::Reach => {}
            }
        }
    }

    fn order(&mut self) {
        self.next += 1;
        let id = ServerId::new(Uuid::from_u128(self.next));
        let takes_s = self.rng.random_range(75..150);
        self.warm_at.push((id, self.now_s + takes_s));
        self.servers.push(Server {
            state: ServerState::Booting,
            created_at: moment(self.now_s),
            state_since: moment(self.now_s),
            ..sample::server(id)
        });
    }

    /// Its last hour is paid to its end.
    fn remove(&mut self, id: ServerId) {
        if let Some(index) = self.servers.iter().position(|server| server.id == id) {
            let server = self.servers.remove(index);
            let age = moment(self.now_s).since(server.created_at).as_secs();
            let rest = (3600 - age % 3600) % 3600;
            self.books.idle_s += f64::from(u32::try_from(rest).unwrap_or(0));
        }
    }
}
