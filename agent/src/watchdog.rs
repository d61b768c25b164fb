//! systemd's view of the agent: that it has started, that it is alive, that it is about to end.
//!
//! Everything of the agent runs on one thread, so a ping from that thread says that nothing blocks it.
//! Without systemd there is nobody to tell, and nothing is told.

use std::{convert::Infallible, future, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

/// Pings as often as systemd asks, until dropped. The first says that the agent has started.
pub async fn keep() -> Infallible {
    tell(&NotifyState::Ready);
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return future::pending().await;
    };
    // A third: two may be late.
    let mut ticks = interval((patience / 3).max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell(&NotifyState::Watchdog);
    }
}

/// Says that the end is wanted.
pub fn stopping() {
    tell(&NotifyState::Stopping);
}

fn tell(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "systemd was not told");
    }
}
