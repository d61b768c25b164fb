//! What to do next with the gateway: a pure function of what is wanted, what was done and what is seen.

use tidepool_shared::document::{DesiredDocument, Generation, Power};

use crate::{applied::Applied, upgrade::UpgradeStage};

/// What the loop sees of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The process, named so that another one has another name; `None` when there is none.
    pub process: Option<String>,
    /// Whether it says that it has started.
    pub started: bool,
    /// The generation that nginx answers for.
    pub served: Generation,
    /// The last order for another version that is over.
    pub settled: u64,
    /// What is being done for an order.
    pub stage: Option<UpgradeStage>,
    /// The order that is being prepared, or done.
    pub order: Option<u64>,
    /// Whether one that is not begun is prepared, and nothing else is being changed.
    pub may_begin: bool,
    /// Whether there is a version that may be run.
    pub is_usable: bool,
}

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Prepare the document's order for another version, or begin with it.
    Order,
    /// Prepare an order no longer that nobody gives any more.
    Withdraw,
    /// Do the stage that an order is at.
    Proceed(UpgradeStage),
    /// End the stage that an order is at.
    Abandon(UpgradeStage),
    StartGateway,
    /// The instance is switched off.
    StopGateway,
    AwaitGateway,
    /// Have the gateway do its first, slow turn before it has a customer.
    WarmUp,
    /// Count the restarts that an instance brings from an earlier server as done.
    AdoptRestarts(u64),
    /// Give the gateway the customer's configuration.
    Configure,
    Restart(u64),
    /// Say that all of the generation is done, now that the gateway has also come back from it.
    Conclude,
}

/// The next thing to do, or nothing.
///
/// A claimed gateway is never warmed up, not even after a crash: the turn would be a conversation on
/// the customer's account, and a slow first answer is better than a stranger's words in their agent.
pub fn plan(desired: Option<&DesiredDocument>, applied: &Applied, seen: &Seen) -> Option<Action> {
    let is_off = desired.is_some_and(|desired| desired.power == Power::Off);
    if !seen.is_usable {
        return (is_off && seen.process.is_some()).then_some(Action::StopGateway);
    }
    // Nothing else starts or stops a gateway meanwhile: the state may belong to the other version.
    if let Some(stage) = seen.stage {
        return Some(match stage {
            UpgradeStage::Saving | UpgradeStage::Trying if is_off => Action::Abandon(stage),
            UpgradeStage::Saving | UpgradeStage::Trying | UpgradeStage::Restoring => {
                Action::Proceed(stage)
            }
        });
    }
    // What is begun comes to its end, which is told; what is not can still be taken back.
    let ordered = desired.and_then(|desired| desired.openclaw.as_ref());
    if seen.order.is_some() && (is_off || seen.order != ordered.map(|order| order.number)) {
        return Some(Action::Withdraw);
    }
    if let Some(desired) = desired
        && is_off
    {
        return plan_off(desired, applied, seen);
    }
    // Also for one that does not start: another version may be its cure. While it is prepared, which takes minutes,
    // everything else goes on.
    let is_due = seen.order.is_none() || seen.may_begin;
    if is_due && desired.is_some_and(|desired| has_order(desired, seen)) {
        return Some(Action::Order);
    }
    if seen.process.is_none() {
        return Some(Action::StartGateway);
    }
    if !seen.started {
        return Some(Action::AwaitGateway);
    }
    let Some(desired) = desired else {
        return (applied.warmed != seen.process).then_some(Action::WarmUp);
    };
    // Names first: a customer who can open their agent waits gladly for its colours.
    if seen.served < desired.generation {
        return None;
    }
    if applied.restarts.is_none() {
        return Some(Action::AdoptRestarts(desired.restarts));
    }
    if applied.configured < desired.generation {
        return Some(Action::Configure);
    }
    if applied.restarts < Some(desired.restarts) {
        return Some(Action::Restart(desired.restarts));
    }
    (applied.observed < desired.generation).then_some(Action::Conclude)
}

/// The gateway ends whether or not nginx has shut its doors by then. What a gateway that does not run cannot be
/// given, it is given when it runs again; a restart that was asked of it is done by that.
fn plan_off(desired: &DesiredDocument, applied: &Applied, seen: &Seen) -> Option<Action> {
    if seen.process.is_some() {
        return Some(Action::StopGateway);
    }
    if seen.served < desired.generation {
        return None;
    }
    if applied.restarts < Some(desired.restarts) {
        return Some(Action::AdoptRestarts(desired.restarts));
    }
    (applied.observed < desired.generation).then_some(Action::Conclude)
}

