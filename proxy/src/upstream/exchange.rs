//! A request on its way out, and the head of the answer on its way in.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, buf::Chain};

use super::{
    Broken, Transport,
    head::{self, Head},
};

/// Both at once: a provider may refuse a body before it has read it.
#[derive(Debug)]
pub(super) struct Exchange {
    transport: Transport,
    unsent: Chain<Bytes, Bytes>,
    is_flushed: bool,
    /// Nothing more can be sent; an answer may have come all the same.
    send_error: Option<io::Error>,
    received: Vec<u8>,
}

impl Exchange {
    pub(super) fn new(transport: Transport, head: Bytes, body: Bytes) -> Self {
        Self {
            transport,
            unsent: head.chain(body),
            is_flushed: false,
            send_error: None,
            received: Vec::new(),
        }
    }

    /// Until the head of the final answer is here.
    pub(super) async fn run(&mut self) -> Result<Head, Broken> {
        poll_fn(|context| self.poll(context)).await
    }

    /// Whether all of the request has gone.
    pub(super) fn is_sent(&self) -> bool {
        self.is_flushed
    }

    /// Whether the provider has said nothing.
    pub(super) fn is_unheard(&self) -> bool {
        self.received.is_empty()
    }

    /// The connection, and what came behind the head.
    pub(super) fn into_rest(mut self, head_bytes: usize) -> (Transport, Vec<u8>) {
        self.received.drain(..head_bytes);
        (self.transport, self.received)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Head, Broken>> {
        self.poll_send(context);
        loop {
            let received = &mut self.received;
            let read = self.transport.poll_read(context, |bytes| {
                received.extend_from_slice(bytes);
                bytes.len()
            });
            match ready!(read) {
                Ok(1..) => {}
                Ok(0) => return Poll::Ready(Err(self.failed(Broken::CutOff))),
                Err(error) => return Poll::Ready(Err(self.failed(Broken::Read(error)))),
            }
            while let Some(head) = head::read(&self.received)? {
                if !head.status.is_informational() {
                    return Poll::Ready(Ok(head));
                }
                self.received.drain(..head.bytes);
            }
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) {
        if self.is_flushed || self.send_error.is_some() {
            return;
        }
        match self.transport.poll_write_all(context, &mut self.unsent) {
            Poll::Ready(Ok(())) => self.is_flushed = true,
            Poll::Ready(Err(error)) => self.send_error = Some(error),
            Poll::Pending => {}
        }
    }

    /// What came first is the cause.
    fn failed(&mut self, then: Broken) -> Broken {
        self.send_error.take().map_or(then, Broken::Send)
    }
}
