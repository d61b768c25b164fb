//! What a request may come to, where no provider counted.

use std::time::Duration;

use memchr::memchr2;

use crate::tokens::TextTokens;

/// What models say in a second, more or less; for what they said, or thought, and nobody saw.
const TOKENS_PER_S: u64 = 50;
/// A longer string may be an image or a file.
const BLOB_BYTES: usize = 16 * 1024;
/// Looked at as one.
const WINDOW_BYTES: usize = 1024;
/// For each started [`BLOB_PART_BYTES`] of an image or a file, more or less. So what passes for one, and is text,
/// does not cost nothing.
const BLOB_TOKENS: u64 = 2000;
const BLOB_PART_BYTES: usize = 1024 * 1024;
/// What a prompt has beside what it says, and each message with a role (OpenAI's cookbook, "How to count tokens").
const PROMPT_TOKENS: u64 = 3;
const MESSAGE_TOKENS: u64 = 4;
/// Thoughts that only the provider can read: four bytes of base64 for three, of five to a token.
const SEALED_BYTES_PER_TOKEN: usize = 7;

/// Tokens of a prompt: what a model reads of a request's body, whatever the dialect.
pub(crate) fn prompt_tokens(body: &[u8]) -> u64 {
    let mut walk = Walk {
        tokens: PROMPT_TOKENS,
        text: TextTokens::default(),
        depth: 0,
        member: Member::Prompt,
        value: Text::Ignored,
    };
    let mut at = 0;
    while let Some(byte) = body.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let rest = body.get(at..).unwrap_or_default();
                let string = rest.get(..string_length(rest)).unwrap_or_default();
                at += string.len() + 1;
                let behind = body.get(at..).unwrap_or_default();
                if is_colon_next(behind) {
                    walk.key(string);
                } else {
                    walk.string(string);
                }
            }
            b'{' | b'[' => walk.depth += 1,
            b'}' | b']' => walk.depth = walk.depth.saturating_sub(1),
            b'0'..=b'9' => {
                let rest = body.get(at..).unwrap_or_default();
                let is_more =
                    |byte: &&u8| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E');
                at += rest.iter().take_while(is_more).count();
                walk.number();
            }
            _ => {}
        }
    }
    walk.tokens + walk.text.count()
}

/// Of a string, what is before its closing quote.
fn string_length(rest: &[u8]) -> usize {
    let mut at = 0;
    while let Some(length) = memchr2(b'"', b'\\', rest.get(at..).unwrap_or_default()) {
        at += length;
        if rest.get(at) == Some(&b'"') {
            return at;
        }
        at += 2;
    }
    rest.len()
}

fn is_colon_next(rest: &[u8]) -> bool {
    let mut rest = rest.iter().filter(|byte| !byte.is_ascii_whitespace());
    rest.next() == Some(&b':')
}

/// What of a body was read so far.
struct Walk {
    tokens: u64,
    text: TextTokens,
    depth: usize,
    /// Of the outermost object, where the walk is.
    member: Member,
    /// What the next strings are, by the key before them.
    value: Text,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Prompt,
    /// Models read the names of what tools take.
    Tools,
    /// Not for the model.
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    Read,
    /// Of a message.
    Role,
    Sealed,
    /// For programs.
    Ignored,
}

impl Walk {
    fn key(&mut self, key: &[u8]) {
        if self.depth == 1 {
            self.member = match key {
                b"tools" | b"functions" | b"response_format" => Member::Tools,
                b"metadata" | b"logit_bias" | b"labels" => Member::Other,
                _ => Member::Prompt,
            };
            self.value = match key {
                b"input" | b"instructions" | b"prompt" | b"system" => Text::Read,
                _ => Text::Ignored,
            };
            return;
        }
        if self.member == Member::Tools {
            self.value = Text::Read;
            return self.add(key);
        }
        self.value = match key {
            b"role" => Text::Role,
            b"encrypted_content" | b"signature" | b"thoughtSignature" => Text::Sealed,
            b"type" | b"id" | b"call_id" | b"tool_call_id" | b"tool_use_id" | b"status"
            | b"media_type" | b"mimeType" => Text::Ignored,
            _ => Text::Read,
        };
    }

