//! One model's prices, and what a request costs by them.
//!
//! A price step or tier holds for the whole request, its output too. All fall-backs were applied when
//! the list was read, so a request needs one row of prices and nothing else.

use super::amount::Picodollars;
use crate::usage::Usage;

/// The most a token may cost, in picodollars: 1 USD. The dearest listed one costs a hundredth.
pub(super) const DEAREST: u64 = 1_000_000_000_000;

/// What a request was granted, which may be less than it asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    pub service_tier: ServiceTier,
    pub region: Region,
    pub speed: Speed,
}

/// How soon the provider does the work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceTier {
    #[default]
    Default,
    Flex,
    Priority,
    Batch,
}

/// Where the provider was bound to do the work. Some providers take more for that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Region {
    #[default]
    Anywhere,
    /// OpenAI's host of that region.
    Eu,
    /// OpenAI's host of that region; Anthropic's `inference_geo`.
    Us,
}

/// Anthropic's `speed`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Speed {
    #[default]
    Standard,
    Fast,
}

impl ServiceTier {
    /// By the name that answers give; any other (`auto`, `standard`, `scale`) has no prices of its own.
    pub fn named(name: &str) -> Self {
        match name {
            "flex" => Self::Flex,
            "priority" => Self::Priority,
            "batch" => Self::Batch,
            _ => Self::Default,
        }
    }
}

/// What a model's tokens cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPrice {
    pub(super) base: Rates,
    /// For service tiers and from price steps on. A service tier that occurs has a row from 0 on.
    pub(super) rows: Box<[Row]>,
    pub(super) factors: Factors,
}

/// Picodollars a token, at most [`DEAREST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) input: u64,
    pub(super) cache_read: u64,
    pub(super) cache_write_5m: u64,
    pub(super) cache_write_1h: u64,
    /// For output that is not reasoning.
    pub(super) output: u64,
    pub(super) reasoning: u64,
}

/// Prices that hold from so much input on, until a later row of the same service tier does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Tokens of total input.
    pub(super) from: u64,
    pub(super) service_tier: ServiceTier,
    pub(super) rates: Rates,
}

/// What the whole sum is multiplied by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Factors {
    pub(super) eu: Factor,
    pub(super) us: Factor,
    pub(super) fast: Factor,
}

/// In millionths, at most [`Factor::MOST`]: so 1.1 is exactly that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Factor(pub(super) u32);

impl Factor {
    pub(super) const PLACES: i32 = 6;
    pub(super) const ONE: Self = Self(1_000_000);
    /// A thousand times the price is a mistake.
    pub(super) const MOST: Self = Self(1_000_000_000);
}

impl Default for Factor {
    fn default() -> Self {
        Self::ONE
    }
}

impl ModelPrice {
    /// The exact cost of a request, but for a fraction of a picodollar, which is dropped. That never
    /// changes the amount in microcents.
    pub fn cost(&self, usage: &Usage, terms: &Terms) -> Picodollars {
        let rates = self.rates(usage.total_input(), terms.service_tier);
        let reasoning = usage.reasoning.min(usage.output);
        let listed = [
            (usage.input, rates.input),
            (usage.cache_read, rates.cache_read),
            (usage.cache_write_5m, rates.cache_write_5m),
            (usage.cache_write_1h, rates.cache_write_1h),
            (usage.output - reasoning, rates.output),
            (reasoning, rates.reasoning),
        ]
        .into_iter()
        .map(|(tokens, price)| u128::from(tokens).saturating_mul(u128::from(price)))
        .fold(0, u128::saturating_add);
        Picodollars(self.factors.applied(listed, *terms))
    }

    pub(super) fn rates(&self, total_input: u64, service_tier: ServiceTier) -> &Rates {
        self.row(total_input, service_tier)
            .or_else(|| self.row(total_input, ServiceTier::Default))
            .map_or(&self.base, |row| &row.rates)
    }

    fn row(&self, total_input: u64, service_tier: ServiceTier) -> Option<&Row> {
        self.rows
            .iter()
            .filter(|row| row.service_tier == service_tier && row.from <= total_input)
            .max_by_key(|row| row.from)
    }
}

