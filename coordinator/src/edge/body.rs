//! Bodies: what a response is made of, and the stream that ends with its instance's access.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio_util::sync::CancellationToken;

/// The cause when a body breaks off.
pub(super) type Broken = Box<dyn std::error::Error + Send + Sync>;
/// Any body that passes the edge.
pub(super) type Body = UnsyncBoxBody<Bytes, Broken>;

/// A body that is there already.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that passes as it comes and breaks off when `ended` is.
pub(super) fn until<B>(incoming: B, ended: impl Future<Output = ()> + Send + 'static) -> Body
where
    B: hyper::body::Body<Data = Bytes, Error: Into<Broken>> + Send + Unpin + 'static,
{
    Live {
        incoming,
        ended: Box::pin(ended),
        bound: None,
    }
    .boxed_unsync()
}

/// The same while `live`, and it breaks off when it is larger than it may be; `bound` knows afterwards.
pub(super) fn bounded(incoming: Incoming, live: CancellationToken, bound: Bound) -> Body {
    Live {
        incoming,
        ended: Box::pin(live.cancelled_owned()),
        bound: Some(bound),
    }
    .boxed_unsync()
}

/// How much of a body may still come. Clones know the same.
#[derive(Clone)]
pub(super) struct Bound {
    left: u64,
    exceeded: Arc<AtomicBool>,
}

impl Bound {
    pub(super) fn of(bytes: u64) -> Self {
        Self {
            left: bytes,
            exceeded: Arc::default(),
        }
    }

    /// Whether the body was larger.
    pub(super) fn is_exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }

    /// Takes in what came; an error if that was too much.
    fn take(&mut self, bytes: u64) -> Result<(), TooLarge> {
        if let Some(left) = self.left.checked_sub(bytes) {
            self.left = left;
            Ok(())
        } else {
            self.exceeded.store(true, Ordering::Relaxed);
            Err(TooLarge)
        }
    }
}

/// A body was larger than the instance takes.
#[derive(Debug, thiserror::Error)]
#[error("the body is too large")]
struct TooLarge;

/// The instance's access ended while a body was passing.
#[derive(Debug, thiserror::Error)]
#[error("access to the instance ended")]
struct AccessEnded;

struct Live<B> {
    incoming: B,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    bound: Option<Bound>,
}

impl<B> hyper::body::Body for Live<B>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<Broken>> + Unpin,
{
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(Box::new(AccessEnded))));
        }
        let polled = Pin::new(&mut self.incoming).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let (Some(data), Some(bound)) = (frame.data_ref(), &mut self.bound)
        {
            let came = u64::try_from(data.len()).unwrap_or(u64::MAX);
            if let Err(error) = bound.take(came) {
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