    fn string(&mut self, string: &[u8]) {
        if self.member == Member::Other {
            return;
        }
        match self.value {
            Text::Read => {
                if self.depth == 1 {
                    self.tokens += MESSAGE_TOKENS;
                }
                self.add(string);
            }
            Text::Role => self.tokens += MESSAGE_TOKENS,
            Text::Sealed => {
                let tokens = string.len() / SEALED_BYTES_PER_TOKEN;
                self.tokens += u64::try_from(tokens).unwrap_or(u64::MAX);
            }
            Text::Ignored => {}
        }
    }

    /// Also what embeddings are made of: a list of tokens.
    fn number(&mut self) {
        if self.depth > 1 && self.member != Member::Other {
            self.tokens += 1;
        }
    }

    fn add(&mut self, string: &[u8]) {
        if string.len() > BLOB_BYTES {
            self.tokens += long_tokens(string);
        } else {
            self.text.add(string);
            self.text.end();
        }
    }
}

/// Every part of a long string is looked at: who writes it knows where samples are taken.
fn long_tokens(string: &[u8]) -> u64 {
    let (mut text, mut blob) = (0_u64, 0);
    for window in string.chunks(WINDOW_BYTES) {
        if is_packed(window) {
            blob += window.len();
        } else {
            text = text.saturating_add(TextTokens::of(window));
        }
    }
    let parts = u64::try_from(blob.div_ceil(BLOB_PART_BYTES)).unwrap_or(u64::MAX);
    text.saturating_add(parts.saturating_mul(BLOB_TOKENS))
}

/// Whether this is packed data in base64: there, all 64 characters are about as frequent. In text they are not, nor
/// in text without spaces, nor in text that is written in base64.
fn is_packed(window: &[u8]) -> bool {
    let mut counts = [0_u64; 128];
    for byte in window {
        let is_base64 = byte.is_ascii_alphanumeric() || b"+/-_=\\".contains(byte);
        match counts.get_mut(usize::from(*byte)) {
            Some(count) if is_base64 => *count += 1,
            _ => return false,
        }
    }
    let length = u64::try_from(window.len()).unwrap_or(u64::MAX);
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    // 1 for characters that are all as frequent, 2 for English in base64, 5 for English without spaces.
    squares.saturating_mul(64 * 2) < length.saturating_mul(length).saturating_mul(3)
}

