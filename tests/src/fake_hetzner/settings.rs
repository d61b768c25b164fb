//! How one fake differs from another: its durations, limits and tokens.

use std::{collections::BTreeMap, time::Duration};

/// What a fake is started with.
#[derive(Clone)]
pub struct Settings {
    /// The port of the API; any free one when 0.
    pub port: u16,
    /// The port of the switches; any free one when 0.
    pub admin_port: u16,
    /// The token that may do everything.
    pub token: String,
    /// The token that may only read.
    pub read_only_token: String,
    pub pace: Pace,
    pub limits: Limits,
    pub rate: Rate,
    /// `per_page` of a list whose caller names none; small ones make clients show their paging.
    pub per_page: usize,
    /// The most that one page holds, whatever its caller says. 50 in the real service; less makes
    /// clients page that ask for as much as they can get.
    pub max_per_page: usize,
    /// How many more servers fit, by (server type, location). The catalogue decides for the others:
    /// what it calls available has no end, the rest has no room.
    pub room: BTreeMap<(String, String), u32>,
    /// Holds every answer against the published schemas; see [`super::FakeHetzner::violations`].
    pub check_answers: bool,
    /// How many requests [`super::FakeHetzner::requests`] remembers; the oldest are forgotten first.
    pub remembered_requests: usize,
    /// Of passwords and of the faults that come with a probability.
    pub seed: u64,
}

/// How long things take.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Every call, before anything is done about it.
    pub call: Duration,
    /// `create_server`: from the call until the server is there, off.
    pub create: Duration,
    /// `start_server`, the one of a creation as well.
    pub start: Duration,
    /// From `running` until the machine's own programs start.
    pub boot: Duration,
    /// Every other action.
    pub action: Duration,
    /// `create_image`.
    pub snapshot: Duration,
    /// From the end of `shutdown_server` until the server is off.
    pub shutdown: Duration,
}

impl Pace {
    /// As fast as still shows every state to a client that polls.
    pub fn quick() -> Self {
        let action = Duration::from_millis(30);
        Self {
            call: Duration::ZERO,
            create: action,
            start: action,
            boot: Duration::ZERO,
            action,
            snapshot: 2 * action,
            shutdown: action,
        }
    }

    /// What a person sees in a good hour of the real service.
    pub fn real() -> Self {
        Self {
            call: Duration::from_millis(80),
            create: Duration::from_secs(8),
            start: Duration::from_secs(4),
            boot: Duration::from_secs(8),
            action: Duration::from_secs(2),
            snapshot: Duration::from_secs(40),
            shutdown: Duration::from_secs(5),
        }
    }
}

/// How much a Project may have at once.
#[derive(Debug, Clone)]
pub struct Limits {
    pub servers: usize,
    pub primary_ips: usize,
    pub firewalls: usize,
    pub snapshots: usize,
}

/// The bucket of requests.
#[derive(Debug, Clone)]
pub struct Rate {
    pub requests: u32,
    /// How many come back in a second.
    pub refill: f64,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            requests: 3600,
            refill: 1.0,
        }
    }
}

impl Settings {
    /// For tests: quick, and every answer is checked.
    pub fn quick() -> Self {
        Self {
            port: 0,
            admin_port: 0,
            token: "fake-token-that-may-write".to_owned(),
            read_only_token: "fake-token-that-may-only-read".to_owned(),
            pace: Pace::quick(),
            limits: Limits {
                servers: 100,
                primary_ips: 200,
                firewalls: 50,
                snapshots: 50,
            },
            rate: Rate::default(),
            per_page: 25,
            max_per_page: 50,
            room: BTreeMap::new(),
            check_answers: true,
            remembered_requests: 10_000,
            seed: 1,
        }
    }

    /// Makes room for this many servers more of a type in a location.
    #[must_use]
    pub fn with_room(mut self, server_type: &str, location: &str, servers: u32) -> Self {
        self.room
            .insert((server_type.to_owned(), location.to_owned()), servers);
        self
    }
}
