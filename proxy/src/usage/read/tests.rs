use serde_json::{Value, json};

use super::*;

fn told(dialect: Dialect, objects: &[Value]) -> Told {
    let mut told = Told::default();
    for object in objects {
        told.note(dialect, object.to_string().as_bytes());
    }
    told
}

/// The usage, and how often it was clamped.
fn usage(dialect: Dialect, objects: &[Value]) -> (Usage, u32) {
    let (usage, clamped) = told(dialect, objects).usage(dialect);
    (usage.unwrap(), clamped)
}

#[test]
fn cached_tokens_are_taken_out_of_the_prompt() {
    let object = json!({
        "prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050,
        "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 20},
    });
    let expected = Usage {
        input: 100,
        cache_read: 600,
        cache_write_5m: 300,
        output: 50,
        reasoning: 20,
        ..Usage::default()
    };
    assert_eq!(usage(Dialect::Chat, &[object]), (expected, 0));
    let object = json!({
        "input_tokens": 1000, "output_tokens": 50, "total_tokens": 1050,
        "input_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300},
        "output_tokens_details": {"reasoning_tokens": 20},
    });
    assert_eq!(usage(Dialect::Responses, &[object]), (expected, 0));
}

#[test]
fn deepseeks_hits_and_misses_make_up_the_prompt() {
    let expected = Usage {
        input: 300,
        cache_read: 700,
        output: 5,
        ..Usage::default()
    };
    for object in [
        json!({"prompt_tokens": 1000, "prompt_cache_hit_tokens": 700, "prompt_cache_miss_tokens": 300}),
        json!({"prompt_tokens": 1000, "prompt_cache_hit_tokens": 700}),
        json!({"prompt_tokens": 1000, "prompt_cache_miss_tokens": 300}),
        json!({"prompt_cache_hit_tokens": 700, "prompt_cache_miss_tokens": 300}),
        json!({"prompt_tokens": 1000, "prompt_cache_hit_tokens": 700, "prompt_cache_miss_tokens": 300,
            "prompt_tokens_details": {"cached_tokens": 700}}),
        // A server that knows the names and not the counts.
        json!({"prompt_tokens": 1000, "prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": 0,
            "prompt_tokens_details": {"cached_tokens": 700}}),
    ] {
        let output = json!({"completion_tokens": 5});
        assert_eq!(
            usage(Dialect::Chat, &[output, object.clone()]),
            (expected, 0),
            "{object}"
        );
    }
}

#[test]
fn xais_reasoning_is_output_even_where_its_output_has_it_not() {
    let object = json!({
        "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 410,
        "prompt_tokens_details": {"cached_tokens": 40},
        "completion_tokens_details": {"reasoning_tokens": 300},
        "num_sources_used": 0, "cost_in_usd_ticks": 37_756_000,
    });
    let expected = Usage {
        input: 60,
        cache_read: 40,
        output: 310,
        reasoning: 300,
        ..Usage::default()
    };
    assert_eq!(
        usage(Dialect::Chat, std::slice::from_ref(&object)),
        (expected, 0)
    );
    let told = told(Dialect::Chat, &[object]);
    assert_eq!(told.cost_pico(), Some(3_775_600_000));
}

