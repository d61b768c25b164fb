//! The few things that are read from a request's body, and changed in it, without parsing it.
//!
//! A body has up to 10 MB and is mostly one long conversation; to parse and print it would take
//! milliseconds and change the order of its keys and the spelling of its numbers. So one pass notes where
//! the values of the outermost object are, and a change replaces those bytes alone.
//!
//! What is read here decides what is allowed and paid, so it must be what the provider will read. Where
//! parsers differ (a key given twice, or in another case, or a flag that is not a boolean) the body is
//! refused.

use std::ops::Range;

use members::{Member, Members};

use crate::dialect::Dialect;

mod members;
#[cfg(test)]
mod tests;
mod tools;

pub use members::Malformed;

/// A name of a model that is longer is none.
const MODEL_MAX_BYTES: usize = 256;
/// Keys that may be there once, in this spelling. Some servers read keys without regard to case.
const KNOWN: [&str; 9] = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "generationConfig",
    "generation_config",
];

/// What is served with a customer's own key only: whose cost nobody sees in the answer (work in the background,
/// conversations that are kept elsewhere, other models, searches), or what may be others'.
const FOREIGN: [&str; 17] = [
    "background",
    "cachedContent",
    "cached_content",
    "container",
    "conversation",
    "deferred",
    "fallbacks",
    "mcp_servers",
    "models",
    "plugins",
    "preset",
    "previous_response_id",
    "prompt",
    "route",
    "search_parameters",
    "thread",
    "web_search_options",
];
/// Answers of one request on the operator's key.
const ANSWERS_MAX: u64 = 8;

/// What a body says about how it is to be answered, and where it says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The model that is asked for.
    pub model: Option<Model>,
    /// Whether the answer is to be a stream.
    pub stream: bool,
    /// The most tokens that one answer may have: the largest number given under the dialect's names for it.
    pub max_output: Option<u64>,
    /// How many answers are asked for (`n` of chat, Gemini's `candidateCount`), each of up to `max_output`.
    pub answers: Option<u64>,
    /// Of Gemini, in either spelling.
    has_config: bool,
    /// What of it is served with a customer's own key only.
    pub foreign: Option<&'static str>,
    /// Right behind the opening bracket.
    inside: usize,
    options: Option<Options>,
}

/// A model, as a body names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub name: String,
    /// Where it is in the body, with its quotes.
    pub at: Range<usize>,
}

/// The `stream_options` of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Options {
    /// They are null.
    Null(Range<usize>),
    /// Without `include_usage`; right behind the opening bracket, and whether anything else is in there.
    Silent {
        inside: usize,
        is_empty: bool,
    },
    /// `include_usage` is false or null.
    Declined(Range<usize>),
    Wanted,
}

/// Whether an answer will end with a chunk of usage, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It will not be a stream.
    NotAStream,
    /// The client has asked, and gets it.
    ByClient,
    /// This change asks; the client must not see the extra chunk.
    ByUs(Splice),
}

/// Bytes in the place of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    pub at: Range<usize>,
    pub with: Vec<u8>,
}

/// Reserved for an answer whose length is not limited: most are shorter.
const LIKELY_OUTPUT: u64 = 4096;

impl Envelope {
    /// Tokens that an answer may well have. What is allowed is often far more than what comes.
    pub fn likely_output(&self) -> u64 {
        let one = self
            .max_output
            .map_or(LIKELY_OUTPUT, |max| max.min(LIKELY_OUTPUT));
        one * self.answers.unwrap_or(1).clamp(1, ANSWERS_MAX)
    }

