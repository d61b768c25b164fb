//! Bodies: what a response is made of, and the stream that ends with its instance's access.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

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

/// A body that passes as it comes and breaks off when `live` is cancelled.
pub(super) fn while_live(incoming: Incoming, live: CancellationToken) -> Body {
    Live {
        incoming,
        ended: Box::pin(live.cancelled_owned()),
    }
    .boxed_unsync()
}

/// The instance's access ended while a body was passing.
#[derive(Debug, thiserror::Error)]
#[error("access to the instance ended")]
struct AccessEnded;

struct Live {
    incoming: Incoming,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl hyper::body::Body for Live {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(Box::new(AccessEnded))));
        }
        Pin::new(&mut self.incoming)
            .poll_frame(context)
            .map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
