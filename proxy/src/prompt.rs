//! What of a chat request the demo model looks at: above all, what the person said last.
//!
//! OpenClaw puts more than a person's words into user messages: a time stamp before them, a line of
//! runtime facts after them, and a trailing message that is nothing but context of its own. Seen in
//! 2026.9.5 and 2026.9.6 (facts/openclaw.md §7).

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};

/// The most messages of a request: each takes far more room here than the shortest takes on the wire.
const MAX_MESSAGES: usize = 20_000;

const CONTEXT_BEGIN: &str = "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>";
const CONTEXT_END: &str = "<<<END_OPENCLAW_INTERNAL_CONTEXT>>>";

/// The part of a chat completion request that matters here. Everything else is ignored.
#[derive(Debug, Clone, Deserialize)]
pub struct ChatRequest {
    #[serde(default)]
    pub model: Option<String>,
    #[serde(deserialize_with = "messages")]
    pub messages: Vec<Message>,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
}

/// What a client asks of a stream.
#[derive(Debug, Clone, Deserialize)]
pub struct StreamOptions {
    #[serde(default)]
    pub include_usage: Option<bool>,
}

/// A message.
#[derive(Debug, Clone, Deserialize)]
pub struct Message {
    pub role: String,
    #[serde(default)]
    pub content: Option<Content>,
}

/// The text of a message, on the wire a string or a list of parts. Read piece by piece, so that it is never
/// larger than its JSON, whatever that holds.
#[derive(Debug, Clone)]
pub struct Content(String);

/// A piece of a message; only text matters.
#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: Option<String>,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of parts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
        let mut whole = String::new();
        while let Some(Part { text }) = parts.next_element()? {
            let Some(text) = text else { continue };
            if !whole.is_empty() {
                whole.push('\n');
            }
            whole.push_str(&text);
        }
        Ok(Content(whole))
    }
}

fn messages<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Message>, D::Error> {
    struct Messages;

    impl<'de> Visitor<'de> for Messages {
        type Value = Vec<Message>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX_MESSAGES} messages")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut messages = Vec::new();
            while let Some(message) = list.next_element()? {
                if messages.len() == MAX_MESSAGES {
                    return Err(de::Error::invalid_length(messages.len() + 1, &self));
                }
                messages.push(message);
            }
            Ok(messages)
        }
    }

    deserializer.deserialize_seq(Messages)
}

impl ChatRequest {
    /// What the person said last, without what OpenClaw wrapped around it.
    pub fn last_words(&self) -> Option<String> {
        self.messages
            .iter()
            .rev()
            .filter(|message| message.role == "user")
            .filter_map(|message| message.content.as_ref())
            .map(|content| persons_words(&content.0))
            .find(|words| !words.is_empty())
    }

    /// How many bytes of text the model would have read.
    pub fn text_bytes(&self) -> usize {
        self.messages
            .iter()
            .filter_map(|message| message.content.as_ref())
            .map(|content| content.0.len())
            .sum()
    }

