use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod foreign;

fn read(body: &str) -> Envelope {
    Envelope::read(Dialect::Chat, body.as_bytes()).unwrap()
}

fn refused(body: &str) -> Malformed {
    Envelope::read(Dialect::Chat, body.as_bytes()).unwrap_err()
}

/// The body as it goes on, if it is changed.
fn asking(body: &str) -> Option<String> {
    match read(body).ask_for_usage() {
        Asked::NotAStream | Asked::ByClient => None,
        Asked::ByUs(splice) => {
            Some(String::from_utf8(spliced(body.as_bytes(), vec![splice])).unwrap())
        }
    }
}

#[test]
fn a_stream_without_options_is_asked_for_usage() {
    let body = " {\"model\": \"m\", \"stream\" : true}\n";
    let expected =
        " {\"stream_options\":{\"include_usage\":true},\"model\": \"m\", \"stream\" : true}\n";
    assert_eq!(asking(body).as_deref(), Some(expected));
}

#[test]
fn options_of_the_client_are_kept() {
    for (options, expected) in [
        ("null", r#"{"include_usage":true}"#),
        ("{}", r#"{"include_usage":true}"#),
        ("{ }", r#"{"include_usage":true }"#),
        (r#"{"a":[1]}"#, r#"{"include_usage":true,"a":[1]}"#),
        (
            r#"{"include_usage": false,"a":1}"#,
            r#"{"include_usage": true,"a":1}"#,
        ),
        (
            r#"{"a":1,"include_usage":null}"#,
            r#"{"a":1,"include_usage":true}"#,
        ),
        (
            r#"{"include\u005fusage":false}"#,
            r#"{"include\u005fusage":true}"#,
        ),
    ] {
        let body = |options| format!(r#"{{"stream_options":{options},"stream":true}}"#);
        assert_eq!(asking(&body(options)), Some(body(expected)), "{options}");
    }
}

#[test]
fn a_client_that_asks_itself_is_told_apart() {
    let asks = r#"{"stream":true,"stream_options":{"include_usage":true}}"#;
    assert_eq!(read(asks).ask_for_usage(), Asked::ByClient);
    for body in [
        "{}",
        r#"{"stream":false,"stream_options":{}}"#,
        r#"{"stream":null}"#,
    ] {
        assert_eq!(read(body).ask_for_usage(), Asked::NotAStream);
    }
}

#[test]
fn the_model_is_replaced_where_it_stands() {
    let body = r#"{"messages":[{"model":"inner"}],"model": "g\"pt" ,"stream":true}"#;
    let envelope = read(body);
    assert_eq!(envelope.model.as_ref().unwrap().name, "g\"pt");
    let Asked::ByUs(usage) = envelope.ask_for_usage() else {
        panic!("not asked");
    };
    let model = envelope.replace_model("new\\").unwrap();
    let whole = spliced(body.as_bytes(), vec![model, usage]);
    let expected = r#"{"stream_options":{"include_usage":true},"messages":[{"model":"inner"}],"model": "new\\" ,"stream":true}"#;
    assert_eq!(String::from_utf8(whole).unwrap(), expected);
    assert_eq!(read("{}").replace_model("m"), None);
    assert_eq!(read(r#"{"model":null}"#).model, None);
}

#[test]
fn the_largest_limit_of_output_counts_and_another_dialects_does_not() {
    let limits = |dialect, body: &str| {
        let envelope = Envelope::read(dialect, body.as_bytes()).unwrap();
        (envelope.max_output, envelope.answers)
    };
    let chat = r#"{"max_tokens":5,"max_completion_tokens":70,"n":3,"max_output_tokens":900}"#;
    assert_eq!(limits(Dialect::Chat, chat), (Some(70), Some(3)));
    let responses = r#"{"max_output_tokens":5,"max_tokens":900}"#;
    assert_eq!(limits(Dialect::Responses, responses), (Some(5), None));
    let messages = r#"{"max_tokens":5,"max_output_tokens":900}"#;
    assert_eq!(limits(Dialect::Messages, messages), (Some(5), None));
    // What the provider passes over limits nothing.
    assert_eq!(
        limits(Dialect::Chat, r#"{"max_output_tokens":1}"#),
        (None, None)
    );
    assert_eq!(limits(Dialect::Gemini, r#"{"max_tokens":1}"#), (None, None));
    let gemini = r#"{"generationConfig":{"maxOutputTokens":5,"candidateCount":2}}"#;
    assert_eq!(limits(Dialect::Gemini, gemini), (Some(5), Some(2)));
    assert_eq!(limits(Dialect::Chat, gemini), (None, None));
    let none = r#"{"max_tokens":"5","n":null,"a":{"max_tokens":5}}"#;
    assert_eq!(limits(Dialect::Chat, none), (None, None));
}

#[test]
fn a_number_of_answers_is_digits() {
    for number in ["1e2", "-1", "2.0", r#""9""#, "[9]"] {
        let at = |at| Malformed::Expected {
            what: "a whole number",
            at,
        };
        assert_eq!(refused(&format!(r#"{{"n":{number}}}"#)), at(5), "{number}");
        let body = format!(r#"{{"generation_config":{{"candidate_count":{number}}}}}"#);
        let gemini = Envelope::read(Dialect::Gemini, body.as_bytes());
        assert_eq!(gemini.unwrap_err(), at(40), "{number}");
    }
    let twice = br#"{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":9}}"#;
    assert_eq!(
        Envelope::read(Dialect::Gemini, twice).unwrap_err(),
        Malformed::Twice("maxOutputTokens")
    );
    let both =
        br#"{"generationConfig":{"candidateCount":8},"generation_config":{"candidateCount":1}}"#;
    assert_eq!(
        Envelope::read(Dialect::Gemini, both).unwrap_err(),
        Malformed::Twice("generationConfig")
    );
}

#[test]
fn what_parsers_read_differently_is_refused() {
    assert_eq!(
        refused(r#"{"model":"a","model":"b"}"#),
        Malformed::Twice("model")
    );
    assert_eq!(
        refused(r#"{"model":"a","\u006dodel":"b"}"#),
        Malformed::Twice("model")
    );
    assert_eq!(
        refused(r#"{"stream":true,"stream":true}"#),
        Malformed::Twice("stream")
    );
    assert_eq!(
        refused(r#"{"stream_options":null,"stream_options":{}}"#),
        Malformed::Twice("stream_options")
    );
    assert_eq!(
        refused(r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#),
        Malformed::Twice("include_usage")
    );
    assert_eq!(
        refused(r#"{"model":"a","Model":"b"}"#),
        Malformed::Case("model")
    );
    for (body, what, at) in [
        (r#"{"stream":"true"}"#, "true, false or null", 10),
        (r#"{"stream":1}"#, "true, false or null", 10),
        (r#"{"stream_options":[]}"#, "an object", 18),
        (
            r#"{"stream_options":{"include_usage":1}}"#,
            "true, false or null",
            35,
        ),
        (
            r#"{"model":["m"]}"#,
            "a model's name of at most 256 bytes",
            9,
        ),
    ] {
        assert_eq!(refused(body), Malformed::Expected { what, at }, "{body}");
    }
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(257));
    assert!(matches!(refused(&long), Malformed::Expected { at: 9, .. }));
    let longest = format!(r#"{{"model":"{}"}}"#, "m".repeat(256));
    assert_eq!(read(&longest).model.unwrap().name.len(), 256);
}

#[test]
fn a_body_that_is_not_json_is_refused_without_its_words() {
    for (body, what, at) in [
        ("", "an object", 0),
        ("[]", "an object", 0),
        ("{", "a key", 1),
        ("{,}", "a key", 1),
        (r#"{"a":1,}"#, "a key", 7),
        (r#"{"a" 1}"#, "a colon", 5),
        (r#"{"a":}"#, "a value", 5),
        (r#"{"a":secret}"#, "a value", 5),
        (r#"{"a":01}"#, "a value", 5),
        (r#"{"a":1 "b":2}"#, "a comma or the end of the object", 7),
        (r#"{"a":1"#, "a comma or the end of the object", 6),
        (r#"{"a":[1}}"#, "the other kind of closing bracket", 7),
        (r#"{"a":{"b":[{}]"#, "a closing bracket", 14),
        (r#"{"a":["b\"#, "the end of a string", 9),
        (r#"{"a":"b"#, "the end of a string", 7),
        (r#"{"a":1} {"#, "the end of the body", 8),
        ("\u{feff}{}", "an object", 0),
        (r#"{"\x":1}"#, "a key in UTF-8", 1),
    ] {
        assert_eq!(refused(body), Malformed::Expected { what, at }, "{body}");
    }
    let words = refused(r#"{"a":secret}"#).to_string();
    assert_eq!(words, "expected a value at byte 5");
    assert_eq!(
        Envelope::read(Dialect::Chat, b"{\"\xff\":1}")
            .unwrap_err()
            .to_string(),
        "expected a key in UTF-8 at byte 1"
    );
}

#[test]
fn nesting_has_an_end() {
    let body = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(
        read(&body(128)),
        Envelope {
            inside: 1,
            ..Envelope::default()
        }
    );
    assert_eq!(refused(&body(129)), Malformed::TooDeep(133));
}

#[test]
fn brackets_in_strings_are_text() {
    let body = r#"{"messages":[{"content":"}]\"}\\"},"{"],"stream":true}"#;
    assert!(read(body).stream);
}

/// Any JSON, with keys that matter among others.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i16>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let key = prop_oneof![
            Just("stream".to_owned()),
            Just("model".to_owned()),
            ".{0,6}"
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_changed_body_differs_in_nothing_else(
        before in value(),
        options in prop_oneof![
            Just(None),
            Just(Some(json!(null))),
            Just(Some(json!({"x": {"include_usage": 7}}))),
            Just(Some(json!({"include_usage": false, "x": [1]}))),
        ],
        after in value(),
        pretty: bool,
    ) {
        let mut body = json!({"before": before, "model": "old", "stream": true});
        if let Some(options) = &options {
            body["stream_options"] = options.clone();
        }
        body["after"] = after;
        let text = if pretty { format!("{body:#}") } else { body.to_string() };
        let envelope = Envelope::read(Dialect::Chat, text.as_bytes()).unwrap();
        let Asked::ByUs(usage) = envelope.ask_for_usage() else {
            panic!("not asked");
        };
        let changes = vec![usage, envelope.replace_model("new").unwrap()];
        let changed: Value = serde_json::from_slice(&spliced(text.as_bytes(), changes)).unwrap();
        let mut expected = body;
        expected["model"] = json!("new");
        let mut wanted = options.filter(Value::is_object).unwrap_or(json!({}));
        wanted["include_usage"] = json!(true);
        expected["stream_options"] = wanted;
        prop_assert_eq!(changed, expected);
    }

    #[test]
    fn whatever_a_parser_accepts_is_read(value in value(), pretty: bool) {
        let body = json!({"x": value});
        let text = if pretty { format!("{body:#}") } else { body.to_string() };
        prop_assert!(Envelope::read(Dialect::Chat, text.as_bytes()).is_ok());
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in "[{}\\[\\],:\"\\\\a1 ]{0,60}", bytes: Vec<u8>) {
        for body in [body.as_bytes(), &bytes] {
            if let Ok(envelope) = Envelope::read(Dialect::Chat, body) {
                envelope.ask_for_usage();
            }
        }
    }
}
