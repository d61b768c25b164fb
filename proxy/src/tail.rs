//! The last bytes of a stream, as a second line behind the scanner of [`crate::usage`].
//!
//! They are looked at only where the scanner found no usage, which it does in no known stream. Bytes that
//! look like usage prove little: a client's tool may have an argument called `usage`, and an answer can
//! repeat that tool's schema. So what is found counts only if it has the dialect's numbers and stands where
//! the dialect has its usage, which is told by how many brackets close behind it.

use memchr::{memchr2, memmem};
use serde_json::value::RawValue;

use crate::{
    dialect::Dialect,
    usage::{Told, Usage},
};

/// How much is kept. An event of Responses may have its usage before this; the others do not.
pub const TAIL_BYTES: usize = 4096;
/// How deep usage is in an event, or in a list of events. What a client or a model made up is deeper.
const DEPTHS: std::ops::RangeInclusive<usize> = 1..=2;

/// The last [`TAIL_BYTES`] of a stream.
#[derive(Debug, Default)]
pub struct Tail {
    /// Grows to its full size and then is written round and round.
    ring: Vec<u8>,
    /// Of a full ring, where its oldest byte is.
    oldest: usize,
}

impl Tail {
    /// Adds what comes next.
    pub fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.len().saturating_sub(TAIL_BYTES);
        let mut rest = bytes.get(kept..).unwrap_or_default();
        let room = TAIL_BYTES - self.ring.len();
        let (first, more) = rest.split_at(room.min(rest.len()));
        if self.ring.capacity() - self.ring.len() < first.len() {
            // Twice as large each time, which ends at exactly its full size.
            let wanted = (self.ring.len() + first.len()).next_power_of_two();
            self.ring.reserve_exact(wanted - self.ring.len());
        }
        self.ring.extend_from_slice(first);
        rest = more;
        while !rest.is_empty() {
            let room = TAIL_BYTES - self.oldest;
            let (part, more) = rest.split_at(room.min(rest.len()));
            self.ring[self.oldest..self.oldest + part.len()].copy_from_slice(part);
            self.oldest = (self.oldest + part.len()) % TAIL_BYTES;
            rest = more;
        }
    }

    /// The bytes, in the order they came.
    pub fn bytes(&self) -> Vec<u8> {
        let (newer, older) = self.ring.split_at(self.oldest);
        [older, newer].concat()
    }
}

/// The last usage in what is left of a stream or a body, if there is one beyond doubt.
pub fn usage_from_tail(dialect: Dialect, tail: &Tail) -> Option<Usage> {
    let key: &[u8] = match dialect {
        Dialect::Chat | Dialect::Responses | Dialect::Embeddings | Dialect::Messages => {
            b"\"usage\""
        }
        Dialect::Gemini => b"\"usageMetadata\"",
    };
    let bytes = tail.bytes();
    let mut before = &bytes[..];
    while let Some(at) = memmem::rfind(before, key) {
        let value = bytes.get(at + key.len()..).and_then(behind_colon);
        if let Some(usage) = value.and_then(|value| usage_at(dialect, value)) {
            return Some(usage);
        }
        before = before.get(..at).unwrap_or_default();
    }
    None
}

fn behind_colon(bytes: &[u8]) -> Option<&[u8]> {
    let value = bytes
        .trim_ascii_start()
        .strip_prefix(b":")?
        .trim_ascii_start();
    value.starts_with(b"{").then_some(value)
}

fn usage_at(dialect: Dialect, bytes: &[u8]) -> Option<Usage> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<&RawValue>();
    let object = values.next()?.ok()?.get().as_bytes();
    let depth = depth_before(bytes.get(object.len()..).unwrap_or_default())?;
    let mut told = Told::default();
    told.note(dialect, object);
    if !DEPTHS.contains(&depth) || !told.is_whole(dialect) {
        return None;
    }
    told.usage(dialect).0
}

/// How many objects and lists were open before these bytes, by how many close until the JSON ends. `None`
/// if it does not.
fn depth_before(mut bytes: &[u8]) -> Option<usize> {
    let mut opened = 0usize;
    let mut closed = 0usize;
    while let Some((byte, rest)) = bytes.split_first() {
        bytes = rest;
        match byte {
            b'"' => bytes = behind_string(rest)?,
            b'{' | b'[' => opened += 1,
            b'}' | b']' if opened > 0 => opened -= 1,
            b'}' | b']' => {
                closed += 1;
                if !matches!(rest.trim_ascii_start().first(), Some(b',' | b'}' | b']')) {
                    return Some(closed);
                }
            }
            _ => {}
        }
    }
    None
}