    pub fn wants_stream(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    pub fn wants_usage(&self) -> bool {
        self.stream_options
            .as_ref()
            .and_then(|options| options.include_usage)
            .unwrap_or(false)
    }
}

fn persons_words(text: &str) -> String {
    let text = without_context(text);
    let text = without_runtime_line(&text);
    let said = without_metadata(without_time_stamp(text.trim()));
    without_time_stamp(said.trim()).trim().to_owned()
}

/// Cuts the blocks that OpenClaw marks as its own; an unclosed one reaches to the end.
fn without_context(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once(CONTEXT_BEGIN) {
        kept.push_str(before);
        rest = inside
            .split_once(CONTEXT_END)
            .map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    kept
}

/// `Runtime: agent=main | session=… | …`, wherever OpenClaw moved it.
fn without_runtime_line(text: &str) -> String {
    text.lines()
        .filter(|line| !(line.starts_with("Runtime: ") && line.contains(" | ")))
        .collect::<Vec<_>>()
        .join("\n")
}

/// `[Mon 2026-11-23 06:55 UTC] `.
fn without_time_stamp(text: &str) -> &str {
    text.strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .filter(|(stamp, _)| {
            stamp.len() <= 64
                && stamp.contains(':')
                && stamp.bytes().any(|byte| byte.is_ascii_digit())
        })
        .map_or(text, |(_, rest)| rest)
}

/// What the heading of a fenced block of facts about the conversation holds, by version.
const METADATA_MARKS: [&str; 2] = ["untrusted", "\u{27e6}openclaw:ctx\u{27e7}"];

/// Fenced blocks of facts about the conversation that stand before a message.
fn without_metadata(text: &str) -> &str {
    let mut rest = text;
    while let Some((heading, fenced)) = rest.split_once("\n```") {
        let Some((_, after)) = fenced.split_once("\n```") else {
            break;
        };
        let is_metadata = METADATA_MARKS.iter().any(|mark| heading.contains(mark));
        if heading.contains('\n') || !is_metadata {
            break;
        }
        rest = after.trim_start();
    }
    rest
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn last_words(messages: &Value) -> Option<String> {
        let request: ChatRequest = serde_json::from_value(json!({ "messages": messages })).unwrap();
        request.last_words()
    }

    /// As in data/openclaw-request-chat-completions.json, with the placeholders written out.
    fn say_hello() -> Value {
        json!({"role": "user", "content": "[Mon 2026-11-23 06:55 UTC] Say hello\n\n\
            Runtime: agent=main | session=agent:main:main | host=box | os=Linux (x64) | shell=bash"})
    }

    fn context() -> Value {
        let text = format!("{CONTEXT_BEGIN}\nturn facts\n{CONTEXT_END}");
        json!({"role": "user", "content": [{"type": "text", "text": text}]})
    }

    #[test]
    fn the_control_uis_facts_about_the_sender_are_not_the_persons_words() {
        let said = json!({"role": "user", "content":
            "Conversation info: \u{27e6}openclaw:ctx\u{27e7}\n```json\n{\"sender\": 1}\n```\n\nHello there"});
        assert_eq!(last_words(&json!([said])).as_deref(), Some("Hello there"));
    }

    #[test]
    fn the_persons_words_are_found_before_the_trailing_context() {
        let system = json!({"role": "system", "content": "long"});
        assert_eq!(
            last_words(&json!([system, say_hello(), context()])).as_deref(),
            Some("Say hello")
        );
    }

    #[test]
    fn after_a_tool_call_the_same_words_are_found() {
        let call = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "call1"}]});
        let result = json!({"role": "tool", "content": "hi-from-tool", "tool_call_id": "call1"});
        assert_eq!(
            last_words(&json!([say_hello(), call, result, context()])).as_deref(),
            Some("Say hello")
        );
    }

    #[test]
    fn a_message_of_a_channel_is_found_behind_its_metadata() {
        let text = "Conversation info (untrusted metadata):\n```json\n{\"a\": 1}\n```\n\nHi\nthere";
        assert_eq!(
            last_words(&json!([{"role": "user", "content": text}])).as_deref(),
            Some("Hi\nthere")
        );
    }

    #[test]
    fn parts_are_one_text_and_what_is_no_part_is_refused() {
        let parts = json!([{"text": "Hi"}, {"type": "image_url"}, {"text": "there"}]);
        assert_eq!(
            last_words(&json!([{"role": "user", "content": parts}])).as_deref(),
            Some("Hi\nthere")
        );
        let request = |messages: Value| {
            serde_json::from_value::<ChatRequest>(json!({ "messages": messages }))
                .map_err(|error| error.to_string())
        };
        let numbers = json!([{"role": "user", "content": [0, 0]}]);
        assert!(request(numbers).unwrap_err().contains("integer `0`"));
        let many = vec![json!({"role": "user"}); MAX_MESSAGES + 1];
        assert!(request(json!(many)).unwrap_err().contains("20001"));
    }

    #[test]
    fn words_in_brackets_are_the_persons_own() {
        assert_eq!(
            last_words(&json!([{"role": "user", "content": "[todo] buy milk"}])).as_deref(),
            Some("[todo] buy milk")
        );
    }

    #[test]
    fn without_a_person_there_are_no_words() {
        assert_eq!(last_words(&json!([context()])), None);
        assert_eq!(
            last_words(&json!([{"role": "user", "content": [{"type": "image_url"}]}])),
            None
        );
    }
}
