//! A walk over the members of one object in a body, past whatever is in their values.

use std::{borrow::Cow, ops::Range};

use memchr::memchr2;

/// Objects and lists within one another; of a conversation with its tools' schemas, a multiple.
const DEPTH_MAX: u32 = 128;

/// Why a body is not understood. Nothing of it is repeated here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("expected {what} at byte {at}")]
    Expected { what: &'static str, at: usize },
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    #[error("`{0}` is spelt in another case")]
    Case(&'static str),
    #[error("more than {DEPTH_MAX} objects and lists within one another at byte {0}")]
    TooDeep(usize),
}

/// The members of an object, one after the other.
#[derive(Debug)]
pub(super) struct Members<'a> {
    body: &'a [u8],
    at: usize,
    is_first: bool,
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Member<'a> {
    /// With its quotes.
    key: Range<usize>,
    pub(super) value: Value<'a>,
}

/// A value, as it is written.
#[derive(Debug)]
pub(super) struct Value<'a> {
    body: &'a [u8],
    pub(super) at: Range<usize>,
}

/// The elements of a list, one after the other: a list of millions takes no memory.
#[derive(Debug)]
pub(super) struct Elements<'a>(Members<'a>);

impl<'a> Members<'a> {
    /// Of the object that begins here, behind space.
    pub(super) fn of(body: &'a [u8], at: usize) -> Result<Self, Malformed> {
        let mut members = Self {
            body,
            at,
            is_first: true,
        };
        members.skip_space();
        members.take(b'{', "an object")?;
        Ok(members)
    }

    /// Where the walk is.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn next_member(&mut self) -> Result<Option<Member<'a>>, Malformed> {
        self.skip_space();
        let is_first = std::mem::replace(&mut self.is_first, false);
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b',') if !is_first => {
                self.at += 1;
                self.skip_space();
            }
            _ if is_first => {}
            _ => return Err(self.expected("a comma or the end of the object")),
        }
        let from = self.at;
        self.take(b'"', "a key")?;
        self.skip_string()?;
        let key = from..self.at;
        self.skip_space();
        self.take(b':', "a colon")?;
        self.skip_space();
        let from = self.at;
        self.skip_value()?;
        Ok(Some(Member {
            key,
            value: self.value_from(from),
        }))
    }

    /// The value that has just been passed.
    fn value_from(&self, from: usize) -> Value<'a> {
        Value {
            body: self.body,
            at: from..self.at,
        }
    }

    /// Behind the object there must be nothing but space.
    pub(super) fn end(mut self) -> Result<(), Malformed> {
        self.skip_space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end of the body")),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.body.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(self.expected(what));
        }
        self.at += 1;
        Ok(())
    }

    fn expected(&self, what: &'static str) -> Malformed {
        Malformed::Expected { what, at: self.at }
    }

    fn skip_space(&mut self) {
        let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.at += self.rest().iter().take_while(is_space).count();
    }

    fn skip_value(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.skip_string()
            }
            Some(b'{' | b'[') => self.skip_nested(),
            _ => self.skip_literal(),
        }
    }

    /// Of a string, what is behind its opening quote.
    fn skip_string(&mut self) -> Result<(), Malformed> {
        loop {
            let Some(length) = memchr2(b'"', b'\\', self.rest()) else {
                self.at = self.body.len();
                return Err(self.expected("the end of a string"));
            };
            self.at += length + 1;
            if self.body.get(self.at - 1) == Some(&b'"') {
                return Ok(());
            }
            self.at += 1;
        }
    }

    /// An object or a list. That its brackets match is all that is asked of its inside.
    fn skip_nested(&mut self) -> Result<(), Malformed> {
        // One bit for each that is open: whether it is an object.
        let mut objects = 0u128;
        let mut depth = 0;
        while let Some(byte) = self.peek() {
            match byte {
                b'{' | b'[' if depth == DEPTH_MAX => return Err(Malformed::TooDeep(self.at)),
                b'{' | b'[' => {
                    objects = (objects << 1) | u128::from(byte == b'{');
                    depth += 1;
                }
                b'}' | b']' if (objects & 1 == 1) != (byte == b'}') => {
                    return Err(self.expected("the other kind of closing bracket"));
                }
                b'}' | b']' => {
                    objects >>= 1;
                    depth -= 1;
                }
                b'"' => {
                    self.at += 1;
                    self.skip_string()?;
                    continue;
                }
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
        Err(self.expected("a closing bracket"))
    }

    fn skip_literal(&mut self) -> Result<(), Malformed> {
        let is_part =
            |byte: &&u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.' | b'E');
        let length = self.rest().iter().take_while(is_part).count();
        let literal = self.rest().get(..length).unwrap_or_default();
        if serde_json::from_slice::<serde::de::IgnoredAny>(literal).is_err() {
            return Err(self.expected("a value"));
        }
        self.at += length;
        Ok(())
    }
}

impl<'a> Elements<'a> {
    pub(super) fn next_element(&mut self) -> Result<Option<Value<'a>>, Malformed> {
        let walk = &mut self.0;
        walk.skip_space();
        let is_first = std::mem::replace(&mut walk.is_first, false);
        match walk.peek() {
            Some(b']') => return Ok(None),
            Some(b',') if !is_first => {
                walk.at += 1;
                walk.skip_space();
            }
            _ if is_first => {}
            _ => return Err(walk.expected("a comma or the end of the list")),
        }
        let from = walk.at;
        walk.skip_value()?;
        Ok(Some(walk.value_from(from)))
    }
}

impl<'a> Member<'a> {
    /// The key, without escapes.
    pub(super) fn key(&self) -> Result<Cow<'a, str>, Malformed> {
        let inside = self.key.start + 1..self.key.end - 1;
        let body = self.value.body;
        let plain = body.get(inside).filter(|key| !key.contains(&b'\\'));
        if let Some(Ok(key)) = plain.map(std::str::from_utf8) {
            return Ok(Cow::Borrowed(key));
        }
        let quoted = body.get(self.key.clone()).unwrap_or_default();
        serde_json::from_slice(quoted)
            .map(Cow::Owned)
            .map_err(|_| Malformed::Expected {
                what: "a key in UTF-8",
                at: self.key.start,
            })
    }
}

impl<'a> Value<'a> {
    pub(super) fn text(&self) -> &'a [u8] {
        self.body.get(self.at.clone()).unwrap_or_default()
    }

    /// Where this is an object.
    pub(super) fn members(&self) -> Result<Members<'a>, Malformed> {
        Members::of(self.body, self.at.start)
    }

    /// Where this is a list.
    pub(super) fn elements(&self) -> Option<Elements<'a>> {
        self.text().starts_with(b"[").then_some(Elements(Members {
            body: self.body,
            at: self.at.start + 1,
            is_first: true,
        }))
    }

    pub(super) fn is_object(&self) -> bool {
        self.text().starts_with(b"{")
    }

    pub(super) fn is_null(&self) -> bool {
        self.text() == b"null"
    }

    pub(super) fn expected(&self, what: &'static str) -> Malformed {
        Malformed::Expected {
            what,
            at: self.at.start,
        }
    }
}
