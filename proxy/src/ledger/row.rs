//! A row of `usage_records`, as the journal keeps it and the database takes it: field for column.

use std::{
    borrow::Cow,
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tidepool_shared::id::{InstanceId, ServerId};

use super::{
    attempt::{Attempt, Ending, Outcome, Payer, Seen},
    id::AttemptId,
};
use crate::{
    budget::{day_of, month_of},
    database::{microseconds, number},
    usage::Usage,
};

/// Of any text: a client chooses its model's name, and a line must not grow with it.
const TEXT_CHARS: usize = 200;

/// One attempt. Numbers are those of the database, `i64`, at most its greatest.
///
/// A journal outlives the program that wrote it: a field that is added needs `#[serde(default)]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) id: String,
    request_id: String,
    server_id: ServerId,
    instance_id: Option<InstanceId>,
    provider: String,
    model: String,
    asked_model: String,
    dialect: String,
    input: i64,
    cache_read: i64,
    cache_write_5m: i64,
    cache_write_1h: i64,
    output: i64,
    reasoning: i64,
    cost_microcents: Option<i64>,
    payer: Payer,
    status: u16,
    outcome: Outcome,
    estimated: bool,
    first_token_ms: Option<i64>,
    total_ms: i64,
    /// Microseconds since the Unix epoch.
    at: i64,
    /// Whose grant it goes on, if its instance has a budget. Not a column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
}

impl Row {
    /// What will be written if nothing more is heard of the attempt.
    pub(super) fn begun(id: AttemptId, attempt: Attempt) -> Self {
        let Attempt { estimate, .. } = attempt;
        Self {
            id: id.to_string(),
            request_id: capped(attempt.request_id),
            server_id: attempt.server,
            instance_id: attempt.instance,
            provider: capped(attempt.provider),
            model: capped(attempt.model),
            asked_model: capped(attempt.asked_model),
            dialect: capped(attempt.dialect.to_owned()),
            input: number(estimate.input),
            cache_read: number(estimate.cache_read),
            cache_write_5m: number(estimate.cache_write_5m),
            cache_write_1h: number(estimate.cache_write_1h),
            output: number(estimate.output),
            reasoning: number(estimate.reasoning),
            cost_microcents: attempt.estimate_cost_microcents.map(number),
            payer: attempt.payer,
            status: 0,
            outcome: Outcome::ProxyDied,
            estimated: true,
            first_token_ms: None,
            total_ms: 0,
            at: microseconds(attempt.at),
            holder: attempt.holder,
        }
    }

    /// Who pays us for it, and how much.
    pub(super) fn charged(&self) -> Option<(InstanceId, i64)> {
        let cost = self.cost_microcents.filter(|cost| *cost > 0)?;
        let instance = self.instance_id?;
        (self.payer == Payer::Managed).then_some((instance, cost))
    }

    /// The day and the month that it belongs to.
    pub(super) fn periods(&self) -> [String; 2] {
        let at = Duration::from_micros(u64::try_from(self.at).unwrap_or(0));
        let at = UNIX_EPOCH + at;
        [day_of(at), month_of(at)]
    }

    pub(super) fn holder(&self) -> Option<&str> {
        self.holder.as_deref()
    }

    pub(super) fn see(&mut self, seen: Seen) {
        self.status = seen.status;
        self.set_usage(seen.usage);
        self.cost_microcents = seen.cost_microcents.map(number);
        self.first_token_ms = seen.first_token_ms.map(number);
    }

    pub(super) fn end(&mut self, ending: Ending) {
        self.see(Seen {
            status: ending.status,
            usage: ending.usage,
            cost_microcents: ending.cost_microcents,
            first_token_ms: ending.first_token_ms,
        });
        self.outcome = ending.outcome;
        self.estimated = ending.estimated;
        self.total_ms = number(ending.total_ms);
    }

    /// Nobody said how it ended: what was last known of it stands.
    pub(super) fn abandon(&mut self, total_ms: u64) {
        self.outcome = Outcome::Abandoned;
        self.estimated = true;
        self.total_ms = number(total_ms);
    }

    fn set_usage(&mut self, usage: Usage) {
        self.input = number(usage.input);
        self.cache_read = number(usage.cache_read);
        self.cache_write_5m = number(usage.cache_write_5m);
        self.cache_write_1h = number(usage.cache_write_1h);
        self.output = number(usage.output);
        self.reasoning = number(usage.reasoning);
    }
}

/// An attempt that ended, and the number of the segment that holds its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) begun_in: u64,
    pub(super) row: Row,
}

/// A line of the journal. Both kinds hold a whole row, so either is enough to write it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line<'a> {
    Begin(Cow<'a, Row>),
    End(Cow<'a, Ended>),
}

impl Line<'_> {
    pub(super) fn bytes(&self) -> serde_json::Result<Vec<u8>> {
        // Most lines fit.
        let mut bytes = Vec::with_capacity(768);
        serde_json::to_writer(&mut bytes, self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// A text that every database takes: PostgreSQL refuses a zero character, and with it all rows that
/// are written together.
fn capped(text: String) -> String {
    if text.len() <= TEXT_CHARS && !text.chars().any(char::is_control) {
        return text;
    }
    text.chars()
        .take(TEXT_CHARS)
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_200_characters_and_holds_no_control_character() {
        assert_eq!(capped("gpt\0\n".to_owned()), "gpt\u{fffd}\u{fffd}");
        assert_eq!(capped("ü".repeat(300)), "ü".repeat(200));
        assert_eq!(capped("claude-sonnet".to_owned()), "claude-sonnet");
    }

    #[test]
    fn a_number_over_the_databases_greatest_is_its_greatest() {
        assert_eq!(number(u64::MAX), i64::MAX);
    }
}
