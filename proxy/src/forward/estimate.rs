//! What a request may come to, where no provider counted.

use std::time::Duration;

use memchr::memchr2;

use crate::tokens::TextTokens;

/// What models say in a second, more or less; for what they said, or thought, and nobody saw.
const TOKENS_PER_S: u64 = 50;
/// Looked at as one.
const WINDOW_BYTES: usize = 1024;
/// For each started [`BLOB_PART_BYTES`] of an image or a file, more or less. So what passes for one, and is text,
/// does not cost nothing.
const BLOB_TOKENS: u64 = 2000;
const BLOB_PART_BYTES: u64 = 1024 * 1024;
/// For an image that is only named, and for a file, of which nobody here knows how long it is.
const NAMED_IMAGE_TOKENS: u64 = 2000;
const NAMED_FILE_TOKENS: u64 = 20_000;
/// What a prompt has beside what it says, and each message with a role (OpenAI's cookbook, "How to count tokens").
const PROMPT_TOKENS: u64 = 3;
const MESSAGE_TOKENS: u64 = 4;
/// Thoughts that only the provider can read: four bytes of base64 for three, of five to a token.
const SEALED_BYTES_PER_TOKEN: u64 = 7;
/// Where something is, is never longer.
const NAME_MAX_BYTES: usize = 2048;
/// What is for programs (a name of a kind, an id) is never longer; what is longer is read.
const FOR_PROGRAMS_MAX_BYTES: usize = 128;

