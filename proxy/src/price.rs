//! What requests cost: prices of models' text tokens, and exact arithmetic with them.
//!
//! Prices are read from the text of the list into whole picodollars a token, never through a float, and
//! a cost is rounded once, from [`Picodollars`] to [`Microcents`]. The lists have LiteLLM's format; one
//! is built in (`prices/`). An entry that makes no sense is left out and counted: an operator's slip in
//! one model must not take the prices of the others.
//!
//! A model that is not in the list, or has no price there, is unpriced, which is `None` and never 0.
//!
//! Not priced, and so a cost is too low by them: images, audio, searches and other tools, fees a
//! request, and what a provider adds in its own regions (Vertex). Not known: DeepSeek's hours of other
//! prices (the base price is taken), and service tiers other than [`ServiceTier`]'s. What a provider
//! itself says a request cost is better than all of this.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fallback::Listing;
use object::Object;

mod amount;
mod decimal;
mod entry;
mod fallback;
mod field;
mod model;
mod object;
mod prices;
#[cfg(test)]
mod tests;

pub use amount::{Microcents, Picodollars};
pub use decimal::NotADecimal;
pub use entry::RefusedEntry;
pub use model::{ModelPrice, Region, ServiceTier, Speed, Terms};
pub use prices::{NoPrices, Prices};

/// Ten times the list of all the world's models.
const LIST_MAX_BYTES: usize = 32 * 1024 * 1024;
const MODELS_MAX: usize = 50_000;

/// The prices of many models.
#[derive(Debug)]
pub struct PriceList {
    /// In the order of their names.
    models: Box<[Model]>,
    left_out: LeftOut,
}

#[derive(Debug)]
struct Model {
    name: Box<str>,
    /// Who sells it, if the list says so.
    provider: Option<Arc<str>>,
    price: ModelPrice,
}

/// Entries of a list that are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Without a price for text tokens. Models that make pictures and the like are such.
    pub unpriced: usize,
    /// Not understood.
    pub refused: usize,
    /// The first of the refused.
    pub first_refused: Option<(String, RefusedEntry)>,
}

/// Why there is no price list.
#[derive(Debug, thiserror::Error)]
pub enum PriceListError {
    #[error("price list of {0} bytes, more than {LIST_MAX_BYTES}")]
    TooLarge(usize),
    #[error("read the price list as text")]
    Text(#[source] std::str::Utf8Error),
    #[error("read the price list as an object of models")]
    Json(#[source] serde_json::Error),
}

impl PriceList {
    /// The list the program was built with.
    pub fn bundled() -> Self {
        Self::parse(include_bytes!("../prices/model-prices.json"))
            .expect("these bytes are a part of the program, and a test reads them")
    }

    /// A list in LiteLLM's format.
    pub fn parse(bytes: &[u8]) -> Result<Self, PriceListError> {
        if bytes.len() > LIST_MAX_BYTES {
            return Err(PriceListError::TooLarge(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(PriceListError::Text)?;
        let Object::<'_, MODELS_MAX>(entries) =
            serde_json::from_str(text).map_err(PriceListError::Json)?;
        let mut models = BTreeMap::new();
        let mut left_out = LeftOut::default();
        let mut providers = Providers::default();
        for (name, entry) in entries {
            match Listing::read(entry) {
                Ok(listing) => match listing.price() {
                    Some(price) => {
                        let provider = listing.provider.map(|name| providers.shared(name));
                        models.insert(name, (provider, price));
                    }
                    None => left_out.unpriced += 1,
                },
                Err(why) => left_out.refuse(name, why),
            }
        }
        let models = models.into_iter().map(|(name, (provider, price))| Model {
            name: name.into(),
            provider,
            price,
        });
        Ok(Self {
            models: models.collect(),
            left_out,
        })
    }

    /// The price of a model as this provider sells it; `None` when the list does not have that.
    ///
    /// `provider` is the list's word (`openai`, `anthropic`, `gemini`, `xai`), `model` the name in the
    /// request or the list's own. A bare name may be somebody else's: `gemini-2.5-pro` is Vertex's and
    /// not Gemini's, and a reseller takes its own price for `deepseek/deepseek-chat`. So a name counts
    /// if the entry is this provider's, or nobody's; then the name with the provider before it; then
    /// both without the date of a snapshot.
    pub fn find(&self, provider: &str, model: &str) -> Option<&ModelPrice> {
        [Some(model), without_date(model)]
            .into_iter()
            .flatten()
            .find_map(|name| {
                self.named(&[name])
                    .filter(|found| found.is_sold_by(provider))
                    .or_else(|| self.named(&[provider, "/", name]))
            })
            .map(|found| &found.price)
    }

    /// How many models have a price.
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether no model has.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// What could not be used.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    fn named(&self, parts: &[&str]) -> Option<&Model> {
        let name = || parts.iter().flat_map(|part| part.bytes());
        let at = self
            .models
            .binary_search_by(|model| model.name.bytes().cmp(name()))
            .ok()?;
        self.models.get(at)
    }
}

impl Model {
    /// The list has several words for one seller: `cohere` and `cohere_chat`, `openai` and
    /// `text-completion-openai`, `vertex_ai` and `vertex_ai-anthropic_models`.
    fn is_sold_by(&self, provider: &str) -> bool {
        let Some(own) = self.provider.as_deref() else {
            return true;
        };
        let family = own.strip_prefix("text-completion-").unwrap_or(own);
        own == provider
            || family.strip_prefix(provider).is_some_and(|rest| {
                matches!(rest, "" | "_chat" | "_converse") || rest.starts_with('-')
            })
    }
}

impl LeftOut {
    fn refuse(&mut self, name: String, why: RefusedEntry) {
        self.refused += 1;
        self.first_refused.get_or_insert((name, why));
    }
}

/// The names of providers, each kept once: a hundred for thousands of models.
#[derive(Default)]
struct Providers(BTreeSet<Arc<str>>);

impl Providers {
    fn shared(&mut self, name: String) -> Arc<str> {
        if let Some(known) = self.0.get(name.as_str()) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

/// `claude-haiku-4-5-20251001` and `gpt-4o-2024-08-06` without their dates.
fn without_date(model: &str) -> Option<&str> {
    ["-20dddddd", "-20dd-dd-dd"].into_iter().find_map(|form| {
        let (name, end) = model.split_at_checked(model.len().checked_sub(form.len())?)?;
        let fits = end
            .bytes()
            .zip(form.bytes())
            .all(|(byte, form)| match form {
                b'd' => byte.is_ascii_digit(),
                other => byte == other,
            });
        (fits && !name.is_empty()).then_some(name)
    })
}
