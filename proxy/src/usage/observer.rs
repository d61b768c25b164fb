//! Watches one answer pass, a stream or a body, and tells at its end what is to be recorded.

use super::{
    Usage,
    read::{Told, printable},
    scan::{Found, Name, Scanner},
};
use crate::{dialect::Dialect, tokens::TextTokens};

#[cfg(test)]
mod tests;

/// The watch over one answer.
#[derive(Debug)]
pub struct Observer {
    scanner: Scanner,
    notes: Notes,
}

/// What an event was, so far as it matters to who forwards it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventKind {
    /// Chat: it has nothing but usage. Clients that did not ask for it read `choices[0]` and fail.
    pub is_usage_only_chunk: bool,
    /// The stream says that it is whole.
    pub is_done: bool,
    /// It tells of an error, which is the end of most streams.
    pub is_error: bool,
}

/// What is to be recorded of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one thing that was seen"
)]
pub struct Observed {
    /// The latest that was told.
    pub usage: Option<Usage>,
    /// The model that answered, by its own words.
    pub model: Option<String>,
    /// What was granted, not what was asked for.
    pub service_tier: Option<String>,
    /// Anthropic: where it was computed.
    pub inference_geo: Option<String>,
    /// Anthropic: `fast`, which costs more.
    pub speed: Option<String>,
    /// Anthropic: searches, each with a fee.
    pub web_searches: u64,
    /// What the provider says it cost, in picodollars (1e-12 USD): OpenRouter and xAI. Better than any
    /// price list.
    pub reported_cost_pico: Option<u128>,
    /// Generation has ended, so that to read on costs nothing.
    pub finished: bool,
    /// The answer was whole by its own word: `[DONE]`, `message_stop`, `response.completed` and its like,
    /// or the end of the JSON of a body. A stream of Gemini has no such word.
    pub done: bool,
    /// It told of an error.
    pub error: bool,
    /// The usage is that of the whole answer. If it is not, the input may be exact all the same (Anthropic
    /// tells it first), and the output is what had been generated at some time before.
    pub exact: bool,
    /// Tokens of text, thinking and arguments that were generated, estimated, for where there is no usage.
    pub generated: u64,
    /// The same, since the provider itself counted what had been generated; `None`: it has not.
    pub generated_since_count: Option<u64>,
    /// Counts that were less than nothing by the provider's own numbers, and were taken as 0.
    pub clamped: u32,
    /// Objects and numbers of usage that were too large or could not be read.
    pub dropped: u32,
}

impl Observer {
    pub fn new(dialect: Dialect) -> Self {
        Self {
            scanner: Scanner::new(dialect),
            notes: Notes::new(dialect),
        }
    }

    /// Looks at more of the data of the event under way.
    pub fn data(&mut self, bytes: &[u8]) {
        self.scanner
            .scan(bytes, &mut |found| self.notes.note(found));
    }

    /// The event has ended, or the stream in the middle of it.
    pub fn end_of_event(&mut self) -> EventKind {
        self.scanner.reset();
        self.notes.end_event()
    }

    /// Looks at more of a body that is not a stream of events.
    pub fn body(&mut self, bytes: &[u8]) {
        self.data(bytes);
        self.notes.done |= self.notes.is_closed;
    }

    /// Whether there is any text, thinking or argument so far.
    pub fn has_generated(&self) -> bool {
        self.notes.generated.count() > 0
    }

    /// Whether generation has ended.
    pub fn is_finished(&self) -> bool {
        self.notes.finished
    }

    /// What was seen so far. Nothing has to be ended before.
    pub fn finish(&self) -> Observed {
        let notes = &self.notes;
        let (usage, clamped) = notes.told.usage(notes.dialect);
        Observed {
            usage,
            model: notes.model.clone(),
            service_tier: notes
                .service_tier
                .as_ref()
                .or(notes.told.service_tier.as_ref())
                .cloned(),
            inference_geo: notes.told.inference_geo.clone(),
            speed: notes.told.speed.clone(),
            web_searches: notes.told.web_searches(),
            reported_cost_pico: notes.told.cost_pico(),
            finished: notes.finished,
            done: notes.done,
            error: notes.error,
            exact: notes.exact || notes.is_exact_by_now(),
            generated: notes.generated.count(),
            generated_since_count: notes
                .counted_at
                .map(|at| notes.generated.count().saturating_sub(at)),
            clamped,
            dropped: notes.told.dropped.saturating_add(notes.too_large),
        }
    }
}

