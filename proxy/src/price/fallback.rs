//! What a missing price means.
//!
//! A list names few prices for a model and leaves the rest to rules. They are applied once, when the
//! list is read: every price step and service tier that a model has becomes a whole row of prices.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    field::Priced,
    model::{Factors, ModelPrice, Rates, Row, ServiceTier},
};

/// These price a request from this many tokens on, others from the next one.
const REACHED_STEP_COUNTS: &str = "xai";

/// What a list says about one model's prices.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Who sells the model.
    pub(super) provider: Option<String>,
    /// A model that answers with numbers and not with tokens.
    pub(super) embedding: bool,
    /// By the tokens of input above which they hold, 0 for everywhere, and by service tier.
    pub(super) listed: BTreeMap<(u64, ServiceTier), Listed>,
    /// By the tokens of input above which they hold. Where there are any, they are all the steps.
    pub(super) tiers: BTreeMap<u64, Listed>,
    pub(super) factors: Factors,
}

/// The prices that are there, in picodollars a token.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Listed {
    input: Option<u64>,
    cache_read: Option<u64>,
    cache_write_5m: Option<u64>,
    cache_write_1h: Option<u64>,
    output: Option<u64>,
    reasoning: Option<u64>,
}

impl Listing {
    /// `None` for a model without a price for its tokens. That is not a price of 0.
    pub(super) fn price(&self) -> Option<ModelPrice> {
        let (base, rows) = if self.tiers.is_empty() {
            self.stepped()?
        } else {
            self.tiered()?
        };
        Some(ModelPrice {
            base,
            rows,
            factors: self.factors,
        })
    }

    fn stepped(&self) -> Option<(Rates, Box<[Row]>)> {
        let base = self.rates_at(0, ServiceTier::Default)?;
        let service_tiers: BTreeSet<_> = self.listed.keys().map(|(_, tier)| *tier).collect();
        let mut rows = Vec::new();
        for service_tier in service_tiers {
            for above in self.steps() {
                if (above, service_tier) != (0, ServiceTier::Default) {
                    rows.push(Row {
                        from: self.first_at(above),
                        service_tier,
                        rates: self.rates_at(above, service_tier)?,
                    });
                }
            }
        }
        Some((base, rows.into()))
    }

    /// The step's own prices come first, the service tier's before everybody's; then those of the
    /// step below, and so on. For flex and batch a missing price so errs on the high side.
    fn rates_at(&self, above: u64, service_tier: ServiceTier) -> Option<Rates> {
        let order: Vec<Listed> = self
            .listed
            .range(..=(above, service_tier))
            .rev()
            .filter(|((_, tier), _)| [service_tier, ServiceTier::Default].contains(tier))
            .map(|(_, listed)| *listed)
            .collect();
        rates(&order, self.embedding)
    }

    fn first_at(&self, above: u64) -> u64 {
        let reached_counts = self.provider.as_deref() == Some(REACHED_STEP_COUNTS);
        if above == 0 || reached_counts {
            above
        } else {
            above.saturating_add(1)
        }
    }

    /// A tier takes nothing from the one below, and only prices of output from the model itself.
    fn tiered(&self) -> Option<(Rates, Box<[Row]>)> {
        let own = self.listed.get(&(0, ServiceTier::Default));
        let output = own.map_or_else(Listed::default, |own| Listed {
            output: own.output,
            reasoning: own.reasoning,
            ..Listed::default()
        });
        let mut rows = Vec::new();
        for (low, tier) in &self.tiers {
            rows.push(Row {
                from: low.saturating_add(1),
                service_tier: ServiceTier::Default,
                rates: rates(&[*tier, output], self.embedding)?,
            });
        }
        // Also for a request without input.
        let base = rows.first()?.rates;
        Some((base, rows.into_iter().skip(1).collect()))
    }

    /// Where prices change; 0 is the first.
    pub(super) fn steps(&self) -> BTreeSet<u64> {
        let named = self.listed.keys().map(|(above, _)| *above);
        named.chain([0]).collect()
    }
}

impl Listed {
    pub(super) fn set(&mut self, priced: Priced, price: u64) {
        let place = match priced {
            Priced::Input => &mut self.input,
            Priced::CacheRead => &mut self.cache_read,
            Priced::CacheWrite5m => &mut self.cache_write_5m,
            Priced::CacheWrite1h => &mut self.cache_write_1h,
            Priced::Output => &mut self.output,
            Priced::Reasoning => &mut self.reasoning,
        };
        *place = Some(price);
    }
}

/// For each price the first that is listed; what is listed nowhere costs like what it is a kind of.
fn rates(order: &[Listed], embedding: bool) -> Option<Rates> {
    let first = |price: fn(&Listed) -> Option<u64>| order.iter().find_map(price);
    let input = first(|listed| listed.input)?;
    let output = first(|listed| listed.output).or(embedding.then_some(0))?;
    let cache_write_5m = first(|listed| listed.cache_write_5m).unwrap_or(input);
    Some(Rates {
        input,
        cache_read: first(|listed| listed.cache_read).unwrap_or(input),
        cache_write_5m,
        cache_write_1h: first(|listed| listed.cache_write_1h).unwrap_or(cache_write_5m),
        output,
        // Where output has a price of its own and reasoning has none, the base price of reasoning is
        // not meant.
        reasoning: first(|listed| listed.reasoning.or(listed.output)).unwrap_or(output),
    })
}
