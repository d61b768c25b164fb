use std::sync::LazyLock;

use proptest::{prelude::*, sample::Index};
use serde::Deserialize;

use super::*;
use crate::usage::Usage;

static BUNDLED: LazyLock<PriceList> = LazyLock::new(PriceList::bundled);

/// A case of `prices/cost-vectors.json`.
#[derive(Debug, Deserialize)]
struct Vector {
    provider: String,
    model: String,
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write_5m: u64,
    cache_write_1h: u64,
    picodollars: u64,
    microcents: u64,
}

fn list(json: &str) -> PriceList {
    PriceList::parse(json.as_bytes()).unwrap()
}

/// A list of one model, `m`, that anybody sells.
fn model(fields: &str) -> PriceList {
    list(&format!(r#"{{"m": {{{fields}}}}}"#))
}

fn input(tokens: u64) -> Usage {
    Usage {
        input: tokens,
        ..Usage::default()
    }
}

fn cost_at(list: &PriceList, usage: &Usage, service_tier: ServiceTier) -> u128 {
    let terms = Terms {
        service_tier,
        ..Terms::default()
    };
    list.find("anybody", "m").unwrap().cost(usage, &terms).0
}

fn cost(list: &PriceList, usage: &Usage) -> u128 {
    cost_at(list, usage, ServiceTier::Default)
}

/// Picodollars for a token of input, by the bundled list.
fn bundled_input(provider: &str, model: &str) -> Option<u128> {
    let price = BUNDLED.find(provider, model)?;
    Some(price.cost(&input(1_000), &Terms::default()).0 / 1_000)
}

#[test]
fn every_checked_case_costs_what_it_should() {
    let vectors: Vec<Vector> =
        serde_json::from_slice(include_bytes!("../../prices/cost-vectors.json")).unwrap();
    assert_eq!(vectors.len(), 2_274);
    for vector in vectors {
        let usage = Usage {
            input: vector.input,
            cache_read: vector.cache_read,
            cache_write_5m: vector.cache_write_5m,
            cache_write_1h: vector.cache_write_1h,
            output: vector.output,
            reasoning: 0,
        };
        let price = BUNDLED.find(&vector.provider, &vector.model);
        let exact = price.map(|price| price.cost(&usage, &Terms::default()));
        assert_eq!(
            exact.map(|exact| (exact, Microcents::from(exact))),
            Some((
                Picodollars(vector.picodollars.into()),
                Microcents(vector.microcents)
            )),
            "{vector:?}"
        );
    }
}

#[test]
fn the_bundled_list_has_no_entry_that_is_refused() {
    assert_eq!(BUNDLED.len(), 3_253);
    assert_eq!(
        *BUNDLED.left_out(),
        LeftOut {
            unpriced: 14,
            ..LeftOut::default()
        }
    );
}

#[test]
fn a_model_is_found_by_its_bare_name_and_by_the_lists_own() {
    assert_eq!(bundled_input("openai", "gpt-4o-mini"), Some(150_000));
    let own = BUNDLED.find("deepseek", "deepseek/deepseek-v4-pro");
    assert!(own.is_some());
    assert_eq!(BUNDLED.find("deepseek", "deepseek-v4-pro"), own);
    assert_eq!(
        bundled_input("xai", "grok-4.20-0309-reasoning"),
        Some(1_250_000)
    );
    assert_eq!(
        BUNDLED.find("openai", "gpt-3.5-turbo-instruct"),
        BUNDLED.find("text-completion-openai", "gpt-3.5-turbo-instruct"),
    );
}

#[test]
fn a_bare_name_of_somebody_else_is_passed_over() {
    let list = list(
        r#"{
            "gemini-pro": {"litellm_provider": "vertex_ai-language-models",
                "input_cost_per_token": 1e-6, "output_cost_per_token": 0},
            "gemini/gemini-pro": {"litellm_provider": "gemini",
                "input_cost_per_token": 2e-6, "output_cost_per_token": 0},
            "deepseek/chat": {"litellm_provider": "deepseek",
                "input_cost_per_token": 3e-6, "output_cost_per_token": 0},
            "house-model": {"input_cost_per_token": 4e-6, "output_cost_per_token": 0}
        }"#,
    );
    let price = |provider, model| {
        let price = list.find(provider, model)?;
        Some(price.cost(&input(1), &Terms::default()).0)
    };
    assert_eq!(price("vertex_ai", "gemini-pro"), Some(1_000_000));
    assert_eq!(price("gemini", "gemini-pro"), Some(2_000_000));
    assert_eq!(price("gemini", "gemini/gemini-pro"), Some(2_000_000));
    assert_eq!(price("openrouter", "deepseek/chat"), None);
    assert_eq!(price("openrouter", "gemini-pro"), None);
    assert_eq!(price("vertex", "gemini-pro"), None, "a part of the word");
    assert_eq!(price("anybody", "house-model"), Some(4_000_000));
}

#[test]
fn a_snapshot_that_is_not_listed_costs_what_its_model_does() {
    let dated = BUNDLED.find("anthropic", "claude-haiku-4-5-20251001");
    assert!(dated.is_some());
    let mini = BUNDLED.find("openai", "gpt-4o-mini");
    assert!(mini.is_some());
    assert_eq!(BUNDLED.find("openai", "gpt-4o-mini-20991231"), mini);
    assert_eq!(BUNDLED.find("openai", "gpt-4o-mini-2099-12-31"), mini);
    assert_eq!(
        BUNDLED.find("gemini", "gemini-2.5-pro-2099-12-31"),
        BUNDLED.find("gemini", "gemini/gemini-2.5-pro"),
    );
    for unlike in ["gpt-4o-mini-1231", "gpt-4o-mini-2099-1231", "-20991231", ""] {
        assert_eq!(BUNDLED.find("openai", unlike), None, "{unlike}");
    }
}

#[test]
fn an_unknown_model_and_one_without_prices_are_unpriced_and_not_free() {
    assert_eq!(BUNDLED.find("openai", "gpt-0"), None);
    let list = list(
        r#"{
            "nothing": {"mode": "chat"},
            "no-input": {"output_cost_per_token": 1e-6},
            "no-output": {"input_cost_per_token": 1e-6},
            "null": {"input_cost_per_token": null, "output_cost_per_token": 1e-6},
            "search": {"tiered_pricing": [{"max_results_range": [0, 25], "input_cost_per_query": 1}]},
            "free": {"input_cost_per_token": 0, "output_cost_per_token": 0.0},
            "numbers": {"mode": "embedding", "input_cost_per_token": 1e-6}
        }"#,
    );
    assert_eq!(list.left_out().unpriced, 5);
    assert_eq!(list.left_out().refused, 0);
    assert_eq!(list.len(), 2);
    let free = list.find("anybody", "free").unwrap();
    assert_eq!(free.cost(&input(1_000), &Terms::default()).0, 0);
}

