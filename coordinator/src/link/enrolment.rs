//! Enrolment: one request per connection, a token against a certificate.
//!
//! The request is checked before the token is spent, so that a garbled one costs the server nothing; the
//! store spends it in one statement, bound to the server and to the address that it was made for.
//!
//! Anybody may ask here, so nothing durable comes of a request that shows nothing of ours, and the log has
//! one line for many of them. A real token that was refused is asked about once a minute per address.

use std::net::IpAddr;

use quinn::{Connection, SendStream};
use sha2::{Digest as _, Sha256};
use tidepool_certs::request::CheckedRequest;
use tidepool_shared::{
    capability::{self, close},
    frame::Kind,
    id::ServerId,
    message::{Enrol, Issued, Refused, Unsupported},
};
use tokio::time::{Instant, timeout};
use tracing::{debug, error, info};

use super::{
    Context,
    issuing::{issue, not_now, refused},
    wire::{self, FrameReader, WireError},
};
use crate::{
    causes::chain,
    doorbell::Ring,
    model::{Blame, ServerState},
    store::{Redemption, StoreError},
};

/// Longer texts are not tokens.
const MAX_TOKEN_LEN: usize = 128;

/// Serves an enrolment and closes the connection.
pub(super) async fn serve(context: &Context, connection: &Connection) {
    match timeout(
        context.settings.enrol_deadline,
        exchange(context, connection),
    )
    .await
    {
        Ok(Ok(())) => connection.close(close::GOODBYE.into(), b"answered"),
        Ok(Err(failure)) => {
            let peer = connection.remote_address();
            debug!(%peer, error = %chain(&failure), "enrolment broke off");
            connection.close(close::BROKEN.into(), b"not an enrolment");
        }
        Err(_) => connection.close(close::BROKEN.into(), b"too slow"),
    }
}

async fn exchange(context: &Context, connection: &Connection) -> Result<(), WireError> {
    let (mut send, recv) = connection
        .accept_bi()
        .await
        .map_err(quinn::ReadError::from)?;
    let frame = FrameReader::control(recv).expect().await?;
    if frame.kind == Kind::ENROL {
        match enrol(context, connection, &frame.message()?).await {
            Ok(issued) => wire::write(&mut send, &issued).await?,
            Err(refused) => wire::write(&mut send, &refused).await?,
        }
    } else {
        let kind = frame.kind.0;
        wire::write(&mut send, &Unsupported { kind }).await?;
    }
    finished(send).await;
    Ok(())
}

/// Waits until the peer has the answer: closing at once could overtake it.
async fn finished(mut send: SendStream) {
    if send.finish().is_ok() {
        // Either way the stream is over.
        drop(send.stopped().await);
    }
}

async fn enrol(
    context: &Context,
    connection: &Connection,
    request: &Enrol,
) -> Result<Issued, Refused> {
    let address = connection.remote_address().ip().to_canonical();
    if request.capability < capability::MINIMUM || request.token.len() > MAX_TOKEN_LEN {
        return Err(refused());
    }
    let server: ServerId = request.server.parse().map_err(|_| refused())?;
    let checked = CheckedRequest::check(&request.csr).map_err(|failure| {
        if let Some(suppressed) = context.audit.strangers.pass(Instant::now()) {
            info!(server.id = %server, suppressed, error = %chain(&failure), "enrolment refused");
        }
        refused()
    })?;
    let asking = (server, address);
    if context.audit.refused.holds(&asking, Instant::now()) {
        return Err(refused());
    }
    let token_hash = Sha256::digest(request.token.as_bytes()).into();
    let now = context.clock.now();
    match context.store.redeem(token_hash, server, address, now).await {
        Ok(Redemption::Accepted) => {
            note_manifest(context, server, &request.manifest).await;
            issue(context, server, &checked).await
        }
        Ok(Redemption::TooEarly) => Err(not_now()),
        Ok(Redemption::Unknown) => {
            if let Some(suppressed) = context.audit.strangers.pass(Instant::now()) {
                info!(server.id = %server, peer.address = %address, suppressed, "unknown enrolment token");
            }
            Err(refused())
        }
        // The store has written the audit event, with the reason that the peer is not told.
        Ok(
            Redemption::AlreadyUsed
            | Redemption::Expired
            | Redemption::WrongAddress
            | Redemption::NotServed,
        ) => {
            context.audit.refused.take(asking, Instant::now());
            context.doorbell.ring(Ring::Events);
            replace_if_stranded(context, server, address).await;
            Err(refused())
        }
        Err(failure) => {
            error!(server.id = %server, error = %chain(&failure), "enrolment not decided");
            Err(not_now())
        }
    }
}

/// What the agent says that is in its image, for whoever tries that image. Nothing of a server depends on it.
async fn note_manifest(context: &Context, server: ServerId, text: &str) {
    let manifest = match serde_json::from_str(text) {
        Ok(manifest) => manifest,
        Err(error) => {
            debug!(server.id = %server, %error, "an agent's manifest is not understood");
            return;
        }
    };
    if let Err(failure) = context.store.note_manifest(server, &manifest).await {
        error!(server.id = %server, error = %chain(&failure), "an agent's manifest is not noted");
    }
}

/// A server that spent its token, never had a link and asks again did not get its certificate: it died
/// meanwhile, and there is no second one. It is replaced now, not when its time to boot is over.
async fn replace_if_stranded(context: &Context, server: ServerId, address: IpAddr) {
    let stranded = async {
        let Some(row) = context.store.server(server).await? else {
            return Ok(());
        };
        let is_stranded =
            row.state == ServerState::Booting && row.epoch == 0 && row.address == Some(address);
        if is_stranded {
            let why = "its certificate was issued and did not arrive";
            let now = context.clock.now();
            let marked = context.store.mark_failed(server, why, Blame::Server, now);
            marked.await?;
            context.doorbell.ring(Ring::Pool);
        }
        Ok::<(), StoreError>(())
    };
    if let Err(failure) = stranded.await {
        error!(server.id = %server, error = %chain(&failure), "stranded server not replaced");
    }
}