/// Tokens of a prompt: what a model reads of a request's body, whatever the dialect. What is not known to be for
/// programs is for the model: a body is written by somebody who would rather not pay for it.
pub(crate) fn prompt_tokens(body: &[u8]) -> u64 {
    let mut walk = Walk {
        tokens: PROMPT_TOKENS,
        text: TextTokens::default(),
        depth: 0,
        member: Member::Prompt,
        value: Text::Read,
        payload: Payload::None,
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
            b'{' | b'[' => walk.open(),
            b't' | b'f' | b'n' => {
                walk.literal();
                at += 3;
            }
            b'}' | b']' => walk.close(),
            b'0'..=b'9' => {
                let rest = body.get(at..).unwrap_or_default();
                let is_more =
                    |byte: &&u8| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E');
                let more = rest.iter().take_while(is_more).count();
                at += more;
                walk.number(more);
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
    payload: Payload,
}

/// What a tool takes or gives, and schemas: whoever writes them names things as they like, and models read all of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Payload {
    None,
    /// If the next value is an object or a list.
    Next,
    /// Since so many are open.
    Since(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Prompt,
    /// Models read all of it, down to the names of what a tool takes.
    Tools,
    /// Not for the model.
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    Read,
    /// Of a message.
    Role,
    /// An image or a file, or where one is.
    Image,
    File,
    /// Only an image or a file itself.
    Data,
    Sealed,
    /// A word for programs.
    Ignored,
}

impl Text {
    /// Of what is behind this key.
    fn of(key: &[u8]) -> Self {
        match key {
            b"role" => Self::Role,
            b"image_url" => Self::Image,
            b"data" => Self::Data,
            b"file_data" | b"file_url" | b"file_id" | b"fileUri" | b"file_uri" => Self::File,
            b"encrypted_content" | b"signature" | b"thoughtSignature" | b"redacted_thinking" => {
                Self::Sealed
            }
            b"type" | b"id" | b"call_id" | b"tool_call_id" | b"tool_use_id" | b"status"
            | b"media_type" | b"mimeType" | b"mime_type" | b"detail" => Self::Ignored,
            _ => Self::Read,
        }
    }
}

/// Keys that dialects have around what is said, and in what says how it is to be answered.
fn is_of_the_dialect(key: &[u8]) -> bool {
    matches!(
        key,
        b"content"
            | b"text"
            | b"parts"
            | b"name"
            | b"input"
            | b"output"
            | b"arguments"
            | b"args"
            | b"function"
            | b"tool_calls"
            | b"functionCall"
            | b"functionResponse"
            | b"response"
            | b"source"
            | b"inlineData"
            | b"fileData"
            | b"input_audio"
            | b"file"
            | b"filename"
            | b"thought"
            | b"thinking"
            | b"summary"
            | b"cache_control"
            | b"ttl"
            | b"annotations"
            | b"is_error"
            | b"refusal"
            | b"phase"
            | b"include_usage"
            | b"effort"
            | b"budget_tokens"
            | b"maxOutputTokens"
            | b"temperature"
            | b"topP"
            | b"topK"
            | b"candidateCount"
            | b"stopSequences"
            | b"thinkingConfig"
            | b"thinkingBudget"
            | b"thinkingLevel"
            | b"includeThoughts"
            | b"responseMimeType"
            | b"format"
            | b"verbosity"
            | b"category"
            | b"threshold"
            | b"mode"
            | b"disable_parallel_tool_use"
            | b"display"
    )
}

impl Walk {
    fn key(&mut self, key: &[u8]) {
        if self.depth <= 1 {
            self.member = match key {
                b"tools" | b"functions" | b"response_format" => Member::Tools,
                b"metadata" | b"logit_bias" | b"labels" => Member::Other,
                _ => Member::Prompt,
            };
            self.value = match key {
                b"model"
                | b"user"
                | b"stop"
                | b"service_tier"
                | b"prompt_cache_key"
                | b"safety_identifier"
                | b"tool_choice"
                | b"reasoning_effort"
                | b"verbosity"
                | b"truncation"
                | b"include"
                | b"encoding_format"
                | b"anthropic_version"
                | b"stop_sequences"
                | b"modalities"
                | b"prompt_cache_retention" => Text::Ignored,
                _ => Text::Read,
            };
        } else if self.member == Member::Tools || matches!(self.payload, Payload::Since(_)) {
            self.value = Text::Read;
            self.add(key);
        } else {
            self.value = match key {
                // Chat has the one inside the other.
                b"url" if self.value == Text::Image => Text::Image,
                b"url" => Text::Data,
                _ => Text::of(key),
            };
            if matches!(
                key,
                b"input" | b"args" | b"response" | b"schema" | b"responseSchema"
            ) {
                self.payload = Payload::Next;
            }
            let is_read = self.member == Member::Prompt && self.value == Text::Read;
            if is_read && !is_of_the_dialect(key) {
                self.add(key);
            }
        }
    }

    fn open(&mut self) {
        if self.payload == Payload::Next {
            self.payload = Payload::Since(self.depth);
        }
        if matches!(self.payload, Payload::Since(_)) {
            self.tokens += 1;
        }
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self.payload == Payload::Since(self.depth) {
            self.payload = Payload::None;
        }
        // The key before it was another object's.
        self.value = Text::Read;
    }

    fn string(&mut self, string: &[u8]) {
        if self.member == Member::Other {
            return;
        }
        if self.payload == Payload::Next {
            self.payload = Payload::None;
        }
        let is_name = string.len() <= NAME_MAX_BYTES && !string.starts_with(b"data:");
        match self.value {
            Text::Role | Text::Ignored if string.len() > FOR_PROGRAMS_MAX_BYTES => self.add(string),
            Text::Ignored => {}
            Text::Role => self.tokens += MESSAGE_TOKENS,
            Text::Read => {
                if self.depth <= 1 {
                    self.tokens += MESSAGE_TOKENS;
                }
                self.add(string);
            }
            Text::Sealed => {
                self.tokens += packed_tokens(string, |bytes| bytes / SEALED_BYTES_PER_TOKEN);
            }
            Text::Image if is_name => self.tokens += NAMED_IMAGE_TOKENS,
            Text::File if is_name => self.tokens += NAMED_FILE_TOKENS,
            Text::Image | Text::File | Text::Data => {
                self.tokens += packed_tokens(string, blob_tokens);
            }
        }
    }

    /// `true`, `false`, `null`.
    fn literal(&mut self) {
        if matches!(self.payload, Payload::Since(_)) {
            self.tokens += 1;
        }
    }

    /// Also what embeddings are made of: a list of tokens.
    fn number(&mut self, more_digits: usize) {
        if self.depth > 1 && self.member != Member::Other {
            self.tokens += 1 + u64::try_from(more_digits / 4).unwrap_or(u64::MAX);
        }
    }

    fn add(&mut self, string: &[u8]) {
        self.text.add(string);
        self.text.end();
    }
}

fn blob_tokens(bytes: u64) -> u64 {
    bytes.div_ceil(BLOB_PART_BYTES) * BLOB_TOKENS
}

/// Of a string that may be packed data, which comes to so much, or text. Every part of it is looked at: who writes it
/// knows where samples are taken.
fn packed_tokens(string: &[u8], of_packed: impl FnOnce(u64) -> u64) -> u64 {
    let (mut text, mut packed) = (0_u64, 0);
    let string = without_kind(string);
    for window in string.chunks(WINDOW_BYTES) {
        if is_packed(window) {
            packed += window.len();
        } else {
            text = text.saturating_add(TextTokens::of(window));
        }
    }
    text.saturating_add(of_packed(u64::try_from(packed).unwrap_or(u64::MAX)))
}

/// Of `data:image/png;base64,...`, what is behind the comma.
fn without_kind(string: &[u8]) -> &[u8] {
    let kind = string.iter().take(FOR_PROGRAMS_MAX_BYTES);
    let end = kind.copied().position(|byte| byte == b',');
    match end.filter(|_| string.starts_with(b"data:")) {
        Some(end) => string.get(end + 1..).unwrap_or_default(),
        None => string,
    }
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
            assert!(prompt(broken) <= 9, "{broken}");
        }
    }

    /// A body is written by somebody who would rather not pay for it, and escapes, nests and names as they like.
    #[test]
    fn there_is_no_place_where_text_costs_nothing() {
        let text = "Whoever reads this at length has to be paid for it. ".repeat(300);
        let counted = counted(&text);
        let keys: Vec<_> = text
            .split(' ')
            .enumerate()
            .map(|(n, word)| format!(r#""{word}{n}":1"#))
            .collect();
        let keys = keys.join(",");
        let pieces = || {
            text.as_bytes()
                .chunks(100)
                .map(|part| std::str::from_utf8(part).unwrap())
        };
        let words: Vec<_> = pieces().map(|part| format!(r#""{part}""#)).collect();
        let words = words.join(",");
        let ids: Vec<_> = pieces()
            .map(|part| format!(r#"{{"id":"{part}"}}"#))
            .collect();
        let ids = ids.join(",");
        for body in [
            format!(r#"{{"inp\u0075t":"{text}"}}"#),
            format!(r#"{{"instruction\u0073":"{text}"}}"#),
            format!(r#"{{"Input":"{text}"}}"#),
            format!(r#"{{"tool\u0073":[{{"description":"{text}"}}]}}"#),
            format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"tool_use","input":{{"status":"{text}"}}}}]}}]}}"#
            ),
            format!(
                r#"{{"contents":[{{"parts":[{{"functionResponse":{{"response":{{"id":"{text}"}}}}}}]}}]}}"#
            ),
            format!(r#"{{"input":[{{"role":"{text}"}}]}}"#),
            format!(r#"{{"input":[{{"encrypted_content":"{text}"}}]}}"#),
            format!(r#"{{"input":[{{"image_url":"{text}"}}]}}"#),
            format!(r#"{{"input":[{{"text":"a","type":"text"}},"{text}"]}}"#),
            format!(r#"{{"messages":[{{"content":[{{"type":"tool_use","input":{{{keys}}}}}]}}]}}"#),
            format!(r#"{{"text":{{"format":{{"schema":{{"properties":{{{keys}}}}}}}}}}}"#),
            format!(
                r#"{{"messages":[{{"content":[{{"type":"tool_use","input":{{"url":"http {text}"}}}}]}}]}}"#
            ),
            format!(
                r#"{{"messages":[{{"content":[{{"type":"tool_use","input":{{"type":[{words}]}}}}]}}]}}"#
            ),
            format!(r#"{{"contents":[{{"parts":[{{"functionCall":{{"args":[{ids}]}}}}]}}]}}"#),
            format!(r#"{{"input":[{{"image_url":"http {text}"}}]}}"#),
            format!(r#"{{"tools":[{{"parameters":{{"properties":{{{keys}}}}}}}]}}"#),
        ] {
            let estimated = prompt_tokens(body.as_bytes());
            assert!(
                estimated * 4 >= counted * 3,
                "{estimated} for {counted}: {}",
                &body[..60]
            );
        }
        let brackets = vec!["[true,null,{}]"; 1000].join(",");
        let brackets =
            format!(r#"{{"contents":[{{"parts":[{{"functionCall":{{"args":[{brackets}]}}}}]}}]}}"#);
        assert!(prompt_tokens(brackets.as_bytes()) > 4000);
        // What was fetched is not what is fetched.
        let fetched = r#"{"messages":[{"content":[{"type":"tool_use","input":{"url":"https://a.example/","file_id":"7"}}]}]}"#;
        assert!(prompt_tokens(fetched.as_bytes()) < 40);
        let number = format!(r#"{{"tools":[{{"const":{}}}]}}"#, "1".repeat(10_000));
        assert!(prompt_tokens(number.as_bytes()) > 2000);
    }

    #[test]
    fn text_is_text_and_an_image_is_not() {
        let words = "The tide is out. ".repeat(10_000);
        let text = counted(&words);
        assert_near(tokens(&words), text);
        let image = packed(1_000_000);
        let both = tokens(&format!(
            r#"{words}"}},{{"url":"data:image/png;base64,{image}"#
        ));
        assert_near(both, text + BLOB_TOKENS);
        // Where text is, whatever it is.
        assert!(tokens(&image) > 500_000);
        let named = tokens(r#"See"},{"image_url":{"url":"https://a.example/1.png"}},{"text":"it"#);
        assert!(
            (NAMED_IMAGE_TOKENS..NAMED_IMAGE_TOKENS + 10).contains(&named),
            "{named}"
        );
        let file = tokens(
            r#"See"},{"type":"input_file","file_url":"https://a.example/1.pdf"},{"text":"it"#,
        );
        assert!(file >= NAMED_FILE_TOKENS, "{file}");
    }

    #[test]
    fn a_larger_file_is_more() {
        let size = 5 * 1024 * 1024;
        let count =
            prompt_tokens(format!(r#"{{"input":[{{"data":"{}"}}]}}"#, packed(size)).as_bytes());
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
        let in_data = |data: &str| tokens(&format!(r#""}},{{"data":"{data}"#));
        let behind = in_data(&format!("{}{text}", packed(20_000)));
        assert!(behind * 4 >= counted(&text) * 3, "{behind}");
        let mixed: String = (0..200)
            .map(|_| packed(1024) + &"theTide/".repeat(128))
            .collect();
        assert!(in_data(&mixed) > 200 * 1024 / 4, "{}", in_data(&mixed));
    }

    #[test]
    fn a_model_says_fifty_tokens_in_a_second() {
        assert_eq!(tokens_in(Duration::from_millis(1500)), 75);
    }
}