/// What was found so far.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one thing that was seen"
)]
struct Notes {
    dialect: Dialect,
    told: Told,
    model: Option<String>,
    service_tier: Option<String>,
    finished: bool,
    done: bool,
    error: bool,
    exact: bool,
    /// The JSON of the event or body under way was whole.
    is_closed: bool,
    generated: TextTokens,
    /// What that was by the event that last told how many tokens had been generated.
    counted_at: Option<u64>,
    too_large: u32,
    event: Event,
}

/// What was found in the event under way.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one thing that was seen"
)]
struct Event {
    has_choices: bool,
    has_a_choice: bool,
    has_usage: bool,
    is_done: bool,
    is_error: bool,
}

impl Event {
    fn kind(self) -> EventKind {
        EventKind {
            is_usage_only_chunk: self.has_usage && self.has_choices && !self.has_a_choice,
            is_done: self.is_done,
            is_error: self.is_error,
        }
    }
}

impl Notes {
    fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            told: Told::default(),
            model: None,
            service_tier: None,
            finished: false,
            done: false,
            error: false,
            exact: false,
            is_closed: false,
            generated: TextTokens::default(),
            counted_at: None,
            too_large: 0,
            event: Event::default(),
        }
    }

    /// Usage beside the reason for the end, or behind it, is the last there is.
    fn is_exact_by_now(&self) -> bool {
        let is_last = self.event.has_usage && (self.finished || self.done);
        is_last && self.told.is_whole(self.dialect)
    }

    /// Anthropic's first event has a number in the count's place, before anything was generated.
    fn has_counted_output(&self) -> bool {
        let is_count = self.dialect != Dialect::Messages || self.generated.count() > 0;
        let (usage, _) = self.told.usage(self.dialect);
        is_count && usage.is_some_and(|usage| usage.output > 0)
    }

    fn end_event(&mut self) -> EventKind {
        self.exact |= self.is_exact_by_now();
        if self.event.has_usage && self.has_counted_output() {
            self.counted_at = Some(self.generated.count());
        }
        self.is_closed = false;
        std::mem::take(&mut self.event).kind()
    }

    fn note(&mut self, found: Found<'_>) {
        match found {
            Found::Usage(object) => {
                self.event.has_usage = true;
                self.told.note(self.dialect, object);
            }
            Found::UsageTooLarge => {
                self.event.has_usage = true;
                self.too_large = self.too_large.saturating_add(1);
            }
            Found::Name(Name::Model, json) => note_name(&mut self.model, json),
            Found::Name(Name::ServiceTier, json) => note_name(&mut self.service_tier, json),
            Found::Name(Name::Type, json) => self.note_type(json),
            Found::Finish => self.finished = true,
            Found::Error => self.note_error(),
            Found::Choices => self.event.has_choices = true,
            Found::Choice => self.event.has_a_choice = true,
            Found::Generated(text) => self.generated.add(text),
            Found::Done => self.note_done(),
            Found::Event => {
                self.end_event();
            }
            Found::Closed => self.is_closed = true,
        }
    }

    /// Events of Responses and Messages say what they are.
    fn note_type(&mut self, json: &[u8]) {
        match json {
            br#""error""# => self.note_error(),
            br#""message_stop""# => self.note_done(),
            br#""response.completed""# | br#""response.incomplete""# => {
                self.finished = true;
                self.note_done();
            }
            br#""response.failed""# => {
                self.finished = true;
                self.note_done();
                self.note_error();
            }
            _ => {}
        }
    }

    fn note_done(&mut self) {
        self.done = true;
        self.event.is_done = true;
    }

    fn note_error(&mut self) {
        self.error = true;
        self.event.is_error = true;
    }
}

/// Chunks repeat their model; only another one is worth reading.
fn note_name(known: &mut Option<String>, json: &[u8]) {
    let is_known = known
        .as_ref()
        .is_some_and(|known| json.get(1..json.len().saturating_sub(1)) == Some(known.as_bytes()));
    if !is_known && let Some(name) = printable(json) {
        *known = Some(name);
    }
}