/// What follows a string whose opening quote stands before these bytes.
fn behind_string(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let at = memchr2(b'"', b'\\', bytes)?;
        let (found, rest) = bytes.get(at..)?.split_first()?;
        if *found == b'"' {
            return Some(rest);
        }
        bytes = rest.get(1..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(dialect: Dialect, stream: &str) -> Option<Usage> {
        let mut tail = Tail::default();
        tail.push(stream.as_bytes());
        usage_from_tail(dialect, &tail)
    }

    fn counts(input: u64, output: u64) -> Usage {
        Usage {
            input,
            output,
            ..Usage::default()
        }
    }

    #[test]
    fn the_last_usage_of_a_stream_is_found_in_every_dialect() {
        let chat = "data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n\
            data: {\"choices\":[],\"usage\" : {\"prompt_tokens\":7,\"completion_tokens\":3},\"x\":[{}]}\n\n\
            data: [DONE]\n\n";
        assert_eq!(found(Dialect::Chat, chat), Some(counts(7, 3)));
        let groq = "data: {\"x_groq\":{\"id\":\"}\",\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}}";
        assert_eq!(found(Dialect::Chat, groq), Some(counts(7, 3)));
        let responses = "\"response\":{\"usage\":{\"input_tokens\":7,\"output_tokens\":3},\
            \"metadata\":{\"a\\\"}\":\"b\"}}}\r\n\r\n";
        assert_eq!(found(Dialect::Responses, responses), Some(counts(7, 3)));
        let messages = "\"delta\":{},\"usage\":{\"input_tokens\":7,\"output_tokens\":3}}\n\n\
            event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        assert_eq!(found(Dialect::Messages, messages), Some(counts(7, 3)));
        let embeddings = "],\n \"usage\": {\"prompt_tokens\": 7, \"total_tokens\": 7}\n}\n";
        assert_eq!(found(Dialect::Embeddings, embeddings), Some(counts(7, 0)));
        let gemini = "},\r\n {\"usageMetadata\": {\"promptTokenCount\": 7,\
            \"candidatesTokenCount\": 3, \"totalTokenCount\": 10}\r\n}\r\n]\r\n";
        assert_eq!(found(Dialect::Gemini, gemini), Some(counts(7, 3)));
    }

    #[test]
    fn an_argument_of_a_tool_called_usage_is_none() {
        let schema = "\"response\":{\"tools\":[{\"parameters\":{\"properties\":{\"usage\":{\"type\":\
            \"object\",\"properties\":{\"input_tokens\":{\"type\":\"integer\"}}}}}}],\"usage\":null}}\n\n";
        assert_eq!(found(Dialect::Responses, schema), None);
        // Even if its schema is made up of the right numbers.
        let forged = "\"response\":{\"tools\":[{\"parameters\":{\"properties\":{\"usage\":\
            {\"input_tokens\":1,\"output_tokens\":0,\"total_tokens\":1}}}}],\"usage\":null}}\n\n";
        assert_eq!(found(Dialect::Responses, forged), None);
        let said = "{\"choices\":[{\"delta\":{\"content\":\"{\\\"usage\\\":{\\\"prompt_tokens\\\":1}}\"}}]}";
        assert_eq!(found(Dialect::Chat, said), None);
    }

    #[test]
    fn half_of_a_usage_is_none() {
        assert_eq!(
            found(Dialect::Messages, "{\"usage\":{\"output_tokens\":3}}\n\n"),
            None
        );
        for cut in [
            "{\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3",
            "{\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}",
            "{\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3},\"a\":\"b",
            "{\"usage\":",
            "\"usage\"",
            "",
        ] {
            assert_eq!(found(Dialect::Chat, cut), None, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn the_tail_is_the_end_of_what_was_pushed(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..8),
            long in prop::collection::vec(any::<u8>(), 0..10_000),
        ) {
            let mut tail = Tail::default();
            let mut all = Vec::new();
            for piece in pieces.iter().chain([&long]).chain(&pieces) {
                tail.push(piece);
                all.extend_from_slice(piece);
                prop_assert_eq!(&tail.bytes(), &all[all.len().saturating_sub(TAIL_BYTES)..]);
            }
        }

        #[test]
        fn any_bytes_have_a_usage_or_none(bytes in "(\"usage\":|[{}\\[\\],\"\\\\:a1 ])*") {
            found(Dialect::Chat, &bytes);
        }
    }
}
