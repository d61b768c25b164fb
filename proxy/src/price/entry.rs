//! Reads one model's entry of a price list.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    amount::Picodollars,
    decimal::{Decimal, NotADecimal},
    fallback::{Listed, Listing},
    field::Field,
    model::{DEAREST, Factor, ServiceTier},
    object::Object,
};

/// Fields of one entry; the longest known has 70.
const FIELDS: usize = 1_000;
/// Price steps of one model; no known one has more than four.
const STEPS: usize = 16;

/// Why an entry is left out of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedEntry {
    #[error("not the expected JSON")]
    Malformed,
    #[error("a price or multiplier is not a plain number")]
    NotANumber(#[source] NotADecimal),
    #[error("a token for more than 1 USD")]
    TooDear,
    #[error("a multiplier over 1000 or with more than six places")]
    Multiplier,
    #[error("more than {STEPS} price steps")]
    TooManySteps,
    #[error("price tiers overlap or leave a gap")]
    Tiers,
}

/// Prices for `low < total input <= high`.
#[derive(Debug)]
struct Tier {
    low: u64,
    high: u64,
    listed: Listed,
}

impl Listing {
    pub(super) fn read(entry: &RawValue) -> Result<Self, RefusedEntry> {
        let mut listing = Self::default();
        for (name, value) in members(entry)? {
            listing.take(&name, value)?;
        }
        if listing.steps().len() > STEPS || listing.tiers.len() > STEPS {
            return Err(RefusedEntry::TooManySteps);
        }
        Ok(listing)
    }

    fn take(&mut self, name: &str, value: &RawValue) -> Result<(), RefusedEntry> {
        match name {
            "litellm_provider" => self.provider = Some(json(value)?),
            "mode" => self.embedding = json::<String>(value)? == "embedding",
            "tiered_pricing" => self.tiers = tiers(value)?,
            "provider_specific_entry" => self.take_factors(value)?,
            "regional_processing_uplift_multiplier_eu" => self.factors.eu = factor(value)?,
            "regional_processing_uplift_multiplier_us" => self.factors.us = factor(value)?,
            _ => {
                if let Some(field) = Field::named(name) {
                    let step = (field.above, field.service_tier);
                    let listed = self.listed.entry(step).or_default();
                    listed.set(field.priced, price(value)?);
                }
            }
        }
        Ok(())
    }

    fn take_factors(&mut self, value: &RawValue) -> Result<(), RefusedEntry> {
        for (name, value) in members(value)? {
            match name.as_str() {
                "us" => self.factors.us = factor(value)?,
                "fast" => self.factors.fast = factor(value)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// By the input above which they hold. A tier without a range is about something else than tokens.
fn tiers(value: &RawValue) -> Result<BTreeMap<u64, Listed>, RefusedEntry> {
    let mut tiers = Vec::new();
    for value in json::<Vec<&RawValue>>(value)? {
        tiers.extend(Tier::read(value)?);
    }
    tiers.sort_by_key(|tier| tier.low);
    let mut reached = 0;
    for tier in &tiers {
        if tier.low != reached || tier.high <= tier.low {
            return Err(RefusedEntry::Tiers);
        }
        reached = tier.high;
    }
    Ok(tiers
        .into_iter()
        .map(|tier| (tier.low, tier.listed))
        .collect())
}

impl Tier {
    fn read(value: &RawValue) -> Result<Option<Self>, RefusedEntry> {
        let mut range = None;
        let mut listed = Listed::default();
        for (name, value) in members(value)? {
            if name == "range" {
                range = Some(json::<[&RawValue; 2]>(value)?);
            } else if let Some(Field {
                priced,
                above: 0,
                service_tier: ServiceTier::Default,
            }) = Field::named(&name)
            {
                listed.set(priced, price(value)?);
            }
        }
        let Some([low, high]) = range else {
            return Ok(None);
        };
        Ok(Some(Self {
            low: tokens(low)?,
            high: tokens(high)?,
            listed,
        }))
    }
}

/// JSON made by programs has `null` for what is not there.
fn members(value: &RawValue) -> Result<Vec<(String, &RawValue)>, RefusedEntry> {
    let Object::<'_, FIELDS>(mut members) = json(value)?;
    members.retain(|(_, value)| value.get() != "null");
    Ok(members)
}

fn json<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Result<T, RefusedEntry> {
    serde_json::from_str(value.get()).map_err(|_| RefusedEntry::Malformed)
}

fn decimal(value: &RawValue) -> Result<Decimal, RefusedEntry> {
    Decimal::parse(value.get()).map_err(RefusedEntry::NotANumber)
}

/// Picodollars a token.
fn price(value: &RawValue) -> Result<u64, RefusedEntry> {
    decimal(value)?
        .times_ten_to(Picodollars::PLACES)
        .and_then(|price| u64::try_from(price).ok())
        .filter(|price| *price <= DEAREST)
        .ok_or(RefusedEntry::TooDear)
}

fn factor(value: &RawValue) -> Result<Factor, RefusedEntry> {
    decimal(value)?
        .exactly_times_ten_to(Factor::PLACES)
        .and_then(|millionths| u32::try_from(millionths).ok())
        .map(Factor)
        .filter(|factor| *factor <= Factor::MOST)
        .ok_or(RefusedEntry::Multiplier)
}

fn tokens(value: &RawValue) -> Result<u64, RefusedEntry> {
    decimal(value)?
        .exactly_times_ten_to(0)
        .and_then(|tokens| u64::try_from(tokens).ok())
        .ok_or(RefusedEntry::Tiers)
}