/// Tokens of so long a silence of a model that is at work.
pub(crate) fn tokens_in(silence: Duration) -> u64 {
    let millis = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
    millis.saturating_mul(TOKENS_PER_S) / 1000
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    /// As compressed data is in base64.
    fn packed(bytes: usize) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut rng = StdRng::seed_from_u64(7);
        let char = |_| char::from(ALPHABET[rng.random_range(0..64)]);
        (0..bytes).map(char).collect()
    }

    fn tokens(said: &str) -> u64 {
        prompt_tokens(format!(r#"{{"messages":[{{"content":"{said}"}}]}}"#).as_bytes())
    }

    /// What the tokenizer of OpenAI's models makes of it.
    fn counted(text: &str) -> u64 {
        u64::try_from(bpe_openai::o200k_base().count(text)).unwrap()
    }

    fn assert_near(estimated: u64, counted: u64) {
        let is_near = estimated.abs_diff(counted) * 100 <= counted * 15;
        assert!(is_near, "{estimated} for {counted}");
    }

    #[test]
    fn a_model_reads_what_is_said_and_what_tools_take_and_no_more() {
        let said = "Count the boats at the lock, please, and tell me before the gate is shut.";
        let prompt = |body: &str| prompt_tokens(body.as_bytes());
        let messages = format!(r#""messages":[{{"role":"user","content":"{said}"}}]"#);
        let bare = prompt(&format!("{{{messages}}}"));
        assert_near(bare, counted(said) + 3 + 4);
        // Not for the model, or not text.
        for beside in [
            r#""model":"gpt-4o-mini","stream":true,"max_tokens":4096,"user":"someone in particular""#,
            r#""metadata":{"order":"a long number 1234567890","by":["a","b"]},"logit_bias":{"50256":-100}"#,
            r#""stream_options":{"include_usage":true},"stop":["one","two"]"#,
        ] {
            assert_eq!(
                prompt(&format!("{{{beside},{messages}}}")),
                bare,
                "{beside}"
            );
            assert_eq!(
                prompt(&format!("{{ {messages} , {beside} }}")),
                bare,
                "{beside}"
            );
        }
        // The same in other words.
        for same in [
            format!(r#"{{"input":"{said}"}}"#),
            format!(
                r#"{{"input":[{{"type":"message","id":"msg_0123456789abcdef","role":"user",
                "content":[{{"type":"input_text","text":"{said}"}}]}}]}}"#
            ),
            format!(r#"{{"contents":[{{"role":"user","parts":[{{"text":"{said}"}}]}}]}}"#),
            format!(r#"{{"system":"{said}","messages":[]}}"#),
        ] {
            assert_near(prompt(&same), bare);
        }
        let tool = r#""tools":[{"type":"function","function":{"name":"read_gauge","description":"Reads a gauge.",
            "parameters":{"type":"object","properties":{"harbour":{"type":"string","maxLength":80}}}}}]"#;
        let with_tool = prompt(&format!("{{{messages},{tool}}}"));
        assert!((bare + 18..bare + 30).contains(&with_tool), "{with_tool}");
        // A list of tokens, as embeddings may be asked for.
        assert_eq!(prompt(r#"{"input":[[9906,1917],[0]]}"#), 3 + 3);
        let sealed = format!(r#"{{"input":[{{"encrypted_content":"{}"}}]}}"#, packed(700));
        assert_eq!(prompt(&sealed), 3 + 100);
        for broken in ["", "{", r#"{"messages"#, r#"{"input":"a\"#, "]]]}", "\""] {
            assert!(prompt(broken) <= 8, "{broken}");
        }
    }

    #[test]
    fn text_is_text_and_an_image_is_not() {
        let words = "The tide is out. ".repeat(10_000);
        let text = counted(&words);
        assert_near(tokens(&words), text);
        let image = packed(1_000_000);
        let both = format!(r#"{words}"}},{{"url":"data:image/png;base64,{image}"#);
        // Two windows are in part something else.
        assert_near(tokens(&both), text + BLOB_TOKENS);
    }

    #[test]
    fn a_larger_file_is_more() {
        let size = 5 * 1024 * 1024;
        let count = tokens(&packed(size));
        assert!((10_000..12_600).contains(&count), "{count}");
    }

    #[test]
    fn text_that_has_no_spaces_is_text() {
        let phrase =
            "The tide comes in, the tide goes out; whoever reads long prompts pays for them. ";
        let text = phrase.repeat(2000);
        let in_base64 = base64::engine::general_purpose::STANDARD.encode(&text);
        let letters: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
        for (what, said) in [
            ("slashes", text.replace([' ', ',', ';', '.'], "/")),
            ("nothing between", letters.repeat(2)),
            ("spaces later", format!("{}{text}", "x".repeat(600))),
            ("base64 of text", in_base64),
        ] {
            let (estimated, counted) = (tokens(&said), counted(&said));
            assert!(
                estimated * 4 >= counted * 3,
                "{what}: {estimated} for {counted}"
            );
        }
        // What is behind and between windows of packed data counts as well.
        let behind = tokens(&format!("{}{text}", packed(20_000)));
        assert!(behind * 4 >= counted(&text) * 3, "{behind}");
        let mixed: String = (0..200)
            .map(|_| packed(1024) + &"theTide/".repeat(128))
            .collect();
        assert!(tokens(&mixed) > 200 * 1024 / 4, "{}", tokens(&mixed));
    }

    #[test]
    fn a_model_says_fifty_tokens_in_a_second() {
        assert_eq!(tokens_in(Duration::from_millis(1500)), 75);
    }
}
