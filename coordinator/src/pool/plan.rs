//! What the pool should do next: a pure function of what the store says.
//!
//! Invariants, held by the property tests below: a claimed server is never touched; there are never
//! more servers than the ceiling allows; never more creations at once than allowed; repeating the
//! plan until nothing is left to do ends with as many warm servers as wanted, and no more.

use std::{collections::HashSet, time::Duration};

use tidepool_shared::id::ServerId;

use crate::{
    ambient::Moment,
    cloud::Placement,
    model::{Server, ServerState},
};

/// How large a tier's pool should be, and how patient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub tier: String,
    pub placement: Placement,
    /// Warm servers wanted while nobody waits.
    pub size: u32,
    /// Servers of the tier that may exist at once, claimed ones included.
    pub ceiling: u32,
    /// Servers that may be on their way at once: starting one costs a local machine 15 CPU seconds.
    pub creating_at_once: u32,
    /// A server that is not warm after this long is given up.
    pub boot_deadline: Duration,
    /// A server is not removed as surplus before it was idle for this long.
    pub minimum_idle: Duration,
    /// After failures, the pause before the next order: this, doubled per failure in sight.
    pub failure_pause: Duration,
}

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// What the store says.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// All servers that are not gone.
    pub servers: &'a [Server],
    /// Those with a cloud call under way.
    pub busy: &'a HashSet<ServerId>,
    /// Customers who wait for a server.
    pub pending: u32,
    pub now: Moment,
}

/// A thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Have one more server made.
    Order,
    /// Find out what became of a creation that a crash interrupted.
    Recover(ServerId),
    /// Give up a server that did not become warm.
    Fail(ServerId, &'static str),
    /// Take an idle server out of service: there are too many.
    Retire(ServerId),
    /// Delete a server that nobody uses any more.
    Delete(ServerId),
}

/// Decides.
pub fn plan(policy: &Policy, view: &View<'_>) -> Vec<Action> {
    let mut actions = upkeep(policy, view);
    let count = |states: &[ServerState]| count(policy, view, states);
    let warm = count(&[ServerState::Warm]);
    let coming = count(&COMING);
    let wanted = view.pending.saturating_add(policy.size);
    let missing = wanted.saturating_sub(warm + coming);
    if missing > 0 {
        let all =
            count(&[ServerState::Warm, ServerState::Claimed]) + coming + leaving(policy, view);
        let room = policy.ceiling.saturating_sub(all);
        let slots = policy.creating_at_once.saturating_sub(coming);
        let orders = if is_pausing(policy, view) {
            0
        } else {
            missing.min(room).min(slots)
        };
        actions.extend((0..orders).map(|_| Action::Order));
    } else {
        actions.extend(surplus(policy, view, (warm + coming) - wanted));
    }
    actions
}

const COMING: [ServerState; 3] = [
    ServerState::Planned,
    ServerState::Creating,
    ServerState::Booting,
];

/// What must be done whatever the numbers are.
fn upkeep(policy: &Policy, view: &View<'_>) -> Vec<Action> {
    ours(policy, view)
        .filter(|server| !view.busy.contains(&server.id))
        .filter_map(|server| match server.state {
            ServerState::Planned | ServerState::Creating => Some(Action::Recover(server.id)),
            ServerState::Booting if view.now.since(server.state_since) > policy.boot_deadline => {
                Some(Action::Fail(server.id, "not warm in time"))
            }
            ServerState::Draining | ServerState::Deleting => Some(Action::Delete(server.id)),
            // A failed server is kept in sight for its pause, so that failures slow orders down.
            ServerState::Failed if view.now.since(server.state_since) >= pause(policy, view) => {
                Some(Action::Delete(server.id))
            }
            ServerState::Booting
            | ServerState::Warm
            | ServerState::Claimed
            | ServerState::Gone
            | ServerState::Failed => None,
        })
        .collect()
}

/// Idle servers beyond the target, the oldest first.
fn surplus(policy: &Policy, view: &View<'_>, excess: u32) -> Vec<Action> {
    let mut idle: Vec<_> = ours(policy, view)
        .filter(|server| server.state == ServerState::Warm)
        .filter(|server| view.now.since(server.state_since) >= policy.minimum_idle)
        .collect();
    idle.sort_by_key(|server| (server.state_since, server.id));
    let excess = usize::try_from(excess).unwrap_or(usize::MAX);
    idle.into_iter()
        .take(excess)
        .map(|server| Action::Retire(server.id))
        .collect()
}

