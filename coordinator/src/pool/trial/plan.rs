//! What to do about trials next: a pure function of what the store says.

use std::collections::HashSet;

use tidepool_shared::id::ServerId;

use super::{super::plan, Policy, PoolAction};
use crate::{
    ambient::Moment,
    model::{PoolStanding, Server, ServerState, Verification},
};

/// What the store says.
pub(super) struct View<'a> {
    /// The trial that is under way.
    pub(super) verification: Option<&'a Verification>,
    /// The servers of trials that are not gone.
    pub(super) servers: &'a [Server],
    /// Those with a cloud call under way.
    pub(super) busy: HashSet<ServerId>,
    pub(super) now: Moment,
}

/// A thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action<'a> {
    /// Have the server made.
    Begin(&'a Verification),
    /// It is warm: look how it does.
    Measure(&'a Verification, &'a Server),
    /// It will come to nothing.
    Refuse(&'a Verification, String),
    /// What a pool does for its servers.
    Keep(PoolAction),
}

/// Decides.
pub(super) fn plan<'a>(policy: &Policy, view: &View<'a>) -> Vec<Action<'a>> {
    let upkeep = plan::upkeep(
        policy,
        &plan::View {
            servers: view.servers,
            busy: &view.busy,
            pending: 0,
            target: 0,
            standing: &PoolStanding::default(),
            cooling: &HashSet::new(),
            images: &std::collections::HashMap::new(),
            now: view.now,
        },
    );
    let own = view
        .verification
        .and_then(|verification| verification.server);
    // One that is being made is left until it is known what became of it: it could come to light afterwards.
    let over = view
        .servers
        .iter()
        .filter(|server| Some(server.id) != own && !view.busy.contains(&server.id))
        .filter(|server| may_retire(server.state))
        .map(|server| PoolAction::Retire(server.id));
    let kept = upkeep.into_iter().chain(over).map(Action::Keep);
    let next = view
        .verification
        .and_then(|verification| next(verification, view));
    kept.chain(next).collect()
}

fn next<'a>(verification: &'a Verification, view: &View<'a>) -> Option<Action<'a>> {
    let refuse = |why: &str| Some(Action::Refuse(verification, why.to_owned()));
    if view.now >= verification.expires_at {
        return refuse("it was not done in time");
    }
    let Some(id) = verification.server else {
        return Some(Action::Begin(verification));
    };
    let Some(server) = view.servers.iter().find(|server| server.id == id) else {
        return refuse("its server is gone");
    };
    match server.state {
        ServerState::Warm => Some(Action::Measure(verification, server)),
        ServerState::Planned | ServerState::Creating | ServerState::Booting => None,
        ServerState::Claimed
        | ServerState::Draining
        | ServerState::Deleting
        | ServerState::Gone
        | ServerState::Failed => refuse(
            server
                .failure
                .as_deref()
                .unwrap_or("its server was taken away"),
        ),
    }
}

fn may_retire(state: ServerState) -> bool {
    match state {
        ServerState::Booting | ServerState::Warm => true,
        ServerState::Planned
        | ServerState::Creating
        | ServerState::Claimed
        | ServerState::Draining
        | ServerState::Deleting
        | ServerState::Gone
        | ServerState::Failed => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidepool_shared::id::VerificationId;
    use uuid::Uuid;

    use super::*;
    use crate::{
        model::{VerificationState, sample},
        pool::trial::Trials,
    };

    const NOW: Moment = Moment(1_000_000_000_000);

    fn policy() -> Policy {
        let pool = Policy {
            pool: sample::pool(),
            placements: vec![sample::placement()],
            limits: tidepool_shared::document::GatewayLimits::default(),
            floor: 1,
            most_idle: 4,
            idle_budget_cents: None,
            hits_per_mille: 990,
            ceiling: 9,
            creating_at_once: 5,
            boot_deadline: Duration::from_mins(5),
            address_rest: Duration::from_secs(65),
            minimum_idle: Duration::from_hours(1),
            max_age: Duration::from_hours(1),
            failure_pause: Duration::from_secs(10),
            halt_after: 5,
            below_target_for: Duration::from_mins(10),
        };
        Trials::policy(&[pool]).unwrap()
    }

    fn id(number: u128) -> ServerId {
        ServerId::new(Uuid::from_u128(number))
    }

    fn server(number: u128, state: ServerState) -> Server {
        Server {
            state,
            pool: policy().pool,
            state_since: NOW,
            created_at: NOW,
            ..sample::server(id(number))
        }
    }

    fn verification(server: Option<u128>) -> Verification {
        Verification {
            id: VerificationId::new(Uuid::from_u128(1)),
            image: "2".to_owned(),
            state: VerificationState::Running,
            server: server.map(id),
            manifest: None,
            figures: None,
            baseline: None,
            problems: Vec::new(),
            created_at: NOW,
            expires_at: NOW.plus(Duration::from_mins(1)),
            finished_at: None,
        }
    }

    fn planned<'a>(
        verification: Option<&'a Verification>,
        servers: &'a [Server],
        now: Moment,
    ) -> Vec<Action<'a>> {
        let view = View {
            verification,
            servers,
            busy: HashSet::new(),
            now,
        };
        plan(&policy(), &view)
    }

    #[test]
    fn a_trial_gets_a_server_waits_for_it_and_measures_it_once_it_is_warm() {
        let wish = verification(None);
        assert_eq!(planned(Some(&wish), &[], NOW), [Action::Begin(&wish)]);
        let trial = verification(Some(1));
        assert_eq!(
            planned(Some(&trial), &[server(1, ServerState::Booting)], NOW),
            []
        );
        let warm = [server(1, ServerState::Warm)];
        assert_eq!(
            planned(Some(&trial), &warm, NOW),
            [Action::Measure(&trial, &warm[0])]
        );
    }

    #[test]
    fn a_server_that_fails_or_is_late_or_gone_is_the_end_of_its_trial() {
        let trial = verification(Some(1));
        let failed = [Server {
            failure: Some("no room".to_owned()),
            ..server(1, ServerState::Failed)
        }];
        let refused = |why: &str| Action::Refuse(&trial, why.to_owned());
        assert_eq!(planned(Some(&trial), &failed, NOW), [refused("no room")]);
        assert_eq!(
            planned(Some(&trial), &[], NOW),
            [refused("its server is gone")]
        );
        let booting = [server(1, ServerState::Booting)];
        let late = planned(Some(&trial), &booting, trial.expires_at);
        assert_eq!(late, [refused("it was not done in time")]);
    }

    #[test]
    fn servers_without_a_trial_are_retired_and_then_deleted_once_their_address_has_rested() {
        let left = [
            server(1, ServerState::Warm),
            server(2, ServerState::Planned),
        ];
        let kept = |action| Action::Keep(action);
        assert_eq!(
            planned(None, &left, NOW),
            [
                kept(PoolAction::Recover(id(2))),
                kept(PoolAction::Retire(id(1))),
            ]
        );
        let draining = [server(1, ServerState::Draining)];
        assert_eq!(planned(None, &draining, NOW), []);
        let rested = NOW.plus(Duration::from_secs(65));
        assert_eq!(
            planned(None, &draining, rested),
            [kept(PoolAction::Delete(id(1)))]
        );
    }

    #[test]
    fn a_server_with_a_call_under_way_is_left_alone() {
        let left = [server(1, ServerState::Booting)];
        let view = View {
            verification: None,
            servers: &left,
            busy: HashSet::from([id(1)]),
            now: NOW,
        };
        assert_eq!(plan(&policy(), &view), []);
    }
}
