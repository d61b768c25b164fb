//! An agent's report, translated for the store, and whom a change of it concerns.

use tidepool_shared::{
    document::Generation,
    message::{Health as SeenHealth, Phase, Report},
};

use crate::{
    doorbell::Ring,
    model::{Health, ReportedOpenClaw, Server, ServerReport, StepMs},
};

const MAX_REASONS: usize = 8;
const MAX_STEPS: usize = 16;

/// The longest text that is kept of an agent's words, in bytes.
const MAX_TEXT: usize = 1024;

/// The longest name of a version that is kept, in bytes.
const MAX_VERSION: usize = 64;

/// The report as the store takes it, within its ceilings whatever the agent sent.
pub(super) fn for_store(report: &Report) -> ServerReport {
    let reasons: Vec<String> = report
        .reasons
        .iter()
        .take(MAX_REASONS)
        .map(|reason| cut(reason))
        .collect();
    ServerReport {
        epoch: report.epoch,
        warm: match report.phase {
            Phase::Warm | Phase::Claimed => true,
            Phase::Starting | Phase::WarmingUp | Phase::Failed => false,
        },
        failed: (report.phase == Phase::Failed).then(|| {
            if reasons.is_empty() {
                "the agent gave up".to_owned()
            } else {
                reasons.join("; ")
            }
        }),
        served: Generation(report.served_generation),
        observed: Generation(report.observed_generation),
        health: match report.health {
            SeenHealth::Unknown => Health::Unknown,
            SeenHealth::Ok => Health::Ok,
            SeenHealth::Degraded => Health::Degraded,
            SeenHealth::Down => Health::Down,
        },
        reasons,
        gateway_starts: report.gateway_starts,
        steps: report
            .steps
            .iter()
            .take(MAX_STEPS)
            .map(|step| StepMs {
                name: cut(&step.name),
                ms: step.ms.into(),
            })
            .collect(),
        rejected: report
            .rejected
            .as_ref()
            .map(|rejected| (Generation(rejected.generation), cut(&rejected.reason))),
        openclaw: report.openclaw.as_ref().map(|said| ReportedOpenClaw {
            version: cut_to(&said.version, MAX_VERSION),
            settled: said.settled,
            failed: said.failed.as_deref().map(cut),
        }),
    }
}

/// Without control characters, too: PostgreSQL takes no NUL, and JSON makes six bytes of one.
pub(super) fn cut(text: &str) -> String {
    cut_to(text, MAX_TEXT)
}

fn cut_to(text: &str, ceiling: usize) -> String {
    text.get(..text.floor_char_boundary(ceiling))
        .unwrap_or_default()
        .replace(char::is_control, " ")
}

/// The rings that a recorded report deserves. Nothing changed, nobody is woken.
pub(super) fn rings(before: &Server, after: &Server, news: News) -> Vec<Ring> {
    let mut rings = Vec::new();
    if before.state != after.state {
        rings.push(Ring::Pool);
    }
    let seen = |server: &Server| (server.served, server.observed, server.health);
    let changed = before.state != after.state
        || before.instance != after.instance
        || seen(before) != seen(after)
        || before.reasons != after.reasons
        || before.gateway_starts != after.gateway_starts
        || before.openclaw_version != after.openclaw_version
        || news == News::Told;
    if changed {
        rings.extend(after.instance.map(Ring::Instance));
        rings.push(Ring::Events);
    }
    rings
}

/// Whether a report tells of a configuration that was refused, or of an order for a version that is over, since
/// the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Told,
    None,
}

impl News {
    /// What this report tells that the one before did not.
    pub(super) fn of(report: &Report, before: Option<&Report>) -> Self {
        let told = |report: &Report| {
            let settled = report.openclaw.as_ref().map_or(0, |said| said.settled);
            (report.rejected.clone(), settled)
        };
        let (rejected, settled) = told(report);
        let (known_rejected, known_settled) = before.map_or((None, 0), told);
        if (rejected.is_some() && rejected != known_rejected) || settled != known_settled {
            Self::Told
        } else {
            Self::None
        }
    }
}

#[cfg(test)]
mod tests {
    use tidepool_shared::message::Step;

    use super::*;
    use crate::model::ServerState;
    use crate::model::sample;

    fn report() -> Report {
        Report {
            epoch: 4,
            phase: Phase::Warm,
            served_generation: 0,
            observed_generation: 0,
            health: SeenHealth::Ok,
            reasons: Vec::new(),
            steps: Vec::new(),
            rejected: None,
            openclaw: None,
            gateway_starts: 1,
        }
    }

    fn server() -> Server {
        Server {
            state: ServerState::Warm,
            epoch: 4,
            health: Health::Ok,
            gateway_starts: 1,
            ..sample::server(format!("srv_{:026}", 1).parse().unwrap())
        }
    }

    #[test]
    fn a_report_over_the_ceilings_is_cut() {
        let stored = for_store(&Report {
            reasons: vec!["ü".repeat(5000); 100],
            steps: vec![
                Step {
                    name: "s".repeat(5000),
                    ms: 1
                };
                100
            ],
            ..report()
        });
        assert_eq!((stored.reasons.len(), stored.steps.len()), (8, 16));
        assert!(stored.reasons.iter().all(|reason| reason.len() <= MAX_TEXT));
    }

    #[test]
    fn what_no_database_takes_is_not_kept() {
        let stored = for_store(&Report {
            reasons: vec!["a\0b\u{1b}[2J".to_owned()],
            ..report()
        });
        assert_eq!(stored.reasons, ["a b [2J"]);
    }

    #[test]
    fn an_agent_that_gave_up_without_a_word_has_failed_all_the_same() {
        let stored = for_store(&Report {
            phase: Phase::Failed,
            ..report()
        });
        assert!(stored.failed.is_some() && !stored.warm);
    }

    #[test]
    fn nobody_is_woken_when_nothing_changed() {
        assert_eq!(rings(&server(), &server(), News::None), []);
    }

    #[test]
    fn a_server_that_became_warm_wakes_the_pool() {
        let before = Server {
            state: ServerState::Booting,
            ..server()
        };
        let rings = rings(&before, &server(), News::None);
        assert_eq!(rings, [Ring::Pool, Ring::Events]);
    }

    #[test]
    fn a_claimed_servers_progress_wakes_its_instance_only() {
        let id = format!("inst_{:026}", 1).parse().unwrap();
        let instance = Some(id);
        let before = Server {
            instance,
            state: ServerState::Claimed,
            ..server()
        };
        let after = Server {
            served: Generation(1),
            ..before.clone()
        };
        let expected = [Ring::Instance(id), Ring::Events];
        assert_eq!(rings(&before, &after, News::None), expected);
        assert_eq!(rings(&after, &after, News::Told), expected);
    }
}
