use std::collections::HashMap;

use proptest::prelude::*;
use tidepool_shared::id::{OperationId, RolloutId};
use uuid::Uuid;

use super::*;

const NEW: &str = "2026.9.6";
const OLD: &str = "2026.9.5";

fn rollout() -> Rollout {
    Rollout {
        id: RolloutId::new(Uuid::from_u128(1)),
        tier: "basic".to_owned(),
        version: NEW.parse().unwrap(),
        canaries: 1,
        wave_percent: 25,
        max_failures: 0,
        soak_s: 60,
        state: RolloutState::Running,
        reason: None,
        forgiven: 0,
        created_at: Moment(0),
        finished_at: None,
    }
}

fn id(number: usize) -> InstanceId {
    InstanceId::new(Uuid::from_u128(u128::try_from(number).unwrap()))
}

fn candidate(number: usize) -> RolloutCandidate {
    RolloutCandidate {
        instance: id(number),
        version: Some(OLD.to_owned()),
        pin: None,
        ready: true,
    }
}

fn at(seconds: u64) -> Moment {
    Moment(0).plus(Duration::from_secs(seconds))
}

fn member(number: usize, state: OperationState, ended_s: Option<u64>) -> RolloutMember {
    RolloutMember {
        instance: id(number),
        name: format!("a{number}"),
        health: Health::Ok,
        operation: OperationId::new(Uuid::from_u128(9)),
        state,
        error: (state == OperationState::Failed).then(|| "no room".to_owned()),
        begun_at: at(0),
        ended_at: ended_s.map(at),
    }
}

fn snapshot(instances: usize, members: Vec<RolloutMember>, now_s: u64) -> Snapshot {
    Snapshot {
        rollout: rollout(),
        members,
        candidates: (1..=instances).map(candidate).collect(),
        now: at(now_s),
    }
}

fn upgraded(actions: &[Action]) -> usize {
    let is_upgrade = |action: &&Action| matches!(action, Action::Upgrade(_));
    actions.iter().filter(is_upgrade).count()
}

#[test]
fn a_canary_is_alone_until_it_has_stayed_well_for_the_soak_time() {
    assert_eq!(upgraded(&plan(&snapshot(8, Vec::new(), 0))), 1);
    let running = member(1, OperationState::Running, None);
    assert_eq!(plan(&snapshot(8, vec![running], 5)), []);
    let done = || vec![member(1, OperationState::Succeeded, Some(10))];
    assert_eq!(plan(&snapshot(8, done(), 69)), []);
    assert_eq!(
        upgraded(&plan(&snapshot(8, done(), 70))),
        2,
        "a quarter of eight"
    );
}

#[test]
fn a_failure_halts_with_its_reason_and_is_forgiven_by_resuming() {
    let failed = || vec![member(1, OperationState::Failed, Some(10))];
    let mut snapshot = snapshot(8, failed(), 100);
    assert_eq!(plan(&snapshot), [Action::Halt("a1: no room".to_owned())]);
    snapshot.rollout.forgiven = 1;
    assert_eq!(upgraded(&plan(&snapshot)), 2);
    assert!(
        !plan(&snapshot).contains(&Action::Upgrade(id(1))),
        "not tried again by itself"
    );
}

#[test]
fn an_order_without_an_end_and_an_instance_that_goes_down_are_failures() {
    let silent = vec![member(1, OperationState::Running, None)];
    assert!(matches!(
        plan(&snapshot(8, silent, 1801))[..],
        [Action::Halt(_)]
    ));
    let mut down = member(1, OperationState::Succeeded, Some(10));
    down.health = Health::Down;
    assert!(matches!(
        plan(&snapshot(8, vec![down.clone()], 20))[..],
        [Action::Halt(_)]
    ));
    assert_eq!(
        upgraded(&plan(&snapshot(8, vec![down], 100))),
        2,
        "later it has other reasons"
    );
}

#[test]
fn the_pinned_are_passed_by_the_busy_waited_for_and_a_deleted_one_is_no_failure() {
    let mut snapshot = snapshot(2, vec![member(9, OperationState::Canceled, Some(1))], 100);
    snapshot.candidates[0].pin = Some(OLD.parse().unwrap());
    snapshot.candidates[1].ready = false;
    assert_eq!(plan(&snapshot), []);
    snapshot.candidates[1].ready = true;
    assert_eq!(plan(&snapshot), [Action::Upgrade(id(2))]);
    snapshot.candidates[1].version = Some(NEW.to_owned());
    assert_eq!(plan(&snapshot), [Action::Finish]);
}

