//! The course of a stream: events one by one, their count in the books, and how it ends.

use std::{io, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::time::sleep;

use super::{
    books::{Ending, Entry},
    dialect::Dialect,
    refusal::event,
    reply::{Events, Reply},
    script::{End, Script},
};

/// Words before the connection breaks, or the error.
const BREAKS_AFTER: usize = 3;
/// Between two words of a stream that never ends, so that it fills no memory.
const BREATH: Duration = Duration::from_millis(2);
/// What was sent before must have left when the connection breaks.
const LEAVING: Duration = Duration::from_millis(50);
const SLOWLY: Duration = Duration::from_millis(40);

struct Course {
    entry: Entry,
    reply: Reply,
    events: Events,
    dialect: Dialect,
    end: End,
    is_slow: bool,
    /// Events so far.
    at: usize,
}

pub(super) fn body(
    dialect: Dialect,
    entry: Entry,
    reply: Reply,
    events: Events,
    script: &Script,
) -> Body {
    entry.count(reply.tokens_at(0));
    let course = Course {
        entry,
        reply,
        events,
        dialect,
        end: script.end,
        is_slow: script.is_slow,
        at: 0,
    };
    Body::from_stream(course.run())
}

impl Course {
    fn run(self) -> impl Stream<Item = io::Result<Bytes>> {
        stream::unfold(Some(self), |course| async { course?.next().await })
    }

    /// `None` ends the stream as one that is whole.
    async fn next(self) -> Option<(io::Result<Bytes>, Option<Self>)> {
        if self.is_slow {
            sleep(SLOWLY).await;
        }
        let head = self.events.head.len();
        let pieces = self.events.pieces.len();
        if let Some(text) = self.events.head.get(self.at).cloned() {
            return Some(self.give(text));
        }
        let said = self.at - head;
        match self.end {
            End::BreakOff if said >= BREAKS_AFTER => {
                sleep(LEAVING).await;
                self.entry.end(200, Ending::BrokeOff);
                return Some((Err(io::Error::other("broken off as asked for")), None));
            }
            End::Stumble if said >= BREAKS_AFTER => {
                let text = Bytes::from(event(self.dialect));
                self.entry.end(200, Ending::Stumbled);
                return Some((Ok(text), None));
            }
            End::Never => sleep(BREATH).await,
            End::BreakOff | End::Stumble | End::Whole => {}
        }
        let place = if self.end == End::Never {
            said % pieces.max(1)
        } else {
            said
        };
        if let Some(text) = self.events.pieces.get(place).cloned() {
            self.entry.count(self.reply.tokens_at(said + 1));
            return Some(self.give(text));
        }
        if let Some(text) = self.events.tail.get(said - pieces).cloned() {
            return Some(self.give(text));
        }
        self.entry.count(self.reply.tokens);
        self.entry.end(200, Ending::Whole);
        None
    }

    fn give(mut self, text: String) -> (io::Result<Bytes>, Option<Self>) {
        self.at += 1;
        (Ok(Bytes::from(text)), Some(self))
    }
}
