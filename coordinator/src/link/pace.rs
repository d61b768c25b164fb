//! How often what an agent says is written down: its sessions, its reports, its refusals.
//!
//! A sound agent never meets these bounds. One whose key is in the wrong hands could otherwise write
//! events and log lines as fast as the link carries them.

use std::{net::IpAddr, time::Duration};

use tidepool_shared::{document::Generation, id::ServerId, message::Report, quota::neighbourhood};
use tokio::time::Instant;

use super::rate::Rate;

/// A server's sessions: enough for a machine that is started again and again by hand, then 6 a minute.
const SESSIONS_AT_ONCE: u32 = 12;
/// A server's reports: a boot says some ten things, then 6 a minute.
const REPORTS_AT_ONCE: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(10);

/// The longest text of a refusal that is logged, in bytes.
const MAX_REFUSAL: usize = 256;

/// The paces of all servers.
#[derive(Debug)]
pub(super) struct Paces {
    /// By address as well: who shows a stolen key elsewhere takes none of the server's own.
    sessions: Rate<(ServerId, IpAddr)>,
    reports: Rate<ServerId>,
}

impl Default for Paces {
    fn default() -> Self {
        Self {
            sessions: Rate::new(SESSIONS_AT_ONCE, INTERVAL),
            reports: Rate::new(REPORTS_AT_ONCE, INTERVAL),
        }
    }
}

impl Paces {
    /// Takes one of a server's sessions, or says how long there will be none.
    pub(super) fn session(&self, server: ServerId, from: IpAddr) -> Result<(), Duration> {
        self.sessions
            .take((server, neighbourhood(from)), Instant::now())
    }

    /// Whether a report is written now. If not, the last one of those held back is, later.
    pub(super) fn report(&self, server: ServerId) -> bool {
        self.reports.take(server, Instant::now()).is_ok()
    }
}

/// How far a session's agent has come with its document. Each step forward is written at once: a claim
/// waits for it, and there are no more of them than changes of the document.
#[derive(Debug, Default)]
pub(super) struct Progress {
    served: Generation,
    observed: Generation,
    rejected: Generation,
}

impl Progress {
    /// Whether the report is further than those before, and of the very document that was `sent` last: steps
    /// on the way there would be as many as the agent likes.
    pub(super) fn advance(&mut self, report: &Report, sent: Generation) -> bool {
        let rejected = report.rejected.as_ref().map_or(0, |it| it.generation);
        let mut is_further = false;
        for (known, said) in [
            (&mut self.served, report.served_generation),
            (&mut self.observed, report.observed_generation),
            (&mut self.rejected, rejected),
        ] {
            if Generation(said) == sent && sent > *known {
                is_further = true;
                *known = sent;
            }
        }
        is_further
    }
}

/// The refusals of a session's agent: the first is logged, cut; all repeat it.
#[derive(Debug, Default)]
pub(super) struct Refusals(bool);

impl Refusals {
    /// What of this one is logged.
    pub(super) fn told<'r>(&mut self, reason: &'r str) -> Option<&'r str> {
        if std::mem::replace(&mut self.0, true) {
            return None;
        }
        reason.get(..reason.floor_char_boundary(MAX_REFUSAL))
    }
}

#[cfg(test)]
mod tests {
    use tidepool_shared::message::{Health, Phase, Rejected};

    use super::*;

    fn report(served: u64, rejected: Option<u64>) -> Report {
        Report {
            epoch: 1,
            phase: Phase::Claimed,
            served_generation: served,
            observed_generation: 0,
            health: Health::Ok,
            reasons: Vec::new(),
            steps: Vec::new(),
            rejected: rejected.map(|generation| Rejected {
                generation,
                reason: "no".to_owned(),
            }),
            gateway_starts: 1,
            openclaw: None,
        }
    }

    #[test]
    fn each_step_forward_counts_once() {
        let mut progress = Progress::default();
        assert!(progress.advance(&report(1, None), Generation(1)));
        assert!(!progress.advance(&report(1, None), Generation(1)));
        assert!(!progress.advance(&report(0, None), Generation(1)));
        assert!(progress.advance(&report(1, Some(2)), Generation(2)));
        assert!(progress.advance(&report(2, Some(2)), Generation(2)));
    }

    #[test]
    fn what_was_never_sent_is_no_step() {
        let mut progress = Progress::default();
        let sent = Generation(1000);
        assert!((0..1000).all(|said| !progress.advance(&report(said, None), sent)));
        assert!(!progress.advance(&report(u64::MAX, Some(0)), sent));
        assert!(progress.advance(&report(1000, None), sent));
    }

    #[test]
    fn a_refusal_is_told_once_and_cut() {
        let mut refusals = Refusals::default();
        let long = "ü".repeat(1000);
        assert_eq!(refusals.told(&long).map(str::len), Some(MAX_REFUSAL));
        assert_eq!(refusals.told("again"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thief_elsewhere_takes_none_of_the_servers_sessions() {
        let paces = Paces::default();
        let server = format!("srv_{:026}", 1).parse().unwrap();
        let [home, elsewhere] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        while paces.session(server, elsewhere).is_ok() {}
        assert_eq!(paces.session(server, elsewhere), Err(INTERVAL));
        assert_eq!(paces.session(server, home), Ok(()));
    }
}
