//! A restart of the gateway in its own process, seen to its end.
//!
//! Two signs prove it, because each can be missed: the word `[gateway] ready`, which a customer may
//! have turned off (`logging.consoleLevel`), and the closed listener, which a quick restart opens again
//! between two looks. An unanswered request is no sign at all: a busy event loop leaves many.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Deadlines, POLL, RestartSignal, proof::says_ready};
use crate::{
    gateway::{Gateway, Startup},
    runtime::{Runtime, State},
};

/// Sends the restart signal, which only a gateway that has started may get, and waits until it
/// takes traffic again; `false` when it did not in time, and then it is of no use any more.
pub async fn restart_by_signal(
    runtime: &dyn Runtime,
    gateway: &Gateway,
    signal: RestartSignal,
    deadlines: Deadlines,
) -> bool {
    let mut since = runtime.log().end();
    if let Err(error) = runtime.restart_by(signal).await {
        tracing::warn!(%error, "the gateway was not signalled to restart");
        return false;
    }
    let said_ready = || {
        // An unreadable log is silence: the deadline decides.
        let lines = runtime.log().read(&mut since).unwrap_or_default();
        lines.iter().any(|line| says_ready(line))
    };
    has_gone_through_restart(runtime, gateway, said_ready, deadlines).await
}

/// Waits for the end of a restart that is under way.
pub(super) async fn has_gone_through_restart(
    runtime: &dyn Runtime,
    gateway: &Gateway,
    mut said_ready: impl FnMut() -> bool,
    deadlines: Deadlines,
) -> bool {
    let mut deadline = Instant::now() + deadlines.close;
    let mut closed = false;
    while !said_ready() {
        if Instant::now() >= deadline || runtime.state().await != State::Running {
            return false;
        }
        if !closed && gateway.refuses_connections().await {
            closed = true;
            deadline = Instant::now() + deadlines.start;
        }
        if closed && gateway.startup().await == Startup::Started {
            return true;
        }
        sleep(POLL).await;
    }
    comes_up(runtime, gateway, deadlines.start).await
}

/// Whether the gateway takes traffic in time; a process that has ended is not waited for.
pub(super) async fn comes_up(runtime: &dyn Runtime, gateway: &Gateway, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if gateway.startup().await == Startup::Started {
            return true;
        }
        if runtime.state().await != State::Running {
            return false;
        }
        sleep(POLL).await;
    }
    false
}
