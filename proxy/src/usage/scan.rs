//! Walks through JSON as it passes and points out the few values that matter.
//!
//! An answer is parsed by nobody else here, and one event of it may have 200 KB, or come in pieces of
//! one byte. What is remembered is the way to the value under way ([`Place`]); beside it nothing is
//! looked at but quotes and brackets. A copy is made only of objects of usage and of names, each up to a
//! limit. A search for the bytes `"usage":` would be simpler and wrong: they also are in the schema of a
//! tool whose argument has that name.
//!
//! What is not JSON does no harm: at worst nothing is found in it.

use memchr::memchr2;

use copy::Copy;
use key::Key;
use place::{Kind, Place};

use crate::dialect::Dialect;

mod copy;
mod key;
mod place;
#[cfg(test)]
mod tests;

pub(super) use place::Name;

/// No way to a value that matters is longer. Only parts within parts could be, and are not looked at.
const PATH_MAX: usize = 12;
const DONE: &[u8] = b"[DONE]";

/// A value that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// An object of usage.
    Usage(&'a [u8]),
    /// One that was larger than is copied.
    UsageTooLarge,
    /// A string, with its quotes and escapes.
    Name(Name, &'a [u8]),
    /// Generation has ended, by a reason that is not null.
    Finish,
    /// An error instead of an answer, or of the rest of one.
    Error,
    /// A list of choices, which may be empty.
    Choices,
    /// One of the choices.
    Choice,
    /// Generated text, as it is inside a JSON string, cut anywhere.
    Generated(&'a [u8]),
    /// `[DONE]` instead of JSON.
    Done,
    /// One event of a list of events has ended.
    Event,
    /// The JSON was whole.
    Closed,
}

/// The walk through one event or body at a time.
#[derive(Debug)]
pub(super) struct Scanner {
    dialect: Dialect,
    state: State,
    /// The open objects and lists that may lead to a value that matters, outermost first.
    path: Vec<Place>,
    /// How many are open below the last of these, where nothing matters.
    below: u64,
    /// What the next value is, where one is due. `None` where a key is.
    due: Option<Place>,
    text: Text,
    key: Key,
    copy: Copy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing came but space.
    Start,
    /// So many bytes of `[DONE]` came and nothing else.
    Mark(usize),
    OutsideStrings,
    InString,
    /// Behind a backslash.
    InEscape,
    /// What follows is looked at no more.
    Over,
}

/// What the string under way is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Key,
    Copied,
    Generated,
    /// Whether it is empty. Some servers write that for null.
    Finish,
    Error,
    Ignored,
}

impl Scanner {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            state: State::Start,
            path: Vec::new(),
            below: 0,
            due: None,
            text: Text::Ignored,
            key: Key::default(),
            copy: Copy::default(),
        }
    }

    /// Begins anew. What was cut in the middle is forgotten.
    pub(super) fn reset(&mut self) {
        self.state = State::Start;
        self.path.clear();
        self.below = 0;
        // What was cut in a key must not name a value of the next event.
        self.due = None;
        self.text = Text::Ignored;
        self.key = Key::default();
        self.copy.forget();
    }

    /// Walks through the next bytes, wherever they were cut.
    pub(super) fn scan(&mut self, mut bytes: &[u8], found: &mut impl FnMut(Found<'_>)) {
        while !bytes.is_empty() {
            let length = self.step(bytes, found);
            let (taken, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
            if self.copy.is_under_way() {
                self.copy.add(taken);
                self.copy.deliver(found);
            }
            bytes = rest;
        }
    }

    /// Goes on by at least one byte; how many they were.
    fn step(&mut self, rest: &[u8], found: &mut impl FnMut(Found<'_>)) -> usize {
        match (self.state, rest) {
            (State::Over, _) | (_, []) => rest.len(),
            (State::Start, [byte, ..]) => self.start(*byte, found),
            (State::Mark(matched), [byte, ..]) => self.mark(*byte, matched, found),
            (State::OutsideStrings, _) if self.below > 0 => self.pass_by(rest, found),
            (State::OutsideStrings, _) => self.outside_strings(rest, found),
            (State::InString, _) => self.in_string(rest, found),
            (State::InEscape, [byte, ..]) => self.in_escape(*byte, found),
        }
    }

    fn start(&mut self, byte: u8, found: &mut impl FnMut(Found<'_>)) -> usize {
        match byte {
            // The last three are a byte order mark.
            b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf => {}
            b'{' => {
                self.state = State::OutsideStrings;
                self.due = Some(Place::Event);
                self.open(byte, found);
            }
            b'[' if self.dialect == Dialect::Gemini => {
                self.state = State::OutsideStrings;
                self.due = Some(Place::Events);
                self.open(byte, found);
            }
            b'[' => self.state = State::Mark(1),
            _ => self.state = State::Over,
        }
        1
    }

    fn mark(&mut self, byte: u8, matched: usize, found: &mut impl FnMut(Found<'_>)) -> usize {
        self.state = State::Over;
        if DONE.get(matched) == Some(&byte) {
            if matched + 1 == DONE.len() {
                found(Found::Done);
            } else {
                self.state = State::Mark(matched + 1);
            }
        }
        1
    }

    fn outside_strings(&mut self, rest: &[u8], found: &mut impl FnMut(Found<'_>)) -> usize {
        let Some((byte, behind)) = rest.split_first() else {
            return 0;
        };
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                self.open_string();
                return 1 + self.in_string(behind, found);
            }
            b':' => self.due = Some(self.member()),
            b',' => self.due = self.path.last().and_then(|place| place.element()),
            b'{' | b'[' => self.open(*byte, found),
            b'}' | b']' => self.close(found),
            // A number, `true`, `false` or `null`, by its first byte.
            _ => {
                if self.due.take() == Some(Place::Finish) && *byte != b'n' {
                    found(Found::Finish);
                }
                let is_more = |byte: &&u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
                return 1 + behind.iter().take_while(is_more).count();
            }
        }
        1
    }

    fn member(&mut self) -> Place {
        match (self.path.last(), self.key.take()) {
            (Some(place), Some(key)) => place.member(self.dialect, key),
            (None, _) | (_, None) => Place::Elsewhere,
        }
    }

    fn open(&mut self, bracket: u8, found: &mut impl FnMut(Found<'_>)) {
        let place = self.due.take().unwrap_or(Place::Elsewhere);
        match (place.kind(), bracket) {
            (Kind::Object, b'{') | (Kind::List(_) | Kind::TextOrList(_), b'[')
                if self.path.len() < PATH_MAX =>
            {
                self.path.push(place);
                self.due = place.element();
            }
            _ => self.below = 1,
        }
        match (place, bracket) {
            (Place::Usage, b'{') => self.copy.begin_usage(),
            (Place::Error, b'{') => found(Found::Error),
            (Place::Choices, b'[') => found(Found::Choices),
            (Place::Choice, _) => found(Found::Choice),
            _ => {}
        }
    }

    fn close(&mut self, found: &mut impl FnMut(Found<'_>)) {
        self.path.pop();
        match self.path.last() {
            None => {
                self.state = State::Over;
                found(Found::Closed);
            }
            Some(Place::Events) => found(Found::Event),
            Some(_) => {}
        }
    }

    /// Where nothing matters. Of an object of usage, this is the inside.
    fn pass_by(&mut self, rest: &[u8], found: &mut impl FnMut(Found<'_>)) -> usize {
        let mut bytes = rest.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => {
                    self.text = Text::Ignored;
                    self.state = State::InString;
                    let behind = bytes.as_slice();
                    return rest.len() - behind.len() + self.in_string(behind, found);
                }
                b'{' | b'[' => self.below = self.below.saturating_add(1),
                b'}' | b']' => {
                    self.below -= 1;
                    if self.below == 0 {
                        self.copy.end();
                        return rest.len() - bytes.as_slice().len();
                    }
                }
                _ => {}
            }
        }
        rest.len()
    }

    fn open_string(&mut self) {
        self.state = State::InString;
        self.text = match self.due.take() {
            None => {
                self.key.begin();
                Text::Key
            }
            Some(Place::Name(name)) => {
                self.copy.begin_name(name);
                Text::Copied
            }
            Some(Place::Finish) => Text::Finish,
            Some(Place::Error) => Text::Error,
            Some(place) => match place.kind() {
                Kind::TextOrList(_) => Text::Generated,
                Kind::Object | Kind::List(_) | Kind::Leaf => Text::Ignored,
            },
        };
    }

    fn in_string(&mut self, rest: &[u8], found: &mut impl FnMut(Found<'_>)) -> usize {
        let (run, end) = match memchr2(b'"', b'\\', rest) {
            Some(at) => rest.split_at(at),
            None => (rest, &[][..]),
        };
        if !run.is_empty() {
            self.note_text(run, found);
        }
        match (end.first(), self.text) {
            (None, _) => return run.len(),
            (Some(b'"'), text) => {
                self.state = State::OutsideStrings;
                if text == Text::Copied {
                    self.copy.end();
                }
            }
            (Some(_), text) => {
                self.state = State::InEscape;
                match text {
                    Text::Key => self.key.spoil(),
                    Text::Generated => found(Found::Generated(b"\\")),
                    _ => {}
                }
            }
        }
        run.len() + 1
    }

    fn note_text(&mut self, run: &[u8], found: &mut impl FnMut(Found<'_>)) {
        match self.text {
            Text::Key => self.key.add(run),
            Text::Generated => found(Found::Generated(run)),
            Text::Finish => {
                found(Found::Finish);
                self.text = Text::Ignored;
            }
            Text::Error => {
                found(Found::Error);
                self.text = Text::Ignored;
            }
            Text::Copied | Text::Ignored => {}
        }
    }

    /// The byte behind a backslash. Of `\u`, the four digits follow as if they were text.
    fn in_escape(&mut self, byte: u8, found: &mut impl FnMut(Found<'_>)) -> usize {
        self.state = State::InString;
        if self.text == Text::Generated {
            found(Found::Generated(&[byte]));
        }
        1
    }
}
