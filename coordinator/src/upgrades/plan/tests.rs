use std::collections::{HashMap, HashSet};

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
        health: Health::Ok,
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
        server: None,
        status: InstanceStatus::Running,
        health: Health::Ok,
        unwell_since: None,
        operation: OperationId::new(Uuid::from_u128(9)),
        state,
        error: (state == OperationState::Failed).then(|| "no room".to_owned()),
        begun_at: at(0),
        ended_at: ended_s.map(at),
        forgiven: false,
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
    let mut failed = member(1, OperationState::Failed, Some(10));
    assert_eq!(
        plan(&snapshot(8, vec![failed.clone()], 100)),
        [Action::Halt("a1: no room".to_owned())]
    );
    failed.forgiven = true;
    let resumed = plan(&snapshot(8, vec![failed], 100));
    assert_eq!(upgraded(&resumed), 1, "another canary, and no wave");
    assert!(
        !resumed.contains(&Action::Upgrade(id(1))),
        "not tried again by itself"
    );
}

#[test]
fn what_was_forgiven_buys_no_other_failure() {
    let mut down = member(1, OperationState::Succeeded, Some(10));
    (down.forgiven, down.health) = (true, Health::Down);
    down.unwell_since = Some(at(20));
    // It is well again, so that nothing is wrong with it any more, and the next one fails.
    for unwell_since in [Some(at(20)), None] {
        down.unwell_since = unwell_since;
        let failed = member(2, OperationState::Failed, Some(200));
        let members = vec![down.clone(), failed];
        let next = plan(&snapshot(8, members, 300));
        assert_eq!(next, [Action::Halt("a2: no room".to_owned())]);
    }
}

#[test]
fn a_canary_has_proven_something_only_when_it_has_the_version() {
    let canceled = member(1, OperationState::Canceled, Some(10));
    let next = plan(&snapshot(8, vec![canceled.clone()], 100));
    assert_eq!(upgraded(&next), 1, "another canary");
    let done = member(2, OperationState::Succeeded, Some(10));
    let next = plan(&snapshot(8, vec![canceled, done], 100));
    assert_eq!(upgraded(&next), 2, "a quarter of eight");
}

#[test]
fn an_order_that_was_taken_back_is_given_again() {
    let canceled = member(1, OperationState::Canceled, Some(10));
    let next = plan(&snapshot(1, vec![canceled], 100));
    assert_eq!(next, [Action::Upgrade(id(1))]);
}

#[test]
fn a_canary_is_well_before_and_others_need_not_be() {
    let mut world = snapshot(2, Vec::new(), 0);
    world.candidates[0].health = Health::Down;
    world.candidates[1].health = Health::Degraded;
    assert_eq!(plan(&world), []);
    let outlook = Outlook::of(&world.rollout, &world.members, &world.candidates, at(0));
    assert_eq!(outlook, Outlook { left: 2, ready: 0 });
    world.members = vec![member(9, OperationState::Succeeded, Some(0))];
    world.now = at(100);
    assert_eq!(upgraded(&plan(&world)), 1);
}

/// A member that is unwell from a second on, as it is seen later.
fn trouble(health: Health, since_s: u64, now_s: u64) -> Vec<Action> {
    let mut member = member(1, OperationState::Succeeded, Some(10));
    (member.health, member.unwell_since) = (health, Some(at(since_s)));
    plan(&snapshot(8, vec![member], now_s))
}

#[test]
fn whoever_is_down_or_silent_for_a_while_since_its_soak_time_has_failed() {
    assert_eq!(trouble(Health::Down, 20, 79), [], "it may be a restart");
    let down = || Action::Halt("a1: it is down".to_owned());
    assert_eq!(trouble(Health::Down, 20, 80), [down()]);
    let silent = Action::Halt("a1: nothing is heard of it any more".to_owned());
    assert_eq!(trouble(Health::Unknown, 20, 80), [silent]);
    // The soak time ends at 70, and what began within it is looked at to its end.
    assert_eq!(trouble(Health::Down, 69, 100), []);
    assert_eq!(trouble(Health::Down, 69, 129), [down()]);
    let later = trouble(Health::Down, 70, 500);
    assert_eq!(upgraded(&later), 2, "later it has other reasons");
}

