//! The names of price fields: what is priced, from how many tokens on, at which service tier.

use super::model::ServiceTier;

/// What a price is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priced {
    Input,
    CacheRead,
    CacheWrite5m,
    CacheWrite1h,
    Output,
    Reasoning,
}

/// A price field, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) priced: Priced,
    /// Tokens of input; 0 for the price that holds everywhere.
    pub(super) above: u64,
    pub(super) service_tier: ServiceTier,
}

/// A name that begins with another one comes before it.
const STEMS: [(&str, Priced); 6] = [
    ("input_cost_per_token", Priced::Input),
    ("cache_read_input_token_cost", Priced::CacheRead),
    (
        "cache_creation_input_token_cost_above_1hr",
        Priced::CacheWrite1h,
    ),
    ("cache_creation_input_token_cost", Priced::CacheWrite5m),
    ("output_cost_per_token", Priced::Output),
    ("output_cost_per_reasoning_token", Priced::Reasoning),
];

impl Field {
    /// `STEM[_above_NUMBERk_tokens][_SERVICE-TIER]`; `None` for any other name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (rest, priced) = STEMS
            .iter()
            .find_map(|(stem, priced)| Some((name.strip_prefix(stem)?, *priced)))?;
        let (above, rest) = match rest.strip_prefix("_above_") {
            Some(step) => {
                let (thousands, rest) = step.split_once("k_tokens")?;
                (thousands.parse::<u64>().ok()?.checked_mul(1000)?, rest)
            }
            None => (0, rest),
        };
        let service_tier = match rest {
            "" => ServiceTier::Default,
            "_flex" => ServiceTier::Flex,
            "_priority" => ServiceTier::Priority,
            "_batches" => ServiceTier::Batch,
            _ => return None,
        };
        Some(Self {
            priced,
            above,
            service_tier,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_where_and_for_whom() {
        let read = |name| {
            let field = Field::named(name)?;
            Some((field.priced, field.above, field.service_tier))
        };
        assert_eq!(
            read("input_cost_per_token"),
            Some((Priced::Input, 0, ServiceTier::Default))
        );
        assert_eq!(
            read("output_cost_per_token_above_272k_tokens_batches"),
            Some((Priced::Output, 272_000, ServiceTier::Batch))
        );
        assert_eq!(
            read("cache_creation_input_token_cost_above_200k_tokens"),
            Some((Priced::CacheWrite5m, 200_000, ServiceTier::Default))
        );
        assert_eq!(
            read("cache_creation_input_token_cost_above_1hr_above_200k_tokens"),
            Some((Priced::CacheWrite1h, 200_000, ServiceTier::Default))
        );
        assert_eq!(
            read("cache_read_input_token_cost_flex"),
            Some((Priced::CacheRead, 0, ServiceTier::Flex))
        );
    }

    #[test]
    fn fees_for_other_things_are_no_token_prices() {
        for name in [
            "input_cost_per_token_cache_hit",
            "input_cost_per_token_ultrafast",
            "input_cost_per_audio_token",
            "input_cost_per_token_above_many_tokens",
            "input_cost_per_token_above_99999999999999999999k_tokens",
            "output_cost_per_image",
            "output_cost_per_second",
            "max_input_tokens",
            "",
        ] {
            assert_eq!(Field::named(name), None, "{name}");
        }
    }
}
