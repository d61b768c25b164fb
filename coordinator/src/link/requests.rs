//! Requests of a connected agent, each on a stream of its own: the next certificate, of the link or of the door; an
//! artefact. Whatever a request says, a certificate is for the server of the session's own.

use std::time::Duration;

use quinn::{RecvStream, SendStream};
use tidepool_certs::request::CheckedRequest;
use tidepool_shared::{
    frame::Kind,
    id::ServerId,
    message::{Door, Issued, Refused, Renew, Unsupported},
};
use tokio::time::timeout;

use super::{
    Context, door,
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
            certificate(&mut send, issued).await?;
        }
        Kind::DOOR => {
            let Door { csr } = frame.message().map_err(WireError::from)?;
            let issued = match CheckedRequest::check(&csr) {
                Ok(checked) => door::give(context, server, &checked).await,
                Err(_) => Err(refused()),
            };
            certificate(&mut send, issued).await?;
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

async fn certificate(
    send: &mut SendStream,
    issued: Result<Issued, Refused>,
) -> Result<(), WireError> {
    match issued {
        Ok(issued) => wire::write(send, &issued).await,
        Err(refused) => wire::write(send, &refused).await,
    }
}