#[test]
fn a_halted_one_does_nothing() {
    let mut snapshot = snapshot(4, Vec::new(), 0);
    snapshot.rollout.state = RolloutState::Halted;
    assert_eq!(plan(&snapshot), []);
}

/// A tier on which the plan is carried out: each order ends after some seconds, well or not.
fn played(
    instances: &[(bool, bool, u64)],
    rollout: Rollout,
) -> Result<HashMap<InstanceId, OperationState>, TestCaseError> {
    let mut world = Snapshot {
        rollout,
        members: Vec::new(),
        candidates: (0..instances.len()).map(candidate).collect(),
        now: at(0),
    };
    for (number, (pinned, _, _)) in instances.iter().enumerate() {
        if *pinned {
            world.candidates[number].pin = Some(OLD.parse().unwrap());
        }
    }
    let canaries = usize::try_from(world.rollout.canaries).unwrap();
    let percent = usize::try_from(world.rollout.wave_percent).unwrap();
    for second in 0..200_000u64 {
        world.now = at(second);
        for (number, (_, fails, takes_s)) in instances.iter().enumerate() {
            let ends = |member: &&mut RolloutMember| {
                member.instance == id(number)
                    && member.ended_at.is_none()
                    && world.now.since(member.begun_at) >= Duration::from_secs(*takes_s)
            };
            if let Some(member) = world.members.iter_mut().find(ends) {
                member.ended_at = Some(world.now);
                member.state = if *fails {
                    OperationState::Failed
                } else {
                    OperationState::Succeeded
                };
                if !fails {
                    world.candidates[number].version = Some(NEW.to_owned());
                }
            }
        }
        let failed = failures(&world.rollout, &world.members, world.now);
        for action in plan(&world) {
            match action {
                Action::Upgrade(instance) => {
                    prop_assert!(
                        failed <= world.rollout.max_failures,
                        "begun after a failure"
                    );
                    prop_assert!(!world.members.iter().any(|known| known.instance == instance));
                    world.members.push(RolloutMember {
                        instance,
                        begun_at: world.now,
                        ..member(0, OperationState::Running, None)
                    });
                }
                Action::Halt(_) => {
                    prop_assert!(failed > world.rollout.max_failures);
                    return Ok(states(&world));
                }
                Action::Finish => {
                    prop_assert!(failed <= world.rollout.max_failures);
                    return Ok(states(&world));
                }
            }
        }
        let under_way = world
            .members
            .iter()
            .filter(|member| member.ended_at.is_none())
            .count();
        let wave = (instances.len() * percent).div_ceil(100).max(1);
        let most = if world.members.len() <= canaries {
            canaries
        } else {
            wave
        };
        prop_assert!(under_way <= most, "{under_way} at once, {most} allowed");
    }
    prop_assert!(false, "no end");
    Ok(HashMap::new())
}

fn states(world: &Snapshot) -> HashMap<InstanceId, OperationState> {
    let of = |member: &RolloutMember| (member.instance, member.state);
    world.members.iter().map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Never more at once than a wave; halted exactly when more failed than may; nobody twice; the pinned never;
    /// and without failures everybody else in the end.
    #[test]
    fn any_rollout_ends_and_keeps_its_bounds(
        instances in proptest::collection::vec((any::<bool>(), proptest::bool::weighted(0.1), 1u64..40), 0..24),
        canaries in 0u32..4, wave_percent in 1u32..=100, max_failures in 0u32..3, soak_s in 0u32..50,
    ) {
        let rollout = Rollout { canaries, wave_percent, max_failures, soak_s, ..rollout() };
        let reached = played(&instances, rollout)?;
        for (number, (pinned, fails, _)) in instances.iter().enumerate() {
            let state = reached.get(&id(number));
            prop_assert!(!pinned || state.is_none(), "a pinned one was upgraded");
            let many = instances.iter().filter(|(pinned, fails, _)| !pinned && *fails).count();
            if !pinned && !fails && many <= usize::try_from(max_failures).unwrap() {
                prop_assert_eq!(state, Some(&OperationState::Succeeded));
            }
        }
    }
}
