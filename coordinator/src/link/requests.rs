//! Requests of a connected agent, each on a stream of its own: the next certificate, an artefact.

use std::time::Duration;

use quinn::{RecvStream, SendStream};
use tidepool_certs::request::CheckedRequest;
use tidepool_shared::{
    frame::Kind,
    id::ServerId,
    message::{Renew, Unsupported},
};
use tokio::time::timeout;

use super::{
    Context,
    issuing::refused,
    renewal,
    transfer::TransferError,
    wire::{self, FrameReader, WireError},
};

/// How long a request may take to arrive.
const DEADLINE: Duration = Duration::from_secs(10);

/// Answers one request.
pub(super) async fn answer(
    context: &Context,
    server: ServerId,
    mut send: SendStream,
    recv: RecvStream,
) -> Result<(), TransferError> {
    let frame = timeout(DEADLINE, FrameReader::control(recv).expect())
        .await
        .map_err(|_| WireError::Stalled)??;
    match frame.kind {
        Kind::RENEW => {
            let Renew { csr } = frame.message().map_err(WireError::from)?;
            let issued = match CheckedRequest::check(&csr) {
                Ok(checked) => renewal::renew(context, server, &checked).await,
                Err(_) => Err(refused()),
            };
            match issued {
                Ok(issued) => wire::write(&mut send, &issued).await?,
                Err(refused) => wire::write(&mut send, &refused).await?,
            }
        }
        Kind::FETCH_ARTEFACT => {
            let wanted = frame.message().map_err(WireError::from)?;
            context.transfers.serve(server, wanted, &mut send).await?;
        }
        Kind(kind) => wire::write(&mut send, &Unsupported { kind }).await?,
    }
    // A stream that is finished already was finished by us: nothing is lost.
    drop(send.finish());
    Ok(())
}
