//! A connection's bytes, with or without TLS.

use std::{
    cell::RefCell,
    io,
    os::fd::AsRawFd as _,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::Buf;
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use tokio::{
    io::{AsyncRead as _, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::coop::has_budget_remaining,
};
use tokio_rustls::client::TlsStream;
use tokio_util::io::poll_write_buf;

/// What is read at a time.
const READ_BYTES: usize = 32 * 1024;

thread_local! {
    /// One for all connections of a thread: what is in it is used before anything else is read.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

#[derive(Debug)]
pub(super) enum Transport {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Reads, and shows what was read; nothing when the provider has closed.
    pub(super) fn poll_read<T>(
        &mut self,
        context: &mut Context<'_>,
        use_of: impl FnOnce(&mut [u8]) -> T,
    ) -> Poll<io::Result<T>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(match self {
                Self::Plain(stream) => Pin::new(stream).poll_read(context, &mut read),
                Self::Secure(stream) => Pin::new(stream).poll_read(context, &mut read),
            })?;
            Poll::Ready(Ok(use_of(read.filled_mut())))
        })
    }

    /// Writes all that is left. To be called again until it is ready.
    pub(super) fn poll_write_all(
        &mut self,
        context: &mut Context<'_>,
        left: &mut impl Buf,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => write_all(Pin::new(stream), context, left),
            Self::Secure(stream) => write_all(Pin::new(stream), context, left),
        }
    }

    /// Whether nothing has come, not even the end. An idle connection has nothing to say, and what it said
    /// unasked would be taken for the next answer.
    pub(super) fn is_quiet(&mut self) -> bool {
        // The kernel is asked: what the runtime knows is as old as its last look.
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.socket().as_raw_fd(), &mut [0], flags) {
            Err(Errno::EAGAIN) => true,
            // Of TLS it may be a ticket for a later session, which is no answer.
            Ok(1..) if matches!(self, Self::Secure(_)) && has_budget_remaining() => {
                let mut context = Context::from_waker(Waker::noop());
                self.poll_read(&mut context, |_| ()).is_pending()
            }
            Ok(_) | Err(_) => false,
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Secure(stream) => stream.get_ref().0,
        }
    }
}

fn write_all(
    mut stream: Pin<&mut impl AsyncWrite>,
    context: &mut Context<'_>,
    left: &mut impl Buf,
) -> Poll<io::Result<()>> {
    while left.has_remaining() {
        if ready!(poll_write_buf(stream.as_mut(), context, left))? == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
    }
    stream.poll_flush(context)
}
