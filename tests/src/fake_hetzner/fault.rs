//! Switches for everything that can go wrong, set by a test or, over HTTP, by another process.
//!
//! A switch says what fails, where, and how often: the next N times, with a probability, or always.
//! Where it says no place, it strikes wherever its fault can. A count is spent by the strikes alone.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};

/// What can be made to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The connection ends without an answer, and nothing was done. At: an operation.
    DropBefore,
    /// The connection ends without an answer, after everything was done. At: an operation.
    DropAfter,
    /// 502, after everything was done. At: an operation.
    BadGatewayAfter,
    /// 503, and nothing was done. At: an operation, or `GET /servers page 2`.
    Unavailable,
    /// 500, and nothing was done. At: an operation, or `GET /servers page 2`.
    ServerError,
    /// The answer comes late ([`Faults::set_slowness`]). At: an operation.
    Slow,
    /// The answer comes as late as that, after everything was done: who does not wait leaves something
    /// behind. At: an operation.
    SlowAfter,
    /// 429. At: an operation.
    RateLimited,
    /// 409 `conflict`, and nothing was done. At: an operation.
    Conflict,
    /// 412. At: `POST /servers`, or a placement such as `cx23 nbg1`.
    NoCapacity,
    /// 403 `resource_limit_exceeded`. At: `POST /servers`, `POST /firewalls`, `POST /primary_ips`.
    LimitReached,
    /// An action is accepted and ends in an error. At: a command such as `create_server`, or an operation.
    ActionFails,
    /// An action is accepted and never ends. At: a command, or an operation.
    ActionStuck,
    /// `create_server` succeeds, the `start_server` after it fails. At: `POST /servers`.
    StartFails,
    /// The server runs, but nothing on it ever starts. At: `POST /servers`.
    NeverCallsHome,
    /// Every descriptive enum has a value that nobody has heard of. At: an operation.
    UnknownValues,
    /// Servers' and images' statuses have a value that nobody has heard of. At: an operation.
    UnknownStatus,
    /// Every object has a field that nobody has heard of. At: an operation.
    ExtraFields,
}

/// How often a switch strikes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Often {
    Always,
    /// This many more times.
    Next(u32),
    /// With this probability.
    Chance(f64),
}

/// One switch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    pub fault: Fault,
    /// Such as `POST /servers`, or what else the fault says; everywhere when `None`.
    #[serde(default)]
    pub at: Option<String>,
    pub often: Often,
}

/// The switches of one fake.
#[derive(Debug)]
pub struct Faults(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    switches: Vec<Switch>,
    struck: BTreeMap<Fault, u64>,
    slowness: Duration,
    rng: StdRng,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(Inner {
            switches: Vec::new(),
            struck: BTreeMap::new(),
            slowness: Duration::from_millis(200),
            rng: StdRng::seed_from_u64(seed),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Strikes the next `times` times at this place.
    pub fn next(&self, times: u32, fault: Fault, at: &str) {
        self.add(Switch {
            fault,
            at: Some(at.to_owned()),
            often: Often::Next(times),
        });
    }

    /// Strikes at this place until [`Faults::clear`].
    pub fn always(&self, fault: Fault, at: &str) {
        self.add(Switch {
            fault,
            at: Some(at.to_owned()),
            often: Often::Always,
        });
    }

    /// Strikes everywhere with this probability.
    pub fn chance(&self, probability: f64, fault: Fault) {
        self.add(Switch {
            fault,
            at: None,
            often: Often::Chance(probability),
        });
    }

    pub fn add(&self, switch: Switch) {
        self.lock().switches.push(switch);
    }

    /// Turns every switch off.
    pub fn clear(&self) {
        self.lock().switches.clear();
    }

    /// How late [`Fault::Slow`] answers are.
    pub fn set_slowness(&self, slowness: Duration) {
        self.lock().slowness = slowness;
    }

    pub(super) fn slowness(&self) -> Duration {
        self.lock().slowness
    }

    /// The switches that can still strike.
    pub fn switches(&self) -> Vec<Switch> {
        self.lock().switches.clone()
    }

    /// How often each fault has struck.
    pub fn struck(&self) -> BTreeMap<Fault, u64> {
        self.lock().struck.clone()
    }

    /// Whether this fault strikes now at a place that has these names.
    pub(super) fn strikes(&self, fault: Fault, names: &[&str]) -> bool {
        let mut inner = self.lock();
        let Inner {
            switches,
            struck,
            rng,
            ..
        } = &mut *inner;
        let here = |switch: &Switch| {
            let named = |at: &str| names.contains(&at);
            switch.fault == fault && switch.at.as_deref().is_none_or(named)
        };
        let strikes = switches
            .iter_mut()
            .filter(|switch| here(switch))
            .any(|switch| match &mut switch.often {
                Often::Always => true,
                Often::Next(left) => {
                    *left = left.saturating_sub(1);
                    true
                }
                Often::Chance(probability) => rng.random_bool(probability.clamp(0.0, 1.0)),
            });
        switches.retain(|switch| switch.often != Often::Next(0));
        if strikes {
            *struck.entry(fault).or_default() += 1;
        }
        strikes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_spent_by_strikes_at_its_place_alone() {
        let faults = Faults::new(1);
        faults.next(2, Fault::DropAfter, "POST /servers");
        assert!(!faults.strikes(Fault::DropAfter, &["GET /servers"]));
        assert!(!faults.strikes(Fault::DropBefore, &["POST /servers"]));
        for struck in [true, true, false] {
            let strikes = faults.strikes(Fault::DropAfter, &["POST /servers", "other"]);
            assert_eq!(strikes, struck);
        }
        assert_eq!(faults.struck().get(&Fault::DropAfter), Some(&2));
        assert!(faults.switches().is_empty());
    }

    #[test]
    fn a_probability_strikes_as_often_as_it_says_and_the_same_way_for_a_seed() {
        let run = |seed| {
            let faults = Faults::new(seed);
            faults.chance(0.25, Fault::Unavailable);
            let strike = |_| faults.strikes(Fault::Unavailable, &["GET /servers"]);
            (0..1000).map(strike).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        let struck = run(7).into_iter().filter(|struck| *struck).count();
        assert!((200..300).contains(&struck), "{struck}");
    }
}
