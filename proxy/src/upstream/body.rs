//! The body of an answer as it comes.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::{
    Broken, Transport,
    framing::{Framing, Malformed},
    idle::{Idle, Origin},
};

/// What is still to come. Dropped before its end it closes the connection, which is what stops a model.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// `None` when the body has ended, or broke.
    transport: Option<Transport>,
    framing: Framing,
    /// Came with the head.
    early: Bytes,
    /// Where the connection goes when it may be used again.
    reuse: Option<(Arc<Idle>, Origin)>,
}

impl Incoming {
    pub(super) fn new(
        transport: Transport,
        framing: Framing,
        mut received: Vec<u8>,
        reuse: Option<(Arc<Idle>, Origin)>,
    ) -> Result<Self, Malformed> {
        let mut body = Self {
            transport: Some(transport),
            framing,
            early: Bytes::new(),
            reuse,
        };
        body.early = body.decode(&mut received)?;
        Ok(body)
    }

    /// The next bytes, as many as came at once; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Option<Result<Bytes, Broken>> {
        poll_fn(|context| self.poll_chunk(context)).await
    }

    /// See [`chunk`](Self::chunk).
    pub(crate) fn poll_chunk(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        if !self.early.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.early))));
        }
        while let Some(transport) = &mut self.transport {
            let framing = &mut self.framing;
            let read = transport.poll_read(context, |bytes| match bytes.len() {
                0 if framing.may_close() => Ok(None),
                0 => Err(Broken::CutOff),
                _ => Ok(Some(decoded(framing, bytes)?)),
            });
            match ready!(read).unwrap_or_else(|error| Err(Broken::Read(error))) {
                Ok(Some((payload, is_all))) => {
                    self.retire(is_all);
                    if !payload.is_empty() {
                        return Poll::Ready(Some(Ok(payload)));
                    }
                }
                Ok(None) => self.transport = None,
                Err(broken) => {
                    self.transport = None;
                    return Poll::Ready(Some(Err(broken)));
                }
            }
        }
        Poll::Ready(None)
    }

    fn decode(&mut self, bytes: &mut [u8]) -> Result<Bytes, Malformed> {
        let (payload, is_all) = decoded(&mut self.framing, bytes)?;
        self.retire(is_all);
        Ok(payload)
    }

    /// Lets go of the connection when the body has ended; one that says more than was asked is closed.
    fn retire(&mut self, is_all: bool) {
        if !self.framing.is_ended() {
            return;
        }
        if let (Some(transport), Some((idle, origin)), true) =
            (self.transport.take(), self.reuse.take(), is_all)
        {
            idle.put(&origin, transport);
        }
    }
}

/// The payload, and whether the bytes were all of this body.
fn decoded(framing: &mut Framing, bytes: &mut [u8]) -> Result<(Bytes, bool), Malformed> {
    let decoded = framing.decode(bytes)?;
    let payload = bytes.get(..decoded.payload).unwrap_or_default();
    Ok((
        Bytes::copy_from_slice(payload),
        decoded.consumed == bytes.len(),
    ))
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.poll_chunk(context)
            .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}
