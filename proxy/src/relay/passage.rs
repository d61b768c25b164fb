//! What passes: chunks in, whole events out, and an observer that reads along.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::Form;
use crate::{
    sse::{Framer, HELD_MAX_BYTES, Piece},
    tail::{Tail, usage_from_tail},
    usage::{Observed, Observer},
};

#[cfg(test)]
mod tests;

/// One answer's way.
#[derive(Debug)]
pub(super) struct Passage {
    form: Form,
    framer: Framer,
    observer: Observer,
    tail: Tail,
    ready: VecDeque<Bytes>,
    held: BytesMut,
    held_max: usize,
    /// The event under way is too large to be held back: its bytes go as they come.
    is_released: bool,
    /// Some data came, not only comments, which some providers send while they wait themselves.
    has_data: bool,
    /// The event that was dropped last ended with the chunk, with CR: an LF is a part of it.
    is_after_dropped_cr: bool,
}

impl Passage {
    pub(super) fn new(form: Form) -> Self {
        Self::holding(form, HELD_MAX_BYTES)
    }

    /// Holds back at most so much.
    pub(super) fn holding(form: Form, held_max: usize) -> Self {
        Self {
            form,
            framer: Framer::default(),
            observer: Observer::new(form.dialect),
            tail: Tail::default(),
            ready: VecDeque::new(),
            held: BytesMut::new(),
            held_max,
            is_released: false,
            has_data: false,
            is_after_dropped_cr: false,
        }
    }

    /// What can go to the client.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// Nobody takes it any more.
    pub(super) fn discard(&mut self) {
        self.ready.clear();
    }

    /// Whether anything of the answer itself has come.
    pub(super) fn has_begun(&self) -> bool {
        self.has_data
    }

    /// Whether something that was generated has been seen.
    pub(super) fn has_spoken(&self) -> bool {
        self.observer.has_generated()
    }

    /// Whether the model said that it has finished.
    pub(super) fn is_finished(&self) -> bool {
        self.observer.is_finished()
    }

    /// Whether a part of an event has gone to the client already: bytes of our own would be part of it.
    pub(super) fn is_mid_event(&self) -> bool {
        self.is_released
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    pub(super) fn take(&mut self, chunk: Bytes) {
        self.tail.push(&chunk);
        if !self.form.is_stream {
            self.has_data = true;
            self.observer.body(&chunk);
            self.ready.push_back(chunk);
            return;
        }
        if chunk.is_empty() {
            return;
        }
        let is_rest_of_dropped =
            std::mem::take(&mut self.is_after_dropped_cr) && chunk.first() == Some(&b'\n');
        // From where bytes of this chunk have neither gone nor been dropped.
        let mut from = usize::from(is_rest_of_dropped);
        // The end of the last whole event.
        let mut whole = 0;
        for piece in self.framer.pieces(&chunk) {
            match piece {
                Piece::Data(data) => {
                    self.has_data = true;
                    self.observer.data(data);
                }
                Piece::End(at) => {
                    let event = self.observer.end_of_event();
                    if self.form.hides_usage && event.is_usage_only_chunk && !self.is_released {
                        send(&mut self.ready, &mut self.held, &chunk, from, whole);
                        // Held bytes were of this event only if nothing whole came before it.
                        self.held.clear();
                        from = at;
                        self.is_after_dropped_cr =
                            chunk[..at].ends_with(b"\r") && at == chunk.len();
                    }
                    self.is_released = false;
                    whole = at;
                }
            }
        }
        send(&mut self.ready, &mut self.held, &chunk, from, whole);
        self.keep(chunk.slice(whole..));
    }

    /// Holds back the event under way, unless it is too large.
    fn keep(&mut self, rest: Bytes) {
        if rest.is_empty() {
            return;
        }
        if self.is_released || self.held.len() + rest.len() > self.held_max {
            self.is_released = true;
            if !self.held.is_empty() {
                self.ready.push_back(self.held.split().freeze());
            }
            self.ready.push_back(rest);
        } else {
            self.held.extend_from_slice(&rest);
        }
    }

    /// What was left of the stream, and what was read in all of it.
    pub(super) fn finish(mut self) -> (Option<Bytes>, Observed) {
        if self.framer.is_mid_event() {
            self.observer.end_of_event();
        }
        let mut observed = self.observer.finish();
        if observed.usage.is_none() {
            observed.usage = usage_from_tail(self.form.dialect, &self.tail);
        }
        let rest = (!self.held.is_empty()).then(|| self.held.freeze());
        (rest, observed)
    }
}

/// Passes on what is held and a part of the chunk behind it.
fn send(ready: &mut VecDeque<Bytes>, held: &mut BytesMut, chunk: &Bytes, from: usize, to: usize) {
    if from >= to {
        return;
    }
    if held.is_empty() {
        ready.push_back(chunk.slice(from..to));
    } else {
        held.extend_from_slice(&chunk[from..to]);
        ready.push_back(held.split().freeze());
    }
}
