//! The certificate that a server's nginx shows to edges.
//!
//! That it was given is in the store before the agent has it: whoever has it is never again reached in clear.

use tidepool_certs::request::CheckedRequest;
use tidepool_shared::{
    id::ServerId,
    message::{Issued, Refused},
};
use tokio::time::Instant;
use tracing::{error, info};

use super::{
    Context,
    issuing::{self, not_now},
};
use crate::{causes::chain, doorbell::Ring, store::Transition};

/// Gives a server its next one, if it may still have any.
pub(super) async fn give(
    context: &Context,
    server: ServerId,
    request: &CheckedRequest,
) -> Result<Issued, Refused> {
    if !context.doors.take(server, Instant::now()) {
        return Err(not_now());
    }
    let issued = issue(context, server, request).await;
    if issued.is_err() {
        context.doors.give_back(&server);
    }
    issued
}

async fn issue(
    context: &Context,
    server: ServerId,
    request: &CheckedRequest,
) -> Result<Issued, Refused> {
    let row = issuing::served(context, server).await?;
    let now = issuing::now(context)?;
    let made = context.authority.door(request, server, now);
    let chain = made.map_err(|failure| {
        error!(server.id = %server, error = %chain(&failure), "no certificate issued for a door");
        not_now()
    })?;
    match context.store.record_door(server).await {
        Ok(Transition::Done) => {
            // Edges come by another way from now on.
            context.doorbell.ring(Ring::Server(server));
            if let Some(instance) = row.instance {
                context.doorbell.ring(Ring::Instance(instance));
            }
        }
        Ok(Transition::NotPossible) => {}
        Err(failure) => {
            error!(server.id = %server, error = %crate::causes::chain(&failure), "door not recorded");
            return Err(not_now());
        }
    }
    info!(server.id = %server, "certificate issued for a door");
    Ok(issuing::issued(&chain))
}