#[test]
fn whoever_was_switched_off_is_not_down() {
    let mut stopped = member(1, OperationState::Succeeded, Some(10));
    (stopped.health, stopped.unwell_since) = (Health::Down, Some(at(20)));
    stopped.status = InstanceStatus::Stopped;
    assert_eq!(upgraded(&plan(&snapshot(8, vec![stopped], 100))), 2);
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

/// What becomes of an order in a world that is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Succeeds,
    Fails,
    /// The first one is taken back; another one succeeds.
    IsTakenBack,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        8 => Just(Outcome::Succeeds),
        1 => Just(Outcome::Fails),
        1 => Just(Outcome::IsTakenBack),
    ]
}

/// A tier on which the plan is carried out: each order ends after some seconds, well or not.
fn played(
    instances: &[(bool, Outcome, u64)],
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
    let mut taken_back = HashSet::new();
    for second in 0..200_000u64 {
        world.now = at(second);
        for (number, (_, outcome, takes_s)) in instances.iter().enumerate() {
            let ends = |member: &&mut RolloutMember| {
                member.instance == id(number)
                    && member.ended_at.is_none()
                    && world.now.since(member.begun_at) >= Duration::from_secs(*takes_s)
            };
            let Some(member) = world.members.iter_mut().find(ends) else {
                continue;
            };
            member.ended_at = Some(world.now);
            member.state = match outcome {
                Outcome::Fails => OperationState::Failed,
                Outcome::IsTakenBack if taken_back.insert(number) => OperationState::Canceled,
                Outcome::Succeeds | Outcome::IsTakenBack => OperationState::Succeeded,
            };
            if member.state == OperationState::Succeeded {
                world.candidates[number].version = Some(NEW.to_owned());
            }
        }
        let proven = in_state(&world, OperationState::Succeeded);
        let failed = in_state(&world, OperationState::Failed);
        let may_fail = usize::try_from(world.rollout.max_failures).unwrap();
        for action in plan(&world) {
            match action {
                Action::Upgrade(instance) => {
                    prop_assert!(failed <= may_fail, "begun after a failure");
                    let is_this = |known: &RolloutMember| known.instance == instance;
                    let known = world.members.iter().position(is_this);
                    if let Some(known) = known {
                        let known = world.members.swap_remove(known);
                        prop_assert_eq!(known.state, OperationState::Canceled, "twice");
                    }
                    world.members.push(RolloutMember {
                        instance,
                        begun_at: world.now,
                        ..member(0, OperationState::Running, None)
                    });
                }
                Action::Halt(_) => {
                    prop_assert!(failed > may_fail);
                    return Ok(states(&world));
                }
                Action::Finish => {
                    prop_assert!(failed <= may_fail);
                    return Ok(states(&world));
                }
            }
        }
        let under_way = in_state(&world, OperationState::Running);
        let wave = (instances.len() * percent).div_ceil(100).max(1);
        let most = if proven < canaries {
            canaries - proven
        } else {
            wave
        };
        prop_assert!(under_way <= most, "{under_way} at once, {most} allowed");
    }
    prop_assert!(false, "no end");
    Ok(HashMap::new())
}

fn in_state(world: &Snapshot, state: OperationState) -> usize {
    let is_in = |member: &&RolloutMember| member.state == state;
    world.members.iter().filter(is_in).count()
}

fn states(world: &Snapshot) -> HashMap<InstanceId, OperationState> {
    let of = |member: &RolloutMember| (member.instance, member.state);
    world.members.iter().map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Never more at once than a wave, nor than canaries before all of them have the version; halted exactly when more
    /// failed than may; nobody twice whose order was not taken back; the pinned never; and without failures everybody
    /// else in the end.
    #[test]
    fn any_rollout_ends_and_keeps_its_bounds(
        instances in proptest::collection::vec((any::<bool>(), outcome(), 1u64..40), 0..24),
        canaries in 0u32..4, wave_percent in 1u32..=100, max_failures in 0u32..3, soak_s in 0u32..50,
    ) {
        let rollout = Rollout { canaries, wave_percent, max_failures, soak_s, ..rollout() };
        let reached = played(&instances, rollout)?;
        let fails = |(pinned, outcome, _): &&(bool, Outcome, u64)| !pinned && *outcome == Outcome::Fails;
        let many = instances.iter().filter(fails).count();
        for (number, (pinned, outcome, _)) in instances.iter().enumerate() {
            let state = reached.get(&id(number));
            prop_assert!(!pinned || state.is_none(), "a pinned one was upgraded");
            if !pinned && *outcome != Outcome::Fails && many <= usize::try_from(max_failures).unwrap() {
                prop_assert_eq!(state, Some(&OperationState::Succeeded));
            }
        }
    }
}
