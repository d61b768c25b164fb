//! An answer before it is given a dialect.

use serde_json::Value;

use super::{
    books::Tokens,
    count,
    dialect::Dialect,
    script::{Action, Call, Script},
};

/// What is said or called, and what it comes to.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) number: u64,
    pub(super) model: String,
    /// Words with the spaces before them, as models say them.
    pub(super) words: Vec<&'static str>,
    pub(super) call: Option<Call>,
    pub(super) tokens: Tokens,
    /// Output when so many pieces have been given.
    given: Vec<u64>,
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
        parsed: &Value,
        script: &Script,
    ) -> Self {
        let (words, call): (Vec<_>, _) = match &script.action {
            Action::Call(call) => (Vec::new(), Some(call.clone())),
            Action::Say(text) => (words(text), None),
            Action::Refuse(_) => (Vec::new(), None),
        };
        let pieces: Vec<u64> = match &call {
            // Its name and its arguments come in this many pieces, more or less.
            Some(_) => vec![3, 4, 4],
            None => words.iter().map(|word| count::tokens(word)).collect(),
        };
        let mut so_far = 0;
        let given = pieces.into_iter().map(|piece| {
            so_far += piece;
            so_far
        });
        let given: Vec<_> = given.collect();
        let spoken = given.last().copied().unwrap_or(0);
        Self {
            number,
            model: model.to_owned(),
            tokens: counted(dialect, number, count::prompt(parsed), spoken),
            words,
            given,
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
        let rounds = pieces / self.given.len().max(1);
        let rest = pieces % self.given.len().max(1);
        let at = |pieces: usize| pieces.checked_sub(1).and_then(|last| self.given.get(last));
        let whole = self.given.last().copied().unwrap_or(0);
        let rest = at(rest).copied().unwrap_or(0);
        Tokens {
            output: u64::try_from(rounds).unwrap_or(u64::MAX) * whole + rest,
            reasoning: 0,
            ..self.tokens
        }
    }
}

fn words(text: &'static str) -> Vec<&'static str> {
    let mut words = Vec::new();
    let mut from = 0;
    for (at, _) in text.match_indices(' ').filter(|(at, _)| *at > 0) {
        words.extend(text.get(from..at));
        from = at;
    }
    words.extend(text.get(from..));
    words
}

/// Thoughts are told at the end, so what is known of an answer before has none.
fn counted(dialect: Dialect, number: u64, prompt: u64, spoken: u64) -> Tokens {
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
    let reasoning = 2 + number;
    Tokens {
        input: prompt - cache_read - cache_write_5m - cache_write_1h,
        cache_read,
        cache_write_5m,
        cache_write_1h,
        output: spoken + reasoning,
        reasoning,
    }
}
