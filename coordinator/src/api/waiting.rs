//! Waiting for the store to say something, by doorbell and re-reading.

use std::time::Duration;

use tidepool_shared::id::InstanceId;
use tokio::time::{Instant, timeout_at};

use super::{
    ApiState,
    problem::{Code, Problem},
};
use crate::{
    doorbell::{Heard, Ring},
    model::Instance,
};

/// A ring may be lost; so look at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Waits until `done` holds of the instance, the time is up or the program ends; returns what the
/// instance is then.
pub(super) async fn until(
    state: &ApiState,
    id: InstanceId,
    patience: Duration,
    done: impl Fn(&Instance, bool) -> bool,
) -> Result<Instance, Problem> {
    let deadline = Instant::now() + patience;
    // Before the first look, so that nothing happens unheard between look and listening.
    let mut listener = state.doorbell.listen();
    loop {
        let instance = state.store.instance(id).await?;
        let instance = instance.ok_or_else(|| Problem::new(Code::NotFound, "no such instance"))?;
        let busy = state.store.current_operation(id).await?.is_some();
        if done(&instance, busy) || Instant::now() >= deadline || state.closing.is_cancelled() {
            return Ok(instance);
        }
        let look_again = deadline.min(Instant::now() + LOOK_AGAIN);
        tokio::select! {
            // A time-out is a look like any other.
            _ = timeout_at(look_again, rung(&mut listener, id)) => {}
            () = state.closing.cancelled() => {}
        }
    }
}

/// Waits for a ring that may concern the instance.
async fn rung(listener: &mut crate::doorbell::Listener, id: InstanceId) {
    loop {
        match listener.hear().await {
            Heard::Ring(Ring::Instance(rung)) if rung == id => return,
            Heard::Ring(
                Ring::Instance(_) | Ring::Server(_) | Ring::Pool | Ring::Images | Ring::Events,
            ) => {}
            Heard::Missed => return,
            // Nobody will ring any more; the timer is left.
            Heard::Closed => std::future::pending().await,
        }
    }
}