fn failures(policy: &Policy, view: &View<'_>) -> u32 {
    count(policy, view, &[ServerState::Failed])
}

fn pause(policy: &Policy, view: &View<'_>) -> Duration {
    let doublings = failures(policy, view).saturating_sub(1).min(16);
    policy
        .failure_pause
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE)
}

fn is_pausing(policy: &Policy, view: &View<'_>) -> bool {
    ours(policy, view)
        .filter(|server| server.state == ServerState::Failed)
        .map(|server| server.state_since)
        .max()
        .is_some_and(|last| view.now.since(last) < pause(policy, view))
}

fn leaving(policy: &Policy, view: &View<'_>) -> u32 {
    count(
        policy,
        view,
        &[
            ServerState::Draining,
            ServerState::Deleting,
            ServerState::Failed,
        ],
    )
}

fn ours<'a>(policy: &Policy, view: &View<'a>) -> impl Iterator<Item = &'a Server> {
    let tier = policy.tier.clone();
    view.servers
        .iter()
        .filter(move |server| server.tier == tier)
}

fn count(policy: &Policy, view: &View<'_>, states: &[ServerState]) -> u32 {
    let number = ours(policy, view)
        .filter(|server| states.contains(&server.state))
        .count();
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidepool_shared::document::Generation;
    use uuid::Uuid;

    use super::*;
    use crate::model::Health;

    fn policy() -> Policy {
        Policy {
            tier: "basic".into(),
            placement: Placement {
                server_type: "small".into(),
                location: "here".into(),
            },
            size: 3,
            ceiling: 12,
            creating_at_once: 2,
            boot_deadline: Duration::from_mins(5),
            minimum_idle: Duration::from_mins(10),
            failure_pause: Duration::from_secs(10),
        }
    }

    fn server(number: u128, state: ServerState, since: Moment) -> Server {
        Server {
            id: ServerId::new(Uuid::from_u128(number)),
            name: format!("s{number}"),
            tier: "basic".into(),
            state,
            cloud_id: None,
            address: None,
            instance: None,
            openclaw_version: None,
            epoch: 0,
            holder: None,
            served: Generation(0),
            observed: Generation(0),
            health: Health::Unknown,
            reasons: Vec::new(),
            gateway_starts: 0,
            revoked: false,
            failure: None,
            created_at: since,
            state_since: since,
        }
    }

    fn any_state() -> impl Strategy<Value = ServerState> {
        use ServerState::{Booting, Claimed, Creating, Deleting, Draining, Failed, Planned, Warm};
        prop::sample::select(vec![
            Planned, Creating, Booting, Warm, Claimed, Draining, Deleting, Failed,
        ])
    }

    prop_compose! {
        fn any_pool()(
            rows in prop::collection::vec((any_state(), 0i64..4_000_000_000, any::<bool>()), 0..16),
        ) -> (Vec<Server>, HashSet<ServerId>) {
            let servers: Vec<_> = (1u128..)
                .zip(&rows)
                .map(|(number, (state, since, _))| server(number, *state, Moment(*since)))
                .collect();
            let busy = servers.iter().zip(&rows).filter(|(_, row)| row.2).map(|(s, _)| s.id).collect();
            (servers, busy)
        }
    }

    const NOW: Moment = Moment(4_000_000_000);

    /// What the actions lead to when all of them succeed and every server boots.
    fn play(servers: &mut Vec<Server>, actions: &[Action], now: Moment, next: &mut u128) {
        for action in actions {
            match action {
                Action::Order => {
                    *next += 1;
                    servers.push(server(*next, ServerState::Booting, now));
                }
                Action::Delete(id) => servers.retain(|server| server.id != *id),
                Action::Recover(id) | Action::Fail(id, _) => {
                    set(servers, *id, ServerState::Failed, now);
                }
                Action::Retire(id) => set(servers, *id, ServerState::Draining, now),
            }
        }
    }

    fn set(servers: &mut [Server], id: ServerId, state: ServerState, now: Moment) {
        for server in servers.iter_mut().filter(|server| server.id == id) {
            server.state = state;
            server.state_since = now;
        }
    }

    proptest! {
        #[test]
        fn a_claimed_server_is_never_touched((servers, busy) in any_pool(), pending in 0u32..20) {
            let view = View { servers: &servers, busy: &busy, pending, now: NOW };
            for action in plan(&policy(), &view) {
                let id = match action {
                    Action::Order => continue,
                    Action::Recover(id) | Action::Fail(id, _)
                    | Action::Retire(id) | Action::Delete(id) => id,
                };
                let state = servers.iter().find(|server| server.id == id).map(|server| server.state);
                prop_assert!(state.is_some_and(|state| state != ServerState::Claimed));
            }
        }

        #[test]
        fn orders_respect_the_ceiling_and_the_slots((servers, busy) in any_pool(), pending in 0u32..20) {
            let view = View { servers: &servers, busy: &busy, pending, now: NOW };
            let orders = plan(&policy(), &view).iter().filter(|a| **a == Action::Order).count();
            prop_assert!(orders == 0 || servers.len() + orders <= 12);
            let coming = servers.iter().filter(|server| COMING.contains(&server.state)).count();
            prop_assert!(orders == 0 || coming + orders <= 2);
        }

        #[test]
        fn a_busy_server_is_left_alone((servers, busy) in any_pool(), pending in 0u32..20) {
            let view = View { servers: &servers, busy: &busy, pending, now: NOW };
            for action in plan(&policy(), &view) {
                if let Action::Recover(id) | Action::Delete(id) | Action::Fail(id, _) = action {
                    prop_assert!(!busy.contains(&id));
                }
            }
        }

        #[test]
        fn repeating_the_plan_converges((mut servers, _) in any_pool()) {
            let (busy, mut now, mut next) = (HashSet::new(), NOW, 1000);
            let claimed = |servers: &[Server]| {
                servers.iter().filter(|server| server.state == ServerState::Claimed).count()
            };
            let kept = claimed(&servers);
            for _ in 0..64 {
                let view = View { servers: &servers, busy: &busy, pending: 0, now };
                let actions = plan(&policy(), &view);
                play(&mut servers, &actions, now, &mut next);
                for server in &mut servers {
                    if server.state == ServerState::Booting {
                        server.state = ServerState::Warm;
                    }
                }
                now = now.plus(Duration::from_mins(11));
            }
            let warm = servers.iter().filter(|server| server.state == ServerState::Warm).count();
            prop_assert_eq!(claimed(&servers), kept);
            prop_assert_eq!(warm, 3.min(12usize.saturating_sub(kept)));
            prop_assert_eq!(servers.len(), warm + kept);
        }
    }

    #[test]
    fn waiting_customers_add_to_the_target() {
        let busy = HashSet::new();
        let view = View {
            servers: &[],
            busy: &busy,
            pending: 5,
            now: NOW,
        };
        let generous = Policy {
            creating_at_once: 50,
            ..policy()
        };
        assert_eq!(plan(&generous, &view), vec![Action::Order; 8]);
    }

    #[test]
    fn a_server_that_boots_for_too_long_is_given_up() {
        let servers = [server(1, ServerState::Booting, Moment(0))];
        let busy = HashSet::new();
        let view = View {
            servers: &servers,
            busy: &busy,
            pending: 0,
            now: NOW,
        };
        let id = servers[0].id;
        assert!(plan(&policy(), &view).contains(&Action::Fail(id, "not warm in time")));
    }

    #[test]
    fn a_fresh_failure_holds_orders_back() {
        let servers = [server(1, ServerState::Failed, NOW)];
        let busy = HashSet::new();
        let view = View {
            servers: &servers,
            busy: &busy,
            pending: 3,
            now: NOW,
        };
        assert_eq!(plan(&policy(), &view), vec![]);
    }

    #[test]
    fn a_young_idle_server_is_not_surplus() {
        let servers: Vec<_> = (1..=5).map(|n| server(n, ServerState::Warm, NOW)).collect();
        let busy = HashSet::new();
        let view = View {
            servers: &servers,
            busy: &busy,
            pending: 0,
            now: NOW,
        };
        assert_eq!(plan(&policy(), &view), vec![]);
    }
}
