//! Whether a server may have a session: what it says of itself, where it speaks from, and what the store
//! holds of it.

use std::net::IpAddr;

use serde_json::json;
use tidepool_shared::{capability, id::ServerId, message::Hello};
use tracing::warn;

use super::{Context, issuing::is_served};
use crate::{
    model::{Server, ServerState},
    store::StoreError,
};

/// The longest version text that is kept.
const MAX_VERSION_LEN: usize = 64;

/// The longest claimed id that is audited.
const MAX_CLAIMED_LEN: usize = 64;

/// Why a server has no session, or none any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    /// In words for the peer.
    #[error("{0}")]
    Refused(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(super) const NOT_SERVED: Denied = Denied::Refused("this server is not served");

/// When a server's right is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    Hello,
    Live,
}

/// Judges a hello that came from an address, before it costs the server's present session its place.
pub(super) async fn to_open(
    context: &Context,
    hello: &Hello,
    server: ServerId,
    from: IpAddr,
) -> Result<(), Denied> {
    if hello.server != server.to_string() {
        let cut = hello.server.floor_char_boundary(MAX_CLAIMED_LEN);
        let data = json!({ "claimed": hello.server.get(..cut) });
        context.audit("impersonation_refused", server, data).await;
        return Err(Denied::Refused("the certificate is another server's"));
    }
    if hello.capability < capability::MINIMUM || hello.minimum > capability::CURRENT {
        return Err(Denied::Refused("no common capability"));
    }
    for version in [&hello.openclaw_version, &hello.agent_version] {
        if version.len() > MAX_VERSION_LEN {
            return Err(Denied::Refused("version is too long"));
        }
        if version.contains(char::is_control) {
            return Err(Denied::Refused("version is no text"));
        }
    }
    let row = served(context, server, Occasion::Hello).await?;
    if row.address != Some(from) {
        // A key that was carried off is of no use elsewhere.
        warn!(server.id = %server, peer.address = %from, "a server's certificate was shown from another address");
        let data = json!({ "address": from });
        context.audit("wrong_address", server, data).await;
        return Err(Denied::Refused("this is not the server's address"));
    }
    Ok(())
}

/// The server's row, if it may have a session.
pub(super) async fn served(
    context: &Context,
    server: ServerId,
    occasion: Occasion,
) -> Result<Server, Denied> {
    let row = context.store.server(server).await?.ok_or(NOT_SERVED)?;
    if row.revoked {
        let during = match occasion {
            Occasion::Hello => "hello",
            Occasion::Live => "live",
        };
        let data = json!({ "during": during });
        context.audit("revoked_refused", server, data).await;
    }
    // Its last document shuts its doors: whoever was let in is not kept for as long as its address rests.
    let is_leaving = occasion == Occasion::Live && row.state == ServerState::Draining;
    if is_served(&row) || (is_leaving && !row.revoked) {
        Ok(row)
    } else {
        Err(NOT_SERVED)
    }
}
