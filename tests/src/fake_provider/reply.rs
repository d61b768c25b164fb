//! An answer before it is given a dialect.

use serde_json::Value;

use super::{
    books::Tokens,
    dialect::Dialect,
    script::{Action, Call, Script, TEXT},
};

/// What is said or called, and what it comes to.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) number: u64,
    pub(super) model: String,
    /// Words with their spaces.
    pub(super) words: Vec<&'static str>,
    pub(super) call: Option<Call>,
    pub(super) tokens: Tokens,
    /// Of a stream in the chat dialect.
    pub(super) wants_usage: bool,
    /// As they were offered; some repeat them.
    pub(super) tools: Value,
}

/// A stream as text: what comes first, pieces of the answer, and what closes it and tells the usage.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) head: Vec<String>,
    pub(super) pieces: Vec<String>,
    pub(super) tail: Vec<String>,
}

impl Reply {
    /// `number` makes counts differ, so that two requests are never taken for one another.
    pub(super) fn of(
        dialect: Dialect,
        number: u64,
        model: &str,
        body: &[u8],
        parsed: &Value,
        script: &Script,
    ) -> Self {
        let (words, call): (Vec<_>, _) = match &script.action {
            Action::Call(call) => (Vec::new(), Some(call.clone())),
            Action::Say | Action::Refuse(_) => (TEXT.split_inclusive(' ').collect(), None),
        };
        let spoken = if call.is_some() { 11 } else { words.len() };
        Self {
            number,
            model: model.to_owned(),
            tokens: count(dialect, number, body.len(), spoken),
            words,
            call,
            wants_usage: parsed.pointer("/stream_options/include_usage") == Some(&true.into()),
            tools: parsed
                .get("tools")
                .cloned()
                .unwrap_or_else(|| Vec::<Value>::new().into()),
        }
    }

    pub(super) fn text(&self) -> String {
        self.words.concat()
    }

    /// Tokens when so many pieces have been given.
    pub(super) fn tokens_at(&self, pieces: usize) -> Tokens {
        let output = u64::try_from(pieces).unwrap_or(u64::MAX);
        Tokens {
            output,
            reasoning: 0,
            ..self.tokens
        }
    }
}

fn count(dialect: Dialect, number: u64, body_bytes: usize, words: usize) -> Tokens {
    let prompt = u64::try_from(body_bytes / 4).unwrap_or(0) + 20 + number;
    let cache_read = prompt / 3;
    let (cache_write_5m, cache_write_1h) = match dialect {
        Dialect::Messages => (prompt / 5, prompt / 7),
        Dialect::Responses => (prompt / 9, 0),
        Dialect::Chat | Dialect::Gemini | Dialect::Embeddings => (0, 0),
    };
    if dialect == Dialect::Embeddings {
        return Tokens {
            input: prompt,
            ..Tokens::default()
        };
    }
    let reasoning = 2 + number % 3;
    Tokens {
        input: prompt - cache_read - cache_write_5m - cache_write_1h,
        cache_read,
        cache_write_5m,
        cache_write_1h,
        output: u64::try_from(words).unwrap_or(0) + reasoning,
        reasoning,
    }
}
