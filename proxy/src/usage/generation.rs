//! What OpenRouter has in its books about one generation (`GET /api/v1/generation`).

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Observed, Told};
use crate::dialect::Dialect;

/// As OpenRouter's client for Python 1.3 has it (`GenerationResponseData`).
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    native_tokens_prompt: Option<u64>,
    native_tokens_completion: Option<u64>,
    native_tokens_cached: Option<u64>,
    native_tokens_reasoning: Option<u64>,
    /// As it is written: a decimal that no binary fraction is.
    #[serde(borrow)]
    total_cost: Option<&'a RawValue>,
    model: Option<String>,
}

/// `None` as long as the tokens are not known.
pub(crate) fn of_generation(json: &[u8]) -> Option<Observed> {
    let Answer { data } = serde_json::from_slice(json).ok()?;
    let usage = format!(
        r#"{{"prompt_tokens":{},"completion_tokens":{},"cost":{},
            "prompt_tokens_details":{{"cached_tokens":{}}},"completion_tokens_details":{{"reasoning_tokens":{}}}}}"#,
        data.native_tokens_prompt?,
        data.native_tokens_completion?,
        data.total_cost.map_or("null", RawValue::get),
        data.native_tokens_cached.unwrap_or(0),
        data.native_tokens_reasoning.unwrap_or(0),
    );
    let mut told = Told::default();
    told.note(Dialect::Chat, usage.as_bytes());
    let (usage, clamped) = told.usage(Dialect::Chat);
    Some(Observed {
        usage,
        model: data.model,
        reported_cost_pico: told.cost_pico(),
        finished: true,
        exact: true,
        clamped,
        dropped: told.dropped,
        ..Observed::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generations_counts_and_cost_are_those_of_the_books() {
        let books = br#"{"data":{"id":"gen-1","model":"openai/gpt-4o-mini","total_cost":0.00001234,"usage":0.00001234,
            "tokens_prompt":90,"tokens_completion":8,"native_tokens_prompt":100,"native_tokens_completion":7,
            "native_tokens_cached":40,"native_tokens_reasoning":2,"cancelled":true,"finish_reason":null}}"#;
        let observed = of_generation(books).unwrap();
        let usage = observed.usage.unwrap();
        assert_eq!((usage.input, usage.cache_read), (60, 40));
        assert_eq!((usage.output, usage.reasoning), (7, 2));
        assert_eq!(observed.reported_cost_pico, Some(12_340_000));
        assert!(observed.exact && observed.dropped == 0);
    }

    #[test]
    fn what_is_not_known_yet_is_no_count() {
        for json in [
            &br#"{"data":{"native_tokens_prompt":null,"native_tokens_completion":7,"total_cost":0}}"#[..],
            br#"{"data":{}}"#,
            br#"{"error":{"code":404}}"#,
            b"",
        ] {
            assert_eq!(of_generation(json), None);
        }
        let free =
            br#"{"data":{"native_tokens_prompt":1,"native_tokens_completion":2,"total_cost":0}}"#;
        assert_eq!(of_generation(free).unwrap().reported_cost_pico, Some(0));
        let unpriced = br#"{"data":{"native_tokens_prompt":1,"native_tokens_completion":2}}"#;
        assert_eq!(of_generation(unpriced).unwrap().reported_cost_pico, None);
    }
}