#[test]
fn an_entry_that_makes_no_sense_is_left_out_alone() {
    let bad = [
        (
            r#""input_cost_per_token": "1e-6""#,
            RefusedEntry::NotANumber(NotADecimal::Unreadable),
        ),
        (
            r#""input_cost_per_token": -1e-6"#,
            RefusedEntry::NotANumber(NotADecimal::Negative),
        ),
        (
            r#""input_cost_per_token": true"#,
            RefusedEntry::NotANumber(NotADecimal::Unreadable),
        ),
        (r#""input_cost_per_token": 1.001"#, RefusedEntry::TooDear),
        (r#""input_cost_per_token": 1e300"#, RefusedEntry::TooDear),
        (r#""litellm_provider": 7"#, RefusedEntry::Malformed),
        (r#""tiered_pricing": {}"#, RefusedEntry::Malformed),
        (
            r#""tiered_pricing": [{"range": [0]}]"#,
            RefusedEntry::Malformed,
        ),
        (
            r#""tiered_pricing": [{"range": [0, 5.5]}]"#,
            RefusedEntry::Tiers,
        ),
        (
            r#""tiered_pricing": [{"range": [1, 5]}]"#,
            RefusedEntry::Tiers,
        ),
        (
            r#""tiered_pricing": [{"range": [0, 5]}, {"range": [6, 9]}]"#,
            RefusedEntry::Tiers,
        ),
        (
            r#""tiered_pricing": [{"range": [0, 5]}, {"range": [4, 9]}]"#,
            RefusedEntry::Tiers,
        ),
        (
            r#""provider_specific_entry": {"us": 1001}"#,
            RefusedEntry::Multiplier,
        ),
        (
            r#""provider_specific_entry": {"fast": 1.0000001}"#,
            RefusedEntry::Multiplier,
        ),
    ];
    for (fields, why) in bad {
        let list = list(&format!(
            r#"{{
                "bad": {{"output_cost_per_token": 0, "input_cost_per_token": 1e-6, {fields}}},
                "m": {{"output_cost_per_token": 0, "input_cost_per_token": 2e-6}}
            }}"#
        ));
        assert_eq!(list.find("anybody", "bad"), None, "{fields}");
        assert_eq!(
            list.left_out().first_refused,
            Some(("bad".into(), why)),
            "{fields}"
        );
        assert_eq!(cost(&list, &input(1)), 2_000_000);
    }
}

#[test]
fn more_price_steps_than_any_model_has_are_refused() {
    let steps: Vec<String> = (0..20)
        .map(|step| format!(r#""input_cost_per_token_above_{step}k_tokens": 1e-6"#))
        .collect();
    let list = model(&steps.join(","));
    let refused = list.left_out().first_refused.as_ref();
    assert_eq!(
        refused.map(|(_, why)| *why),
        Some(RefusedEntry::TooManySteps)
    );
}

#[test]
fn a_list_that_is_none_is_an_error() {
    let error = |bytes: &[u8]| PriceList::parse(bytes).unwrap_err();
    assert!(matches!(error(b""), PriceListError::Json(_)));
    assert!(matches!(error(b"[]"), PriceListError::Json(_)));
    assert!(matches!(error(b"{} {}"), PriceListError::Json(_)));
    assert!(matches!(error(b"{\"\xff\": {}}"), PriceListError::Text(_)));
    let large = vec![b' '; LIST_MAX_BYTES + 1];
    assert!(matches!(error(&large), PriceListError::TooLarge(_)));
    let many: Vec<String> = (0..=MODELS_MAX).map(|n| format!(r#""{n}":0"#)).collect();
    let many = format!("{{{}}}", many.join(","));
    assert!(matches!(error(many.as_bytes()), PriceListError::Json(_)));
    assert!(list("{}").is_empty());
}

#[test]
fn missing_cache_prices_are_those_of_input_and_a_zero_is_free() {
    let usage = Usage {
        cache_read: 1,
        cache_write_5m: 10,
        cache_write_1h: 100,
        ..Usage::default()
    };
    let base = r#""input_cost_per_token": 2e-12, "output_cost_per_token": 0"#;
    let with = |fields: &str| cost(&model(&format!("{base}{fields}")), &usage);
    assert_eq!(with(""), 222);
    assert_eq!(with(r#", "cache_read_input_token_cost": 0"#), 220);
    assert_eq!(with(r#", "cache_creation_input_token_cost": 3e-12"#), 332);
    assert_eq!(
        with(r#", "cache_creation_input_token_cost_above_1hr": 4e-12"#),
        422
    );
}

#[test]
fn a_step_begins_after_its_number_and_for_xai_at_it() {
    let fields = r#""input_cost_per_token": 1e-12, "input_cost_per_token_above_200k_tokens": 2e-12,
        "output_cost_per_token": 0, "output_cost_per_token_above_200k_tokens": 1e-12"#;
    let others = model(fields);
    let xai = list(&format!(
        r#"{{"xai/m": {{"litellm_provider": "xai", {fields}}}}}"#
    ));
    let xai = xai.find("xai", "m").unwrap();
    let usage = |cached| Usage {
        cache_read: cached,
        output: 5,
        ..input(100_000)
    };
    assert_eq!(cost(&others, &usage(100_000)), 200_000);
    assert_eq!(cost(&others, &usage(100_001)), 400_007);
    let xai = |cached| xai.cost(&usage(cached), &Terms::default()).0;
    assert_eq!(xai(99_999), 199_999);
    assert_eq!(xai(100_000), 400_005);
}

#[test]
fn a_price_that_a_step_does_not_name_stays_the_one_below_it() {
    let list = model(
        r#""input_cost_per_token": 5e-12, "output_cost_per_token": 7e-12,
        "cache_read_input_token_cost": 1e-12, "cache_creation_input_token_cost": 6e-12,
        "input_cost_per_token_above_1k_tokens": 10e-12,
        "output_cost_per_token_above_2k_tokens": 14e-12"#,
    );
    let usage = |cached| Usage {
        cache_read: cached,
        cache_write_1h: 1,
        output: 1,
        ..input(1)
    };
    assert_eq!(cost(&list, &usage(900)), 900 + 6 + 7 + 5);
    assert_eq!(cost(&list, &usage(1_900)), 1_900 + 6 + 7 + 10);
    assert_eq!(cost(&list, &usage(2_900)), 2_900 + 6 + 14 + 10);
}

#[test]
fn a_service_tiers_prices_come_first_and_those_of_all_fill_its_gaps() {
    let list = model(
        r#""input_cost_per_token": 4e-12, "input_cost_per_token_flex": 2e-12,
        "input_cost_per_token_priority": 8e-12, "output_cost_per_token": 0,
        "input_cost_per_token_above_1k_tokens": 40e-12,
        "input_cost_per_token_above_1k_tokens_flex": 20e-12"#,
    );
    let costs = |tier| {
        (
            cost_at(&list, &input(1_000), tier) / 1_000,
            cost_at(&list, &input(1_001), tier) / 1_001,
        )
    };
    assert_eq!(costs(ServiceTier::Default), (4, 40));
    assert_eq!(costs(ServiceTier::Flex), (2, 20));
    assert_eq!(costs(ServiceTier::Priority), (8, 40));
    assert_eq!(costs(ServiceTier::Batch), (4, 40));
}

#[test]
fn tiers_end_at_their_number_and_the_last_one_goes_on() {
    let list = model(
        r#""output_cost_per_token": 9e-12, "tiered_pricing": [
            {"range": [10, 20.0], "input_cost_per_token": 3e-12, "output_cost_per_token": 5e-12},
            {"range": [0, 10], "input_cost_per_token": 2e-12, "cache_read_input_token_cost": 1e-12}
        ]"#,
    );
    let usage = |cached, tokens| Usage {
        cache_read: cached,
        output: 1,
        ..input(tokens)
    };
    assert_eq!(cost(&list, &usage(0, 0)), 9);
    assert_eq!(cost(&list, &usage(1, 9)), 1 + 18 + 9);
    assert_eq!(cost(&list, &usage(1, 10)), 3 + 30 + 5);
    assert_eq!(cost(&list, &usage(0, 21)), 63 + 5);
}

#[test]
fn reasoning_has_its_own_price_only_where_output_has_no_closer_one() {
    let list = model(
        r#""input_cost_per_token": 0, "output_cost_per_token": 1e-12,
        "output_cost_per_reasoning_token": 10e-12, "output_cost_per_token_flex": 5e-12"#,
    );
    let usage = Usage {
        output: 3,
        reasoning: 2,
        ..Usage::default()
    };
    assert_eq!(cost(&list, &usage), 21);
    assert_eq!(cost_at(&list, &usage, ServiceTier::Flex), 15);
    assert_eq!(cost_at(&list, &usage, ServiceTier::Priority), 21);
}

#[test]
fn multipliers_of_region_and_speed_are_the_models_own() {
    let cost = |provider, model, region, speed| {
        let terms = Terms {
            region,
            speed,
            ..Terms::default()
        };
        let price = BUNDLED.find(provider, model).unwrap();
        price.cost(&input(1_000), &terms).0 / 1_000
    };
    let opus = |region, speed| cost("anthropic", "claude-opus-5-5", region, speed);
    assert_eq!(opus(Region::Anywhere, Speed::Standard), 4_000_000);
    assert_eq!(opus(Region::Us, Speed::Standard), 4_400_000);
    assert_eq!(opus(Region::Us, Speed::Fast), 8_800_000);
    assert_eq!(opus(Region::Eu, Speed::Standard), 4_000_000);
    let gpt = |region| cost("openai", "gpt-6-astra", region, Speed::Fast);
    assert_eq!(gpt(Region::Anywhere), 10_000_000);
    assert_eq!(gpt(Region::Eu), 11_000_000);
}

fn tokens() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..600_000, any::<u64>(), Just(u64::MAX),]
}

fn usages() -> impl Strategy<Value = Usage> {
    [tokens(), tokens(), tokens(), tokens(), tokens(), tokens()].prop_map(
        |[
            input,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            output,
            reasoning,
        ]| Usage {
            input,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            output,
            reasoning,
        },
    )
}

fn terms() -> impl Strategy<Value = Terms> {
    let tiers = prop_oneof![
        Just(ServiceTier::Default),
        Just(ServiceTier::Flex),
        Just(ServiceTier::Priority),
        Just(ServiceTier::Batch),
    ];
    let regions = prop_oneof![Just(Region::Anywhere), Just(Region::Eu), Just(Region::Us)];
    let speeds = prop_oneof![Just(Speed::Standard), Just(Speed::Fast)];
    (tiers, regions, speeds).prop_map(|(service_tier, region, speed)| Terms {
        service_tier,
        region,
        speed,
    })
}

proptest! {
    /// Reasoning is left out: it only moves tokens from one price to another.
    #[test]
    fn more_tokens_never_cost_less_within_a_step(
        model: Index, fewer in usages(), terms in terms(), which in 0usize..5, added in tokens()
    ) {
        let mut more = fewer;
        let count = [
            &mut more.input, &mut more.cache_read, &mut more.cache_write_5m,
            &mut more.cache_write_1h, &mut more.output,
        ];
        let count = count.into_iter().nth(which).unwrap();
        *count = count.saturating_add(added);
        let price = &model.get(&BUNDLED.models).price;
        let (low, high) = (price.cost(&fewer, &terms), price.cost(&more, &terms));
        let rates = |usage: &Usage| price.rates(usage.total_input(), terms.service_tier);
        if rates(&fewer) == rates(&more) {
            prop_assert!(low <= high);
            prop_assert!(Microcents::from(low) <= Microcents::from(high));
        }
    }

    #[test]
    fn any_prices_and_counts_have_a_cost(
        text in "(0|[1-9][0-9]{0,3})(\\.[0-9]{1,20})?(e-?[0-9]{1,3})?", usage in usages(), terms in terms()
    ) {
        let list = model(&format!(
            r#""input_cost_per_token": {text}, "output_cost_per_token_flex": {text},
            "output_cost_per_token": 1"#
        ));
        if let Some(price) = list.find("anybody", "m") {
            price.cost(&usage, &terms);
        } else {
            prop_assert_eq!(list.left_out().refused, 1);
        }
    }

    #[test]
    fn any_entry_is_read_or_left_out(name in ".{0,12}", value in ".{0,24}") {
        let entry = serde_json::json!({(name.as_str()): value, "input_cost_per_token": 0});
        let list = serde_json::json!({(name.as_str()): entry}).to_string();
        PriceList::parse(list.as_bytes()).unwrap().find(&value, &name);
    }
}
