//! A client's connection, which hands over what it reads by the page.
//!
//! hyper reads into a buffer of 8 KiB for each connection, which it keeps as long as an answer takes. What of it
//! was never written to takes no memory, so it is not filled. A long request also comes in fewer calls
//! than it would through that buffer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::TcpStream,
};

use crate::read_buffer;

/// What is handed over at a time.
const PIECE_BYTES: usize = 4 * 1024;
/// What is read at a time, and so the most that a connection holds until hyper has asked for it.
const READ_BYTES: usize = 4 * PIECE_BYTES;

#[derive(Debug)]
pub(super) struct Socket {
    stream: TokioIo<TcpStream>,
    /// Read, and not handed over yet.
    rest: Bytes,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream: TokioIo::new(stream),
            rest: Bytes::new(),
        }
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let room = into.remaining().min(PIECE_BYTES);
        if self.rest.has_remaining() {
            let length = self.rest.len().min(room);
            into.put_slice(&self.rest.split_to(length));
            return Poll::Ready(Ok(()));
        }
        read_buffer::with(|buffer| {
            let mut read = ReadBuf::new(buffer.get_mut(..READ_BYTES).unwrap_or_default());
            ready!(Pin::new(self.stream.inner_mut()).poll_read(context, &mut read))?;
            let filled = read.filled();
            let (piece, rest) = filled.split_at(filled.len().min(room));
            into.put_slice(piece);
            self.rest = Bytes::copy_from_slice(rest);
            Poll::Ready(Ok(()))
        })
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