/// Names first, here as well.
fn has_order(desired: &DesiredDocument, seen: &Seen) -> bool {
    let number = desired.openclaw.as_ref().map(|order| order.number);
    seen.served >= desired.generation && number > Some(seen.settled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidepool_shared::{
        document::{EdgeProof, GatewayLimits, OpenClawOrder},
        id::InstanceId,
        networks::Networks,
    };
    use uuid::Uuid;

    use super::*;

    fn wanted(generation: u64, restarts: u64) -> DesiredDocument {
        DesiredDocument {
            instance: InstanceId::new(Uuid::from_u128(1)),
            generation: Generation(generation),
            hosts: Vec::new(),
            origins: Vec::new(),
            edge_proof: EdgeProof(String::new()),
            config: serde_json::Value::Null,
            restarts,
            limits: GatewayLimits::default(),
            power: Power::On,
            evictions: 0,
            max_body_bytes: None,
            openclaw: None,
            networks: Networks::default(),
        }
    }

    fn up(process: &str, served: u64) -> Seen {
        Seen {
            process: Some(process.into()),
            started: true,
            served: Generation(served),
            settled: 0,
            stage: None,
            order: None,
            may_begin: false,
            is_usable: true,
        }
    }

    fn ordered(number: u64) -> DesiredDocument {
        DesiredDocument {
            openclaw: Some(OpenClawOrder {
                number,
                version: "2026.9.6".parse().unwrap(),
                signed: None,
            }),
            ..wanted(2, 0)
        }
    }

    #[test]
    fn an_unclaimed_gateway_is_warmed_once_a_process() {
        let mut applied = Applied::default();
        assert_eq!(plan(None, &applied, &up("a", 0)), Some(Action::WarmUp));
        applied.warmed = Some("a".into());
        assert_eq!(plan(None, &applied, &up("a", 0)), None);
        assert_eq!(plan(None, &applied, &up("b", 0)), Some(Action::WarmUp));
    }

    #[test]
    fn the_configuration_waits_until_the_names_are_served() {
        let applied = Applied {
            restarts: Some(0),
            ..Applied::default()
        };
        let desired = wanted(2, 0);
        assert_eq!(plan(Some(&desired), &applied, &up("a", 1)), None);
        assert_eq!(
            plan(Some(&desired), &applied, &up("a", 2)),
            Some(Action::Configure)
        );
    }

    #[test]
    fn restarts_from_an_earlier_server_are_not_repeated_and_later_ones_are_done_once() {
        let mut applied = Applied::default();
        let first = wanted(1, 7);
        assert_eq!(
            plan(Some(&first), &applied, &up("a", 1)),
            Some(Action::AdoptRestarts(7))
        );
        applied.restarts = Some(7);
        applied.configured = Generation(1);
        applied.observed = Generation(1);
        assert_eq!(plan(Some(&first), &applied, &up("a", 1)), None);
        let second = wanted(2, 8);
        applied.configured = Generation(2);
        assert_eq!(
            plan(Some(&second), &applied, &up("a", 2)),
            Some(Action::Restart(8))
        );
        applied.restarts = Some(8);
        applied.observed = Generation(2);
        assert_eq!(plan(Some(&second), &applied, &up("a", 2)), None);
    }

    #[test]
    fn what_is_switched_off_is_stopped_and_left_alone_until_it_is_on_again() {
        let mut applied = Applied {
            configured: Generation(1),
            observed: Generation(1),
            restarts: Some(0),
            ..Applied::default()
        };
        let off = DesiredDocument {
            power: Power::Off,
            ..wanted(2, 0)
        };
        let mut seen = up("a", 1);
        assert_eq!(plan(Some(&off), &applied, &seen), Some(Action::StopGateway));
        seen.process = None;
        seen.started = false;
        // Its doors are not shut yet.
        assert_eq!(plan(Some(&off), &applied, &seen), None);
        seen.served = Generation(2);
        assert_eq!(plan(Some(&off), &applied, &seen), Some(Action::Conclude));
        applied.observed = Generation(2);
        assert_eq!(plan(Some(&off), &applied, &seen), None);
        let on = wanted(3, 0);
        assert_eq!(plan(Some(&on), &applied, &seen), Some(Action::StartGateway));
        assert_eq!(
            plan(Some(&on), &applied, &up("b", 3)),
            Some(Action::Configure)
        );
    }

    #[test]
    fn a_generation_is_done_only_when_the_gateway_is_back_from_its_restart() {
        let applied = Applied {
            configured: Generation(2),
            observed: Generation(1),
            restarts: Some(8),
            ..Applied::default()
        };
        let second = wanted(2, 8);
        let mut seen = up("a", 2);
        seen.started = false;
        let next = |seen: &Seen| plan(Some(&second), &applied, seen);
        assert_eq!(next(&seen), Some(Action::AwaitGateway));
        seen.process = None;
        assert_eq!(next(&seen), Some(Action::StartGateway));
        assert_eq!(next(&up("a", 2)), Some(Action::Conclude));
    }

    #[test]
    fn an_order_is_begun_once_its_names_are_served_and_before_its_configuration() {
        let applied = Applied {
            restarts: Some(0),
            ..Applied::default()
        };
        let desired = ordered(3);
        let next = |seen: &Seen| plan(Some(&desired), &applied, seen);
        assert_eq!(next(&up("a", 1)), None);
        let mut seen = up("a", 2);
        assert_eq!(next(&seen), Some(Action::Order));
        seen.process = None;
        assert_eq!(next(&seen), Some(Action::Order), "it may be its cure");
        seen.settled = 3;
        assert_eq!(next(&seen), Some(Action::StartGateway));
        assert_eq!(
            next(&Seen {
                settled: 3,
                ..up("a", 2)
            }),
            Some(Action::Configure)
        );
    }

    #[test]
    fn everything_else_goes_on_while_an_order_is_prepared() {
        let applied = Applied {
            restarts: Some(0),
            ..Applied::default()
        };
        let desired = ordered(3);
        let mut seen = up("a", 2);
        seen.order = Some(3);
        let next = |seen: &Seen| plan(Some(&desired), &applied, seen);
        assert_eq!(next(&seen), Some(Action::Configure));
        seen.process = None;
        assert_eq!(next(&seen), Some(Action::StartGateway));
        seen.may_begin = true;
        assert_eq!(next(&seen), Some(Action::Order));
    }

    #[test]
    fn nothing_is_started_while_an_order_is_under_way() {
        let applied = Applied::default();
        for stage in STAGES {
            let mut seen = up("a", 1);
            seen.stage = Some(stage);
            seen.order = Some(3);
            seen.process = None;
            for desired in [None, Some(&ordered(3))] {
                assert_eq!(plan(desired, &applied, &seen), Some(Action::Proceed(stage)));
            }
        }
    }

    const STAGES: [UpgradeStage; 3] = [
        UpgradeStage::Saving,
        UpgradeStage::Trying,
        UpgradeStage::Restoring,
    ];

    #[test]
    fn an_order_can_be_taken_back_until_it_is_begun_and_ends_when_it_is_switched_off() {
        let applied = Applied::default();
        let off = DesiredDocument {
            power: Power::Off,
            ..ordered(3)
        };
        for desired in [&wanted(2, 0), &ordered(4), &off] {
            let mut seen = up("a", 2);
            seen.order = Some(3);
            let next = |seen: &Seen| plan(Some(desired), &applied, seen);
            assert_eq!(next(&seen), Some(Action::Withdraw));
            for stage in STAGES {
                seen.stage = Some(stage);
                let ends = desired.power == Power::Off && stage != UpgradeStage::Restoring;
                let expected = if ends {
                    Action::Abandon(stage)
                } else {
                    Action::Proceed(stage)
                };
                assert_eq!(next(&seen), Some(expected));
            }
        }
    }

    #[test]
    fn without_a_version_that_may_be_run_nothing_is_started_and_what_runs_can_be_stopped() {
        let applied = Applied::default();
        let mut seen = up("a", 2);
        seen.is_usable = false;
        let off = DesiredDocument {
            power: Power::Off,
            ..wanted(2, 0)
        };
        assert_eq!(plan(None, &applied, &seen), None);
        assert_eq!(plan(Some(&ordered(3)), &applied, &seen), None);
        assert_eq!(plan(Some(&off), &applied, &seen), Some(Action::StopGateway));
        seen.process = None;
        assert_eq!(plan(Some(&wanted(2, 0)), &applied, &seen), None);
    }

    proptest! {
        /// Doing what is planned ends, in the wanted state, and a claimed gateway is never warmed.
        #[test]
        fn doing_what_is_planned_ends_with_nothing_to_do(
            generation in 0u64..4, restarts in 0u64..4,
            observed in 0u64..4, done in proptest::option::of(0u64..4), running: bool, off: bool
        ) {
            let power = if off { Power::Off } else { Power::On };
            let desired = (generation > 0).then(|| DesiredDocument { power, ..wanted(generation, restarts) });
            let mut applied = Applied { observed: Generation(observed), restarts: done, ..Applied::default() };
            let mut seen = up("a", generation);
            if !running {
                seen.process = None;
                seen.started = false;
            }
            for _ in 0..8 {
                match plan(desired.as_ref(), &applied, &seen) {
                    None => {
                        prop_assert_eq!(seen.started, desired.is_none() || !off);
                        prop_assert!(applied.observed.0 >= generation);
                        return Ok(());
                    }
                    Some(
                        Action::Order | Action::Withdraw | Action::Proceed(_) | Action::Abandon(_)
                    ) => prop_assert!(false, "nobody ordered"),
                    Some(Action::StartGateway) => seen.process = Some("b".into()),
                    Some(Action::StopGateway) => {
                        seen.process = None;
                        seen.started = false;
                    }
                    Some(Action::AwaitGateway) => seen.started = true,
                    Some(Action::WarmUp) => {
                        prop_assert!(desired.is_none());
                        applied.warmed.clone_from(&seen.process);
                    }
                    Some(Action::AdoptRestarts(count) | Action::Restart(count)) => {
                        applied.restarts = Some(count);
                    }
                    Some(Action::Configure) => applied.configured = Generation(generation),
                    Some(Action::Conclude) => {
                        prop_assert!(applied.restarts >= Some(restarts));
                        applied.observed = Generation(generation);
                    }
                }
            }
            prop_assert!(false, "no end");
        }
    }
}
