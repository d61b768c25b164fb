//! Frames on QUIC streams, as this end reads and writes them.

use std::time::Duration;

use quinn::{RecvStream, SendStream};
use tidepool_shared::frame::{Assembly, Frame, FrameError, Message};
use tokio::time::timeout;

/// How long the coordinator may leave a frame unread before the link counts as broken.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// The most that is taken off a stream at once.
const PIECE: usize = 16 * 1024;

/// Why no frame could be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("read stream")]
    Read(#[from] quinn::ReadError),
    #[error("write stream")]
    Write(#[from] quinn::WriteError),
    #[error("frame")]
    Frame(#[from] FrameError),
    #[error("stream ended in the middle of a frame")]
    Torn,
    #[error("stream ended where an answer was due")]
    NoAnswer,
    #[error("peer does not read")]
    Stalled,
}

/// Reads frames. Cancel-safe.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: RecvStream,
    assembly: Assembly,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            assembly: Assembly::default(),
        }
    }

    /// The next frame; `None` when the peer finished the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, WireError> {
        loop {
            if let Some(frame) = self.assembly.next_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(PIECE, true).await? {
                Some(chunk) => self.assembly.push(&chunk.bytes),
                None if self.assembly.is_mid_frame() => return Err(WireError::Torn),
                None => return Ok(None),
            }
        }
    }

    /// The stream itself and what has come on it already, where no more frames follow.
    pub(crate) fn into_rest(self) -> (RecvStream, Vec<u8>) {
        (self.stream, self.assembly.into_rest())
    }

    /// The next frame, which must come.
    pub(crate) async fn answer(&mut self) -> Result<Frame, WireError> {
        self.next().await?.ok_or(WireError::NoAnswer)
    }
}

/// Writes a message as a frame. Not cancel-safe: half a frame would spoil the stream.
pub(crate) async fn write<M: Message>(
    stream: &mut SendStream,
    message: &M,
) -> Result<(), WireError> {
    let bytes = Frame::of(message).encode()?;
    timeout(WRITE_DEADLINE, stream.write_all(&bytes))
        .await
        .map_err(|_| WireError::Stalled)??;
    Ok(())
}
