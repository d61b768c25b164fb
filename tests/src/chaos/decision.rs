//! What a chaos run does next: by the seed alone.

use std::{fmt, time::Duration};

use rand::{Rng as _, rngs::StdRng};

use crate::fake_hetzner::Fault;

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    Create(String),
    Configure(String, u32),
    Restart(String),
    /// With seconds of grace.
    Delete(String, u64),
    Undelete(String),
    Purge(String),
    /// What goes wrong, where, so many times.
    Fault(Fault, &'static str, u32),
    /// Which one, and how long it stays away.
    KillCoordinator(usize, Duration),
    /// Of all running ones of this name, the one of this number.
    KillProgram(&'static str, usize),
    /// Servers are made from it from now on, and idle ones of before are replaced.
    NewSnapshot,
    Pause,
    Resume,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(name) => write!(f, "create {name}"),
            Self::Configure(name, value) => write!(f, "configure {name} {value}"),
            Self::Restart(name) => write!(f, "restart {name}"),
            Self::Delete(name, grace_s) => write!(f, "delete {name} within {grace_s} s"),
            Self::Undelete(name) => write!(f, "undelete {name}"),
            Self::Purge(name) => write!(f, "purge {name}"),
            Self::Fault(fault, place, times) => write!(f, "fault {fault:?} at {place}, {times}x"),
            Self::KillCoordinator(number, away) => {
                write!(f, "kill coordinator {number} for {} ms", away.as_millis())
            }
            Self::KillProgram(program, number) => write!(f, "kill {program} {number}"),
            Self::NewSnapshot => f.write_str("new snapshot"),
            Self::Pause => f.write_str("pause"),
            Self::Resume => f.write_str("resume"),
        }
    }
}

/// What can go wrong in the cloud, and where it makes sense.
const FAULTS: [(Fault, &str); 25] = [
    (Fault::DropBefore, "POST /servers"),
    (Fault::DropAfter, "POST /servers"),
    (Fault::BadGatewayAfter, "POST /servers"),
    (Fault::Unavailable, "POST /servers"),
    (Fault::ServerError, "POST /servers"),
    (Fault::RateLimited, "POST /servers"),
    (Fault::NoCapacity, "cx23 nbg1"),
    (Fault::StartFails, "POST /servers"),
    (Fault::NeverCallsHome, "POST /servers"),
    (Fault::ActionFails, "create_server"),
    (Fault::ActionStuck, "create_server"),
    (Fault::DropAfter, "DELETE /servers/{id}"),
    (Fault::BadGatewayAfter, "DELETE /servers/{id}"),
    (Fault::Conflict, "DELETE /servers/{id}"),
    (Fault::ActionFails, "delete_server"),
    (Fault::Unavailable, "GET /servers"),
    (Fault::ServerError, "GET /servers"),
    (Fault::RateLimited, "GET /servers"),
    (Fault::DropBefore, "GET /servers"),
    (Fault::Slow, "GET /actions"),
    (Fault::Unavailable, "GET /firewalls"),
    (Fault::UnknownValues, "GET /servers"),
    (Fault::UnknownStatus, "GET /servers"),
    (Fault::ExtraFields, "POST /servers"),
    (Fault::ServerError, "GET /images"),
];

/// Instances at the most: each is a real agent with its nginx.
const INSTANCES: u32 = 24;

/// Decides.
pub(super) struct Decider {
    rng: StdRng,
    created: u32,
    paused: bool,
}

impl Decider {
    pub(super) fn new(rng: StdRng) -> Self {
        Self {
            rng,
            created: 0,
            paused: false,
        }
    }

    pub(super) fn next(&mut self) -> Decision {
        if self.created == 0 {
            return self.create();
        }
        match self.rng.random_range(0..100) {
            0..18 if self.created < INSTANCES => self.create(),
            0..35 => {
                let value = self.rng.random_range(0..1000);
                Decision::Configure(self.name(), value)
            }
            35..38 => Decision::Restart(self.name()),
            38..46 => {
                let grace_s = [0, 5, 3600][self.rng.random_range(0..3)];
                Decision::Delete(self.name(), grace_s)
            }
            46..51 => Decision::Undelete(self.name()),
            51..54 => Decision::Purge(self.name()),
            54..78 => {
                let (fault, place) = FAULTS[self.rng.random_range(0..FAULTS.len())];
                Decision::Fault(fault, place, self.rng.random_range(1..4))
            }
            78..86 => {
                let away = Duration::from_millis(self.rng.random_range(0..3000));
                Decision::KillCoordinator(self.rng.random_range(0..2), away)
            }
            86..91 => Decision::KillProgram("tidepool-agent", self.rng.random_range(0..100)),
            91..94 => Decision::KillProgram("stub-gateway", self.rng.random_range(0..100)),
            94..96 => Decision::NewSnapshot,
            _ => {
                self.paused = !self.paused;
                if self.paused {
                    Decision::Pause
                } else {
                    Decision::Resume
                }
            }
        }
    }

    fn create(&mut self) -> Decision {
        self.created += 1;
        Decision::Create(format!("chaos-{}", self.created))
    }

    /// One of those that were asked for so far.
    fn name(&mut self) -> String {
        format!("chaos-{}", self.rng.random_range(1..=self.created))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_seed_decides_the_same_every_time() {
        let run = |seed| {
            let mut decider = Decider::new(StdRng::seed_from_u64(seed));
            (0..500).map(|_| decider.next()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
