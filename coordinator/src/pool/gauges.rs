//! The pool's gauges, for whoever scrapes metrics.

use metrics::gauge;

use super::plan::{Policy, View};
use crate::model::ServerState;

const STATES: [ServerState; 8] = [
    ServerState::Planned,
    ServerState::Creating,
    ServerState::Booting,
    ServerState::Warm,
    ServerState::Claimed,
    ServerState::Draining,
    ServerState::Deleting,
    ServerState::Failed,
];

/// Sets them to what a turn saw.
pub(super) fn show(policy: &Policy, view: &View<'_>) {
    let labels = [
        ("tier", policy.pool.tier.clone()),
        ("region", policy.pool.region.clone()),
    ];
    let count = |state| {
        let servers = view.servers.iter();
        let number = servers
            .filter(|server| server.pool == policy.pool && server.state == state)
            .count();
        f64::from(u32::try_from(number).unwrap_or(u32::MAX))
    };
    for state in STATES {
        let [tier, region] = labels.clone();
        let labels = [tier, region, ("state", state.word().to_owned())];
        gauge!("tidepool_pool_servers", &labels).set(count(state));
    }
    let below = f64::from(view.target) - count(ServerState::Warm);
    let standing = view.standing;
    for (name, value) in [
        ("tidepool_pool_target", f64::from(view.target)),
        ("tidepool_pool_below_target", below.max(0.0)),
        ("tidepool_pool_waiting", f64::from(view.pending)),
        (
            "tidepool_pool_failures_in_a_row",
            f64::from(standing.failures),
        ),
        ("tidepool_pool_halted", f64::from(u8::from(standing.halted))),
        ("tidepool_pool_paused", f64::from(u8::from(standing.paused))),
    ] {
        gauge!(name, &labels).set(value);
    }
}
