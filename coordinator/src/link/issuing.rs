//! Issuing: a certificate for a server that the store still knows and has not revoked.

use tidepool_certs::{authority::Chain, request::CheckedRequest};
use tidepool_shared::{
    id::ServerId,
    message::{Issued, Refused},
};
use time::OffsetDateTime;
use tracing::{error, info};

use super::Context;
use crate::causes::chain;
use crate::model::{Server, ServerState};

/// Whether a server in this state may be enrolled and connected.
pub(super) fn is_served(server: &Server) -> bool {
    !server.revoked
        && match server.state {
            ServerState::Planned
            | ServerState::Creating
            | ServerState::Booting
            | ServerState::Warm
            | ServerState::Claimed => true,
            ServerState::Draining
            | ServerState::Deleting
            | ServerState::Gone
            | ServerState::Failed => false,
        }
}

/// Refused for good, in words that help no guesser.
pub(super) fn refused() -> Refused {
    Refused {
        reason: "not accepted".into(),
        retry: false,
    }
}

/// Refused for now.
pub(super) fn not_now() -> Refused {
    Refused {
        reason: "not ready".into(),
        retry: true,
    }
}

/// A server that may have a certificate, as the store has it now.
pub(super) async fn served(context: &Context, server: ServerId) -> Result<Server, Refused> {
    match context.store.server(server).await {
        Ok(Some(row)) if is_served(&row) => Ok(row),
        Ok(_) => Err(refused()),
        Err(failure) => {
            error!(server.id = %server, error = %chain(&failure), "no certificate issued");
            Err(not_now())
        }
    }
}

pub(super) fn now(context: &Context) -> Result<OffsetDateTime, Refused> {
    context.clock.now().calendar().ok_or_else(not_now)
}

/// The answer that holds a certificate.
pub(super) fn issued(chain: &Chain) -> Issued {
    Issued {
        chain: chain.iter().map(|der| der.to_vec().into()).collect(),
    }
}

/// Issues a certificate to a server, whose right to it is read from the store here.
pub(super) async fn issue(
    context: &Context,
    server: ServerId,
    request: &CheckedRequest,
) -> Result<Issued, Refused> {
    served(context, server).await?;
    let now = now(context)?;
    let life = context.settings.leaf_life;
    let chain = context
        .authority
        .issue(request, server, life, now)
        .map_err(|failure| {
            error!(server.id = %server, error = %chain(&failure), "no certificate issued");
            not_now()
        })?;
    info!(server.id = %server, "certificate issued");
    Ok(issued(&chain))
}