    /// Reads a body of this dialect.
    pub fn read(dialect: Dialect, body: &[u8]) -> Result<Self, Malformed> {
        let mut members = Members::of(body, 0)?;
        let mut envelope = Self {
            inside: members.at(),
            ..Self::default()
        };
        let mut seen = [false; KNOWN.len()];
        while let Some(member) = members.next_member()? {
            let key = member.key()?;
            // Letters that a parser which knows no case takes for `s` and `k`.
            if key.contains(['\u{17f}', '\u{212a}']) {
                return Err(Malformed::Case("a key"));
            }
            envelope.note_foreign(dialect, &key, &member)?;
            let mut known = KNOWN.iter().enumerate();
            let Some((index, known)) = known.find(|(_, known)| known.eq_ignore_ascii_case(&key))
            else {
                continue;
            };
            if *known != key {
                return Err(Malformed::Case(known));
            }
            if std::mem::replace(&mut seen[index], true) {
                return Err(Malformed::Twice(known));
            }
            envelope.note(dialect, known, &member)?;
        }
        members.end()?;
        Ok(envelope)
    }

    fn note_foreign(
        &mut self,
        dialect: Dialect,
        key: &str,
        member: &Member<'_>,
    ) -> Result<(), Malformed> {
        let foreign = FOREIGN.iter().find(|known| known.eq_ignore_ascii_case(key));
        if let Some(foreign) = foreign
            && !matches!(member.value.text(), b"null" | b"false")
        {
            self.foreign = Some(foreign);
        }
        if key.eq_ignore_ascii_case("tools") && tools::has_hosted(dialect, &member.value)? {
            self.foreign = Some("tools");
        }
        if dialect == Dialect::Responses
            && key.eq_ignore_ascii_case("input")
            && tools::is_foreign_input(&member.value)?
        {
            self.foreign = Some("input");
        }
        Ok(())
    }

    fn note(&mut self, dialect: Dialect, key: &str, member: &Member<'_>) -> Result<(), Malformed> {
        match key {
            "model" => self.model = model(member)?,
            "stream" => self.stream = flag(member)?.unwrap_or(false),
            "stream_options" => self.options = Some(Options::read(member)?),
            "n" => self.note_answers("n", member)?,
            "generationConfig" | "generation_config" if dialect == Dialect::Gemini => {
                self.note_geminis(member)?;
            }
            _ if limits_output(dialect, key) => {
                self.max_output = self.max_output.max(count(member));
            }
            _ => {}
        }
        Ok(())
    }

    /// Parsers differ about what else than digits is a whole number, and so would the price.
    fn note_answers(&mut self, name: &'static str, member: &Member<'_>) -> Result<(), Malformed> {
        self.answers = count(member);
        if self.answers.is_none() && !member.value.is_null() {
            return Err(member.value.expected("a whole number"));
        }
        if self.answers.is_some_and(|answers| answers > ANSWERS_MAX) {
            self.foreign = Some(name);
        }
        Ok(())
    }

