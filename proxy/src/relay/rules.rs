//! What holds for every answer that passes, however it is cut: the fuzz target and the tests ask this.
//!
//! The framing is done a second time here, in the plain way that is possible when all bytes are there at
//! once, and compared.

use bytes::Bytes;

use super::{COMMENT, Form, passage::Passage};
use crate::{
    tail::{Tail, usage_from_tail},
    usage::{Observed, Observer},
};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A stream, and how it is to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) form: Form,
    pub(crate) held_max: usize,
    pub(crate) stream: &'a [u8],
}

/// What became of a stream.
struct Passed {
    bytes: Vec<u8>,
    /// The same with a comment of ours wherever one may be put in.
    commented: Vec<u8>,
    observed: Observed,
}

/// An event, as it is found when the whole stream is there.
struct Event {
    bytes: std::ops::Range<usize>,
    /// Where the byte is that ends it; behind it may be the LF of a CRLF.
    last: usize,
    data: Vec<u8>,
    is_usage_only: bool,
}

/// Panics if a rule is broken, for the stream in one piece or cut at these offsets, which ascend.
pub(crate) fn hold(case: Case<'_>, cuts: &[usize]) {
    let (events, rest) = events(case);
    for cuts in [&[][..], cuts] {
        let passed = pass(case, cuts);
        let expected = kept(case, cuts, &events, &rest);
        assert!(
            passed.bytes == expected,
            "cut at {cuts:?}, {:?} passed as {:?}",
            case.stream.escape_ascii().to_string(),
            passed.bytes.escape_ascii().to_string(),
        );
        assert_eq!(
            passed.observed,
            observed(case, &events, &rest),
            "cut at {cuts:?}"
        );
        assert!(
            !case.form.is_stream || told(&passed.bytes) == told(&passed.commented),
            "cut at {cuts:?}, a comment changes what a client reads"
        );
    }
}

/// Sends the pieces through a passage, and looks at it after each.
fn pass(case: Case<'_>, cuts: &[usize]) -> Passed {
    let mut passage = Passage::holding(case.form, case.held_max);
    let mut bytes = Vec::new();
    let mut commented = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([case.stream.len()]) {
        let chunk = Bytes::copy_from_slice(&case.stream[from..to]);
        from = to;
        passage.take(chunk);
        while let Some(ready) = passage.next() {
            bytes.extend_from_slice(&ready);
            commented.extend_from_slice(&ready);
        }
        assert!(
            passage.held_bytes() <= case.held_max,
            "more is held than may be"
        );
        let is_all = bytes.len() + passage.held_bytes() == to;
        assert!(
            case.form.hides_usage || is_all,
            "bytes neither passed nor are held"
        );
        if !passage.is_mid_event() && !bytes.is_empty() {
            commented.extend_from_slice(&COMMENT);
        }
    }
    let (rest, observed) = passage.finish();
    let rest = rest.unwrap_or_default();
    bytes.extend_from_slice(&rest);
    commented.extend_from_slice(&rest);
    Passed {
        bytes,
        commented,
        observed,
    }
}

/// The events of the stream, and what is left behind the last.
fn events(case: Case<'_>) -> (Vec<Event>, Event) {
    let mut events = Vec::new();
    if !case.form.is_stream {
        let rest = Event::of(case, 0..case.stream.len(), Some(case.stream.to_vec()));
        return (events, rest);
    }
    let mut begin = 0;
    let mut at = if case.stream.starts_with(BYTE_ORDER_MARK) {
        BYTE_ORDER_MARK.len()
    } else {
        0
    };
    let mut data: Option<Vec<u8>> = None;
    let mut has_field = false;
    while let Some(length) = case.stream[at..]
        .iter()
        .position(|byte| matches!(byte, b'\r' | b'\n'))
    {
        let line = &case.stream[at..at + length];
        let is_crlf = case.stream[at + length..].starts_with(b"\r\n");
        at += length + 1 + usize::from(is_crlf);
        note_line(line, &mut data, true);
        let is_comment = line.starts_with(b":");
        if line.is_empty() || is_comment && !has_field {
            let event = Event::of(case, begin..at, data.take());
            events.push(Event {
                last: at - 1 - usize::from(is_crlf),
                ..event
            });
            begin = at;
            has_field = false;
        } else {
            has_field |= !is_comment;
        }
    }
    note_line(&case.stream[at..], &mut data, false);
    (events, Event::of(case, begin..case.stream.len(), data))
}

fn note_line(line: &[u8], data: &mut Option<Vec<u8>>, is_whole: bool) {
    let value = match line.strip_prefix(b"data") {
        Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
        Some([]) if is_whole => &[],
        _ => return,
    };
    match data {
        Some(data) => {
            data.push(b'\n');
            data.extend_from_slice(value);
        }
        None => *data = Some(value.to_vec()),
    }
}

impl Event {
    fn of(case: Case<'_>, bytes: std::ops::Range<usize>, data: Option<Vec<u8>>) -> Self {
        let data = data.unwrap_or_default();
        let mut observer = Observer::new(case.form.dialect);
        observer.data(&data);
        Self {
            last: bytes.end,
            bytes,
            is_usage_only: observer.end_of_event().is_usage_only_chunk,
            data,
        }
    }
}

/// What has to come out: everything but the chunks of usage that we asked for. Of one that was too large
/// to be held back, a part has gone when it is known.
fn kept(case: Case<'_>, cuts: &[usize], events: &[Event], rest: &Event) -> Vec<u8> {
    let mut kept = Vec::new();
    for event in events {
        let held = cuts
            .iter()
            .rfind(|cut| **cut <= event.last)
            .map_or(0, |cut| cut.saturating_sub(event.bytes.start));
        if !(case.form.hides_usage && event.is_usage_only && held <= case.held_max) {
            kept.extend_from_slice(&case.stream[event.bytes.clone()]);
        }
    }
    kept.extend_from_slice(&case.stream[rest.bytes.clone()]);
    kept
}

/// What has to be seen.
fn observed(case: Case<'_>, events: &[Event], rest: &Event) -> Observed {
    let mut observer = Observer::new(case.form.dialect);
    if case.form.is_stream {
        for event in events.iter().chain([rest]) {
            observer.data(&event.data);
            observer.end_of_event();
        }
    } else {
        observer.body(&rest.data);
    }
    let mut observed = observer.finish();
    if observed.usage.is_none() {
        let mut tail = Tail::default();
        tail.push(case.stream);
        observed.usage = usage_from_tail(case.form.dialect, &tail);
    }
    observed
}

/// The data of the events that a client reads.
fn told(stream: &[u8]) -> Vec<Vec<u8>> {
    let form = Form {
        dialect: crate::dialect::Dialect::Chat,
        hides_usage: false,
        is_stream: true,
    };
    let (events, rest) = events(Case {
        form,
        held_max: 0,
        stream,
    });
    let all = events.into_iter().chain([rest]);
    all.map(|event| event.data)
        .filter(|data| !data.is_empty())
        .collect()
}