#[test]
fn openrouters_cost_is_read_from_its_digits() {
    let mut told = Told::default();
    told.note(
        Dialect::Chat,
        br#"{"prompt_tokens":194,"completion_tokens":2,"total_tokens":196,"cost":0.000950000000000001,
            "is_byok":false,"cost_details":{"upstream_inference_cost":null,"cost":7}}"#,
    );
    assert_eq!(told.cost_pico(), Some(950_000_000));
    told.note(Dialect::Chat, br#"{"cost":1.0000000005e-3}"#);
    assert_eq!(told.cost_pico(), Some(1_000_000_001));
    told.note(Dialect::Chat, br#"{"cost":{"total":1}}"#);
    told.note(Dialect::Chat, br#"{"cost":-1}"#);
    assert_eq!((told.cost_pico(), told.dropped), (Some(1_000_000_001), 0));
    told.note(Dialect::Chat, br#"{"cost":1e9}"#);
    assert_eq!((told.cost_pico(), told.dropped), (Some(1_000_000_001), 1));
}

#[test]
fn anthropics_later_totals_keep_the_split_that_came_first() {
    let start = json!({
        "input_tokens": 10, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 2000,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
        "output_tokens": 1, "service_tier": "standard", "inference_geo": "us", "speed": "fast",
    });
    let delta = json!({
        "input_tokens": 25, "cache_creation_input_tokens": 350, "cache_read_input_tokens": null,
        "output_tokens": 500, "output_tokens_details": {"thinking_tokens": 120},
        "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1},
    });
    let expected = Usage {
        input: 25,
        cache_read: 2000,
        cache_write_5m: 150,
        cache_write_1h: 200,
        output: 500,
        reasoning: 120,
    };
    let objects = [start, delta];
    assert_eq!(usage(Dialect::Messages, &objects), (expected, 0));
    let told = told(Dialect::Messages, &objects);
    assert_eq!(told.web_searches(), 3);
    assert_eq!(told.service_tier.as_deref(), Some("standard"));
    assert_eq!(told.inference_geo.as_deref(), Some("us"));
    assert_eq!(told.speed.as_deref(), Some("fast"));
}

#[test]
fn anthropics_cache_writes_are_the_default_ones_unless_split() {
    let writes = |object: Value| {
        let (usage, clamped) = usage(Dialect::Messages, &[json!({"output_tokens": 1}), object]);
        (usage.cache_write_5m, usage.cache_write_1h, clamped)
    };
    assert_eq!(writes(json!({"cache_creation_input_tokens": 7})), (7, 0, 0));
    assert_eq!(
        writes(json!({"cache_creation_input_tokens": 7, "cache_creation": null})),
        (7, 0, 0)
    );
    let split = json!({"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4});
    assert_eq!(writes(json!({"cache_creation": split})), (3, 4, 0));
    for (all, expected) in [
        (2, (3, 4, 1)),
        (6, (3, 4, 1)),
        (7, (3, 4, 0)),
        (9, (5, 4, 0)),
    ] {
        let object = json!({"cache_creation_input_tokens": all, "cache_creation": split});
        assert_eq!(writes(object), expected);
    }
}

#[test]
fn what_anthropic_shortened_on_the_way_is_in_no_total_and_counts_as_well() {
    let iterations = json!([
        {"type": "message", "input_tokens": 9, "output_tokens": 9},
        {"type": "compaction", "input_tokens": 1000, "output_tokens": 200, "cache_read_input_tokens": 50},
        {"type": "compaction", "input_tokens": 30, "output_tokens": 4,
         "cache_creation": {"ephemeral_1h_input_tokens": 6}, "cache_creation_input_tokens": 6},
    ]);
    let last = json!({"input_tokens": 10, "output_tokens": 7, "iterations": iterations});
    // The totals so far are told again and again: the latest counts.
    let (usage, clamped) = usage(Dialect::Messages, &[last.clone(), last]);
    assert_eq!(clamped, 0);
    assert_eq!(
        (usage.input, usage.cache_read, usage.output),
        (1040, 50, 211)
    );
    assert_eq!(usage.cache_write_1h, 6);
    let odd = json!({"input_tokens": 1, "output_tokens": 1, "iterations": "many"});
    assert_eq!(told(Dialect::Messages, &[odd]).dropped, 1);
}

#[test]
fn geminis_thoughts_and_tools_are_beside_the_other_counts() {
    let object = json!({
        "promptTokenCount": 100, "toolUsePromptTokenCount": 20, "cachedContentTokenCount": 30,
        "candidatesTokenCount": 40, "thoughtsTokenCount": 50, "totalTokenCount": 210,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}], "trafficType": "ON_DEMAND",
    });
    let expected = Usage {
        input: 90,
        cache_read: 30,
        output: 90,
        reasoning: 50,
        ..Usage::default()
    };
    assert_eq!(usage(Dialect::Gemini, &[object]), (expected, 0));
}

#[test]
fn embeddings_generate_nothing() {
    let expected = Usage {
        input: 8,
        ..Usage::default()
    };
    for object in [
        json!({"prompt_tokens": 8, "total_tokens": 8}),
        json!({"total_tokens": 8}),
    ] {
        assert_eq!(usage(Dialect::Embeddings, &[object]), (expected, 0));
    }
}

#[test]
fn a_difference_below_nothing_is_nothing_and_is_counted() {
    let object = json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 9},
        "completion_tokens_details": {"reasoning_tokens": 4}});
    let (usage, clamped) = usage(Dialect::Chat, &[object]);
    assert_eq!((usage.input, usage.cache_read), (0, 9));
    assert_eq!((usage.output, usage.reasoning), (2, 2));
    assert_eq!(clamped, 2);
}

#[test]
fn null_missing_and_impossible_numbers_take_nothing_back() {
    let first = json!({"prompt_tokens": 10, "completion_tokens": 4.0});
    let second = json!({"prompt_tokens": null, "completion_tokens": -3, "total_tokens": 10u64.pow(13),
        "prompt_tokens_details": null, "completion_tokens_details": "none"});
    let objects = [first, second, json!({})];
    let (usage, _) = usage(Dialect::Chat, &objects);
    assert_eq!((usage.input, usage.output), (10, 4));
    assert_eq!(told(Dialect::Chat, &objects).dropped, 1);
}

#[test]
fn an_object_without_a_count_is_no_usage() {
    for dialect in [
        Dialect::Chat,
        Dialect::Responses,
        Dialect::Embeddings,
        Dialect::Messages,
        Dialect::Gemini,
    ] {
        let schema = json!({"type": "object", "prompt_tokens": {"type": "integer"}});
        let told = told(dialect, &[json!({}), schema]);
        assert_eq!(told.usage(dialect), (None, 0));
        assert!(!told.is_whole(dialect));
    }
}

#[test]
fn what_is_not_an_object_is_dropped() {
    let mut told = Told::default();
    for bytes in [&b"[]"[..], b"{", b"{\"a\":\xff}", b"{\"a\":\"\\x\"}", b""] {
        told.note(Dialect::Chat, bytes);
    }
    assert_eq!(told.dropped, 5);
}
