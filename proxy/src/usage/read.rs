//! Objects of usage, read into one form.
//!
//! A stream tells its usage in several objects, and none of them need be whole: Anthropic's first has
//! how cached tokens were written and its last how many were generated. So what is told is kept field by
//! field, the latest of each; a field that is null or not there takes nothing back. Totals are never
//! added up: every object has the totals so far.

use serde_json::value::RawValue;

use super::{
    Usage,
    number::{self, Number},
};
use crate::dialect::Dialect;

mod counts;
mod name;
mod object;
#[cfg(test)]
mod tests;

use counts::Counts;
use object::Object;

pub(super) use name::printable;

/// What a provider has told so far, in its own way of counting.
#[derive(Debug, Default)]
pub(crate) struct Told {
    counts: Counts,
    /// What Anthropic counts beside its totals: conversations that it shortened on the way.
    compaction: Usage,
    pub(super) cost_ticks: Option<u128>,
    pub(super) cost_usd: Option<u128>,
    pub(super) service_tier: Option<String>,
    pub(super) inference_geo: Option<String>,
    pub(super) speed: Option<String>,
    /// Objects that could not be read, and numbers that cannot be meant.
    pub(super) dropped: u32,
}

impl Told {
    /// Takes note of one more object of usage.
    pub(crate) fn note(&mut self, dialect: Dialect, usage: &[u8]) {
        let Ok(usage) = serde_json::from_slice::<Object<'_>>(usage) else {
            self.dropped = self.dropped.saturating_add(1);
            return;
        };
        for (key, value) in usage.members() {
            if dialect == Dialect::Messages && key == "iterations" {
                self.note_iterations(value);
            } else if !value.starts_with('{') {
                self.note_field(dialect, &[key], value);
            } else if let Ok(details) = serde_json::from_str::<Object<'_>>(value) {
                for (name, value) in details.members() {
                    self.note_field(dialect, &[key, name], value);
                }
            }
        }
    }

    /// One entry for each time the model was asked. Only those that shortened are in no total.
    fn note_iterations(&mut self, list: &str) {
        let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(list) else {
            self.dropped = self.dropped.saturating_add(1);
            return;
        };
        let mut sum = Usage::default();
        for entry in entries {
            let Ok(object) = serde_json::from_str::<Object<'_>>(entry.get()) else {
                continue;
            };
            let mut kind = object.members().filter(|(key, _)| *key == "type");
            if !kind.any(|(_, kind)| kind == "\"compaction\"") {
                continue;
            }
            let mut one = Self::default();
            one.note(Dialect::Messages, entry.get().as_bytes());
            if let (Some(usage), _) = one.usage(Dialect::Messages) {
                sum = sum.and(usage);
            }
        }
        self.compaction = sum;
    }

    fn note_field(&mut self, dialect: Dialect, field: &[&str], value: &str) {
        if let Some(count) = self.counts.field(dialect, field) {
            note_number(count, number::count(value), &mut self.dropped);
            return;
        }
        match field {
            ["cost"] => {
                let cost = number::picodollars(value, 0);
                note_number(&mut self.cost_usd, cost, &mut self.dropped);
            }
            ["cost_in_usd_ticks"] => {
                let cost = number::picodollars(value, TICK_PLACES);
                note_number(&mut self.cost_ticks, cost, &mut self.dropped);
            }
            ["service_tier"] => note_name(&mut self.service_tier, value),
            ["inference_geo"] => note_name(&mut self.inference_geo, value),
            ["speed"] => note_name(&mut self.speed, value),
            _ => {}
        }
    }

    /// What the provider itself says the request cost, in picodollars.
    pub(super) fn cost_pico(&self) -> Option<u128> {
        self.cost_ticks.or(self.cost_usd)
    }

    pub(super) fn web_searches(&self) -> u64 {
        self.counts.web_searches.unwrap_or(0)
    }

    /// Whether input and output are both told.
    pub(crate) fn is_whole(&self, dialect: Dialect) -> bool {
        self.counts.is_whole(dialect)
    }

    /// The usage, and how often a difference that should have been a count was below nothing. `None` if
    /// neither input nor output was told.
    pub(crate) fn usage(&self, dialect: Dialect) -> (Option<Usage>, u32) {
        let (usage, clamped) = self.counts.usage(dialect);
        (usage.map(|usage| usage.and(self.compaction)), clamped)
    }
}

/// xAI's unit of cost is 1e-10 USD.
const TICK_PLACES: i32 = 10;

fn note_number<T>(known: &mut Option<T>, told: Number<T>, dropped: &mut u32) {
    match told {
        Number::Known(number) => *known = Some(number),
        Number::Unknown => {}
        Number::TooLarge => *dropped = dropped.saturating_add(1),
    }
}

fn note_name(known: &mut Option<String>, json: &str) {
    if let Some(name) = printable(json.as_bytes()) {
        *known = Some(name);
    }
}