    /// Gemini has both limits further inside, each in two spellings.
    fn note_geminis(&mut self, config: &Member<'_>) -> Result<(), Malformed> {
        if config.value.is_null() {
            return Ok(());
        }
        let mut members = config.value.members()?;
        if std::mem::replace(&mut self.has_config, true) {
            return Err(Malformed::Twice("generationConfig"));
        }
        let (mut has_limit, mut has_count) = (false, false);
        while let Some(member) = members.next_member()? {
            match &*member.key()? {
                "maxOutputTokens" | "max_output_tokens" => {
                    if std::mem::replace(&mut has_limit, true) {
                        return Err(Malformed::Twice("maxOutputTokens"));
                    }
                    self.max_output = self.max_output.max(count(&member));
                }
                "candidateCount" | "candidate_count" => {
                    if std::mem::replace(&mut has_count, true) {
                        return Err(Malformed::Twice("candidateCount"));
                    }
                    self.note_answers("candidateCount", &member)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// How to get usage at the end of an answer. For bodies of chat, which has it there only if asked.
    pub fn ask_for_usage(&self) -> Asked {
        const OPTIONS: &str = r#"{"include_usage":true}"#;
        const OPTION: &str = r#""include_usage":true"#;
        if !self.stream {
            return Asked::NotAStream;
        }
        let (at, with) = match &self.options {
            // There is another member, `stream`.
            None => (
                self.inside..self.inside,
                format!("\"stream_options\":{OPTIONS},"),
            ),
            Some(Options::Null(at)) => (at.clone(), OPTIONS.to_owned()),
            Some(Options::Silent { inside, is_empty }) => {
                let comma = if *is_empty { "" } else { "," };
                (*inside..*inside, format!("{OPTION}{comma}"))
            }
            Some(Options::Declined(at)) => (at.clone(), "true".to_owned()),
            Some(Options::Wanted) => return Asked::ByClient,
        };
        Asked::ByUs(Splice {
            at,
            with: with.into_bytes(),
        })
    }

    /// Another model in the place of the one asked for; `None` if there is none.
    pub fn replace_model(&self, name: &str) -> Option<Splice> {
        let model = self.model.as_ref()?;
        Some(Splice {
            at: model.at.clone(),
            with: serde_json::Value::from(name).to_string().into_bytes(),
        })
    }
}

/// Whether this is one of the dialect's names for the most tokens of an answer. Of a name that its provider passes
/// over, a limit of 1 would be believed here and by nobody else.
fn limits_output(dialect: Dialect, key: &str) -> bool {
    match dialect {
        Dialect::Chat => matches!(key, "max_completion_tokens" | "max_tokens"),
        Dialect::Responses => key == "max_output_tokens",
        Dialect::Messages => key == "max_tokens",
        Dialect::Gemini | Dialect::Embeddings => false,
    }
}

/// The body with these changes, which must be its own and not overlap.
pub fn spliced(body: &[u8], mut splices: Vec<Splice>) -> Vec<u8> {
    splices.sort_by_key(|splice| splice.at.start);
    let more: usize = splices.iter().map(|splice| splice.with.len()).sum();
    let mut whole = Vec::with_capacity(body.len() + more);
    let mut from = 0;
    for splice in splices {
        whole.extend_from_slice(body.get(from..splice.at.start).unwrap_or_default());
        whole.extend_from_slice(&splice.with);
        from = splice.at.end;
    }
    whole.extend_from_slice(body.get(from..).unwrap_or_default());
    whole
}

impl Options {
    fn read(member: &Member<'_>) -> Result<Self, Malformed> {
        if member.value.is_null() {
            return Ok(Self::Null(member.value.at.clone()));
        }
        let mut members = member.value.members()?;
        let inside = members.at();
        let mut is_empty = true;
        let mut usage = None;
        while let Some(option) = members.next_member()? {
            is_empty = false;
            let key = option.key()?;
            if key != "include_usage" {
                if key.eq_ignore_ascii_case("include_usage") {
                    return Err(Malformed::Case("include_usage"));
                }
                continue;
            }
            let found = match flag(&option)? {
                Some(true) => Self::Wanted,
                Some(false) | None => Self::Declined(option.value.at.clone()),
            };
            if usage.replace(found).is_some() {
                return Err(Malformed::Twice("include_usage"));
            }
        }
        Ok(usage.unwrap_or(Self::Silent { inside, is_empty }))
    }
}

fn model(member: &Member<'_>) -> Result<Option<Model>, Malformed> {
    const MODEL: &str = "a model's name of at most 256 bytes";
    let text = member.value.text();
    if text == b"null" {
        return Ok(None);
    }
    let name = Some(text)
        .filter(|text| text.len() <= 6 * MODEL_MAX_BYTES)
        .and_then(|text| serde_json::from_slice::<String>(text).ok())
        .filter(|name| name.len() <= MODEL_MAX_BYTES)
        .ok_or(member.value.expected(MODEL))?;
    Ok(Some(Model {
        name,
        at: member.value.at.clone(),
    }))
}

fn flag(member: &Member<'_>) -> Result<Option<bool>, Malformed> {
    match member.value.text() {
        b"true" => Ok(Some(true)),
        b"false" => Ok(Some(false)),
        b"null" => Ok(None),
        _ => Err(member.value.expected("true, false or null")),
    }
}

/// A count, or none: the provider will say what is wrong with another value.
fn count(member: &Member<'_>) -> Option<u64> {
    std::str::from_utf8(member.value.text()).ok()?.parse().ok()
}
