//! Requests of a connected agent, each on a stream of its own. The one kind there is asks for the next
//! certificate; it is for the server of the session's own certificate, whatever the request says.

use std::time::Duration;

use quinn::{RecvStream, SendStream};
use tidepool_certs::request::CheckedRequest;
use tidepool_shared::{
    frame::Kind,
    id::ServerId,
    message::{Issued, Refused, Renew, Unsupported},
};
use tokio::time::{Instant, timeout};

use super::{
    Context,
    issuing::{issue, not_now, refused},
    recent::Recent,
    wire::{self, FrameReader, WireError},
};

/// How long a request may take to arrive.
const DEADLINE: Duration = Duration::from_secs(10);

/// A server gets one certificate in so much time, however often it connects anew.
const PAUSE: Duration = Duration::from_mins(1);

/// More servers than this do not renew within one pause.
const REMEMBERED: usize = 65_536;

/// Whose certificate was renewed a short while ago.
pub(super) fn recent() -> Recent<ServerId> {
    Recent::new(PAUSE, REMEMBERED)
}

/// Answers one request.
pub(super) async fn answer(
    context: &Context,
    server: ServerId,
    mut send: SendStream,
    recv: RecvStream,
) -> Result<(), WireError> {
    let frame = timeout(DEADLINE, FrameReader::control(recv).expect())
        .await
        .map_err(|_| WireError::Stalled)??;
    if frame.kind == Kind::RENEW {
        let Renew { csr } = frame.message()?;
        let issued = match CheckedRequest::check(&csr) {
            Ok(checked) => renew(context, server, &checked).await,
            Err(_) => Err(refused()),
        };
        match issued {
            Ok(issued) => wire::write(&mut send, &issued).await?,
            Err(refused) => wire::write(&mut send, &refused).await?,
        }
    } else {
        let kind = frame.kind.0;
        wire::write(&mut send, &Unsupported { kind }).await?;
    }
    // A stream that is finished already was finished by us: nothing is lost.
    drop(send.finish());
    Ok(())
}

async fn renew(
    context: &Context,
    server: ServerId,
    request: &CheckedRequest,
) -> Result<Issued, Refused> {
    if !context.renewed.take(server, Instant::now()) {
        return Err(not_now());
    }
    let issued = issue(context, server, request).await;
    if issued.is_err() {
        context.renewed.give_back(&server);
    }
    issued
}
