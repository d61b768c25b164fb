//! An answer on its way through: whole events as they complete, byte for byte, and read as they pass.
//!
//! At most one event that is not whole is held back, up to [`HELD_MAX_BYTES`], and one chunk is in flight:
//! the provider is read only when the client takes, so a slow client slows the provider. A provider that
//! breaks off is told to the client in its dialect and never looks like an end. A client that leaves is
//! written down, too; when the model had finished by then, the little that is left is still read for
//! its usage.

mod ending;
mod passage;
mod patience;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod rules;

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use self::{
    ending::broken,
    passage::Passage,
    patience::{Patience, Time},
};
use crate::{
    account::Account,
    dialect::Dialect,
    generation::Generation,
    ledger::Outcome,
    upstream::{Answer, Incoming},
    usage::Observed,
};

const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");
/// For what is left of a stream that its client has left.
const DRAIN: Duration = Duration::from_secs(2);
/// How often it is looked whether the proxy is about to end.
const CLOSED_EVERY: Duration = Duration::from_millis(200);

/// What an answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) dialect: Dialect,
    /// We asked for the usage, and the client did not: it does not get the event.
    pub(crate) hides_usage: bool,
    pub(crate) is_stream: bool,
}

/// The body of an answer.
pub(crate) struct Relay {
    /// `None` when it has ended, one way or another.
    course: Option<Course>,
    form: Form,
    status: StatusCode,
    patience: Patience,
    drains: TaskTracker,
}

/// What is under way.
struct Course {
    upstream: Incoming,
    passage: Passage,
    account: Account,
    /// Its provider can be asked afterwards what it came to.
    generation: Option<Box<Generation>>,
}

impl Relay {
    pub(crate) fn new(
        answer: Answer,
        account: Account,
        generation: Option<Box<Generation>>,
        form: Form,
        drains: TaskTracker,
    ) -> Self {
        Self {
            status: answer.status,
            course: Some(Course {
                upstream: answer.body,
                passage: Passage::new(form),
                account,
                generation,
            }),
            form,
            patience: Patience::new(),
            drains,
        }
    }

    /// The next bytes for the client.
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        loop {
            let Some(course) = &mut self.course else {
                return Poll::Ready(None);
            };
            if let Some(bytes) = course.passage.next() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            match course.upstream.poll_chunk(context) {
                Poll::Ready(Some(Ok(chunk))) => {
                    let has_time = self.patience.hear();
                    course.passage.take(chunk);
                    if course.passage.has_begun() {
                        course.account.first();
                    }
                    if course.passage.has_spoken() {
                        course.account.spoke();
                    }
                    if !has_time {
                        return Poll::Ready(self.break_off());
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(self.break_off()),
                Poll::Ready(None) => return Poll::Ready(self.finish()),
                Poll::Pending => match ready!(self.patience.poll(context)) {
                    Time::ForAWord if self.takes_comments() => {
                        return Poll::Ready(Some(Ok(COMMENT)));
                    }
                    Time::ForAWord => {}
                    Time::ToBreakOff => return Poll::Ready(self.break_off()),
                },
            }
        }
    }

    /// Not in the middle of an event that has gone in part.
    fn takes_comments(&self) -> bool {
        let course = self.course.as_ref();
        self.form.is_stream && course.is_some_and(|course| !course.passage.is_mid_event())
    }

    /// The provider has said all; what it left unfinished goes as it is. A stream that ends in order and too early is
    /// broken off all the same: something between the model and us may have closed it.
    fn finish(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        let course = self.course.take()?;
        let is_cut = course.passage.is_mid_event();
        let (rest, observed) = course.passage.finish();
        // An error that it told in order has passed like any other event.
        let is_early = self.form.is_stream && !observed.error && !is_whole(self.form, &observed);
        let outcome = if observed.error || is_early {
            Outcome::UpstreamBroke
        } else {
            Outcome::Completed
        };
        let account = (course.account, course.generation);
        self.settle(account, outcome, observed);
        if is_early {
            return Some(Ok(broken(self.form.dialect, is_cut)));
        }
        rest.map(Ok)
    }

    /// The provider broke off: half an event is of no use, and the client must know.
    fn break_off(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        let course = self.course.take()?;
        let is_cut = course.passage.is_mid_event();
        let (_half, observed) = course.passage.finish();
        let account = (course.account, course.generation);
        self.settle(account, Outcome::UpstreamBroke, observed);
        Some(if self.form.is_stream {
            Ok(broken(self.form.dialect, is_cut))
        } else {
            Err(BrokenOff)
        })
    }
}

impl Relay {
    /// Writes down what was seen, or what the provider says afterwards if that was not all.
    fn settle(
        &self,
        (mut account, generation): (Account, Option<Box<Generation>>),
        outcome: Outcome,
        observed: Observed,
    ) {
        let status = self.status;
        let Some(generation) = generation.filter(|_| !observed.exact) else {
            return account.settle(status, outcome, &observed);
        };
        account.over();
        let closing = closed(self.drains.clone());
        self.drains.spawn(async move {
            let told = tokio::select! {
                told = generation.observed() => told,
                // What is not known by now is estimated: the proxy is about to end.
                () = closing => None,
            };
            account.settle(status, outcome, told.as_ref().unwrap_or(&observed));
        });
    }
}

/// Until nothing more is to be begun.
async fn closed(drains: TaskTracker) {
    while !drains.is_closed() {
        tokio::time::sleep(CLOSED_EVERY).await;
    }
}

/// Whether a stream said that it is whole, or its model that it has finished: not every provider of a dialect sends
/// the dialect's last word. Gemini has none, and embeddings come in no stream.
fn is_whole(form: Form, observed: &Observed) -> bool {
    match form.dialect {
        Dialect::Chat | Dialect::Responses | Dialect::Messages => {
            observed.done || observed.finished
        }
        Dialect::Gemini | Dialect::Embeddings => true,
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.poll_bytes(context).map_ok(Frame::data)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let Some(course) = self.course.take() else {
            return;
        };
        let status = self.status;
        if course.passage.is_finished() {
            self.drains.spawn(course.drain(status));
        } else {
            // Dropping the connection is what stops the model.
            drop(course.upstream);
            let (_rest, observed) = course.passage.finish();
            let account = (course.account, course.generation);
            self.settle(account, Outcome::ClientLeft, observed);
        }
    }
}

impl Course {
    /// Generation is over, so reading on is free, and the exact usage follows.
    async fn drain(mut self, status: StatusCode) {
        let rest = async {
            while let Some(Ok(chunk)) = self.upstream.chunk().await {
                self.passage.take(chunk);
                self.passage.discard();
            }
        };
        // What did not come in time is estimated.
        drop(timeout(DRAIN, rest).await);
        self.account.over();
        let (_rest, mut observed) = self.passage.finish();
        drop(self.upstream);
        if let Some(generation) = self.generation.filter(|_| !observed.exact) {
            observed = generation.observed().await.unwrap_or(observed);
        }
        self.account.settle(status, Outcome::ClientLeft, &observed);
    }
}

/// A plain answer whose provider broke off: the connection is cut, so that it cannot look whole.
#[derive(Debug, thiserror::Error)]
#[error("the provider broke off")]
pub(crate) struct BrokenOff;