impl Factors {
    fn applied(self, listed: u128, terms: Terms) -> u128 {
        let region = match terms.region {
            Region::Anywhere => Factor::ONE,
            Region::Eu => self.eu,
            Region::Us => self.us,
        };
        let speed = match terms.speed {
            Speed::Standard => Factor::ONE,
            Speed::Fast => self.fast,
        };
        let numerator = u128::from(region.0) * u128::from(speed.0);
        let denominator = u128::from(Factor::ONE.0) * u128::from(Factor::ONE.0);
        // In two parts: the product with the whole sum would not fit at counts near 2^64.
        (listed / denominator)
            .saturating_mul(numerator)
            .saturating_add(listed % denominator * numerator / denominator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(price: u64) -> Rates {
        Rates {
            input: price,
            cache_read: price,
            cache_write_5m: price,
            cache_write_1h: price,
            output: price,
            reasoning: price,
        }
    }

    fn row(from: u64, service_tier: ServiceTier, price: u64) -> Row {
        Row {
            from,
            service_tier,
            rates: flat(price),
        }
    }

    fn at(service_tier: ServiceTier) -> Terms {
        Terms {
            service_tier,
            ..Terms::default()
        }
    }

    fn priced(base: Rates, rows: &[Row]) -> ModelPrice {
        ModelPrice {
            base,
            rows: rows.into(),
            factors: Factors::default(),
        }
    }

    #[test]
    fn every_count_has_its_own_price_and_reasoning_is_a_part_of_output() {
        let price = priced(
            Rates {
                input: 1,
                cache_read: 10,
                cache_write_5m: 100,
                cache_write_1h: 1_000,
                output: 10_000,
                reasoning: 100_000,
            },
            &[],
        );
        let mut usage = Usage {
            input: 2,
            cache_read: 3,
            cache_write_5m: 4,
            cache_write_1h: 5,
            output: 10,
            reasoning: 4,
        };
        let cost = |usage: &Usage| price.cost(usage, &Terms::default()).0;
        assert_eq!(cost(&usage), 465_432);
        usage.reasoning = 11;
        assert_eq!(cost(&usage), 1_005_432, "no more reasoning than output");
    }

    #[test]
    fn the_row_is_chosen_by_service_tier_first_and_then_by_total_input() {
        let rows = [
            row(0, ServiceTier::Flex, 2),
            row(100, ServiceTier::Default, 10),
            row(100, ServiceTier::Flex, 5),
            row(200, ServiceTier::Default, 20),
        ];
        let price = priced(flat(4), &rows);
        let chosen = |total, tier| price.rates(total, tier).input;
        assert_eq!(chosen(99, ServiceTier::Default), 4);
        assert_eq!(chosen(100, ServiceTier::Default), 10);
        assert_eq!(chosen(200, ServiceTier::Default), 20);
        assert_eq!(chosen(99, ServiceTier::Flex), 2);
        assert_eq!(chosen(u64::MAX, ServiceTier::Flex), 5);
        assert_eq!(chosen(99, ServiceTier::Priority), 4);
        assert_eq!(chosen(250, ServiceTier::Priority), 20);
    }

    #[test]
    fn cached_tokens_count_towards_a_step_and_output_is_priced_by_it() {
        let price = priced(flat(1), &[row(10, ServiceTier::Default, 7)]);
        let usage = Usage {
            cache_read: 10,
            output: 1,
            ..Usage::default()
        };
        assert_eq!(price.cost(&usage, &Terms::default()).0, 77);
    }

    #[test]
    fn factors_are_exact_together_and_fractions_are_dropped_at_the_end() {
        let mut price = priced(flat(25), &[]);
        price.factors = Factors {
            eu: Factor(1_200_000),
            us: Factor(1_100_000),
            fast: Factor(6_000_000),
        };
        let one = Usage {
            input: 1,
            ..Usage::default()
        };
        let cost = |region, speed| {
            let terms = Terms {
                region,
                speed,
                ..Terms::default()
            };
            price.cost(&one, &terms).0
        };
        assert_eq!(cost(Region::Anywhere, Speed::Standard), 25);
        assert_eq!(cost(Region::Eu, Speed::Standard), 30);
        assert_eq!(cost(Region::Us, Speed::Standard), 27);
        assert_eq!(cost(Region::Us, Speed::Fast), 165, "not 6 times 27");
    }

    #[test]
    fn the_largest_counts_at_the_highest_prices_still_give_the_exact_cost() {
        let mut price = priced(flat(DEAREST), &[]);
        price.factors.us = Factor::MOST;
        price.factors.fast = Factor::MOST;
        let most = u64::MAX;
        let usage = Usage {
            input: most,
            cache_read: most,
            cache_write_5m: most,
            cache_write_1h: most,
            output: most,
            reasoning: most,
        };
        let terms = Terms {
            service_tier: ServiceTier::Batch,
            region: Region::Us,
            speed: Speed::Fast,
        };
        let exact = 5 * u128::from(most) * u128::from(DEAREST) * 1_000_000;
        assert_eq!(price.cost(&usage, &terms).0, exact);
    }

    #[test]
    fn granted_tiers_without_prices_of_their_own_are_the_default() {
        assert_eq!(ServiceTier::named("priority"), ServiceTier::Priority);
        assert_eq!(ServiceTier::named("standard"), ServiceTier::Default);
        assert_eq!(at(ServiceTier::named("auto")), Terms::default());
    }
}
