//! Keeps the table in step with the store.

use std::{sync::Arc, time::Duration};

use tidepool_shared::id::InstanceId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::{
    doorbell::{Heard, Listener, Ring},
    store::Stored,
};

/// A lost ring costs at most this long.
const LOOK_OVER: Duration = Duration::from_secs(10);
/// After the store did not answer.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Follows the doorbell until cancelled.
pub(super) async fn follow(inner: Arc<Inner>, mut ear: Listener, cancel: CancellationToken) {
    let mut next_look = Instant::now() + LOOK_OVER;
    loop {
        let heard = tokio::select! {
            () = cancel.cancelled() => return,
            heard = ear.hear() => heard,
            () = tokio::time::sleep_until(next_look) => Heard::Missed,
        };
        let done = match heard {
            Heard::Ring(Ring::Instance(id)) => refresh(&inner, id).await,
            Heard::Ring(Ring::Server(_) | Ring::Pool | Ring::Images | Ring::Events) => Ok(()),
            Heard::Missed => {
                next_look = Instant::now() + LOOK_OVER;
                rebuild(&inner).await
            }
            Heard::Closed => return,
        };
        if let Err(error) = done {
            tracing::warn!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "routes not read"
            );
            next_look = Instant::now() + LOOK_AGAIN;
        }
    }
}

async fn refresh(inner: &Inner, id: InstanceId) -> Stored<()> {
    // First, so that it happens even if the store does not answer.
    inner.gate.forget_sessions(id);
    let routes = inner.store.routes.routes_of(id).await?;
    inner.table.replace_instance(id, routes);
    // A name that is gone leads nowhere, whatever its certificate.
    certificates(inner, Some(id)).await
}

async fn rebuild(inner: &Inner) -> Stored<()> {
    inner.table.replace_all(inner.store.routes.routes().await?);
    certificates(inner, None).await
}

async fn certificates(inner: &Inner, instance: Option<InstanceId>) -> Stored<()> {
    match &inner.domains {
        Some(certificates) => certificates.look(instance).await,
        None => Ok(()),
    }
}
