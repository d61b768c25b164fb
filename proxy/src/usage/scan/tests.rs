use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;

/// What was found, so that it can be compared: text in one sum.
#[derive(Debug, Default, PartialEq, Eq)]
struct All {
    usage: Vec<Value>,
    names: Vec<(&'static str, String)>,
    too_large: usize,
    finish: usize,
    error: usize,
    choices: usize,
    choice: usize,
    generated: Vec<u8>,
    done: usize,
    events: usize,
    closed: usize,
}

impl All {
    fn note(&mut self, found: Found<'_>) {
        match found {
            Found::Usage(object) => self.usage.push(serde_json::from_slice(object).unwrap()),
            Found::UsageTooLarge => self.too_large += 1,
            Found::Name(name, json) => {
                let name = match name {
                    Name::Model => "model",
                    Name::ServiceTier => "service_tier",
                    Name::Type => "type",
                };
                self.names
                    .push((name, serde_json::from_slice(json).unwrap()));
            }
            Found::Finish => self.finish += 1,
            Found::Error => self.error += 1,
            Found::Choices => self.choices += 1,
            Found::Choice => self.choice += 1,
            Found::Generated(text) => self.generated.extend_from_slice(text),
            Found::Done => self.done += 1,
            Found::Event => self.events += 1,
            Found::Closed => self.closed += 1,
        }
    }
}

fn scan<'a>(dialect: Dialect, pieces: impl IntoIterator<Item = &'a [u8]>) -> All {
    let mut scanner = Scanner::new(dialect);
    let mut all = All::default();
    for piece in pieces {
        scanner.scan(piece, &mut |found| all.note(found));
    }
    all
}

fn usages(dialect: Dialect, json: &str) -> Vec<Value> {
    scan(dialect, [json.as_bytes()]).usage
}

#[test]
fn usage_is_found_in_its_own_places_only() {
    let json = r#"{"tools":[{"usage":{"a":1}}],"usage":{"b":[{"}":"\"}"}]},"x":{"usage":{"c":1}},
        "choices":[{"usage":{"d":1}}],"x_groq":{"usage":{"e":1}},"usage":null,"usage":[{"f":1}],
        "response":{"usage":{"g":1}},"message":{"usage":{"h":1}},"usageMetadata":{"i":1}}"#;
    let found = |dialect| {
        let usages = usages(dialect, json);
        usages
            .iter()
            .map(Value::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let top = r#"{"b":[{"}":"\"}"}]}"#;
    assert_eq!(found(Dialect::Chat), format!(r#"{top} {{"e":1}}"#));
    assert_eq!(found(Dialect::Responses), format!(r#"{top} {{"g":1}}"#));
    assert_eq!(found(Dialect::Messages), format!(r#"{top} {{"h":1}}"#));
    assert_eq!(found(Dialect::Embeddings), top);
    assert_eq!(found(Dialect::Gemini), r#"{"i":1}"#);
}

#[test]
fn keys_that_only_look_like_usage_are_passed_by() {
    for json in [
        r#"{"\u0075sage":{"a":1}}"#,
        r#"{"usage\u0000":{"a":1}}"#,
        r#"{"usage\"":{"a":1}}"#,
        r#"{"usage ":{"a":1}}"#,
        r#"{"usagexxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx":{"a":1}}"#,
        r#"{"":{"a":1}}"#,
        r#"{"a":"usage","b":{"a":1}}"#,
        r#"{"a":["usage",{"a":1}]}"#,
        r#"["usage",{"usage":{"a":1}}]"#,
        r#"{"a":"\\","b":"usage\":{\"a\":1}"}"#,
        r#"{"a":1}{"usage":{"a":1}}"#,
        r#"x{"usage":{"a":1}}"#,
    ] {
        assert_eq!(usages(Dialect::Chat, json), [] as [Value; 0], "{json}");
    }
    let after_escapes = r#"{"a":"\\\"\u0022","usage":{"a":1}}"#;
    assert_eq!(usages(Dialect::Chat, after_escapes).len(), 1);
}

#[test]
fn what_follows_the_json_is_not_looked_at() {
    let all = scan(
        Dialect::Chat,
        [&br#"{"a":1}}},"usage":{"a":1}}{"usage":{"a":1}}"#[..]],
    );
    assert_eq!((all.usage.len(), all.closed), (0, 1));
}

#[test]
fn an_event_that_is_cut_leaves_nothing_to_the_next() {
    for cut in [
        r#"{"a":{"b":["#,
        r#"{"choices":[{"#,
        r#"{"usage":{"c":"#,
        r#"{"model":"m"#,
        r#"{"usage":"#,
        r#"{"usage"#,
        r#"{"a":"\"#,
        "[DON",
        "x",
    ] {
        let mut scanner = Scanner::new(Dialect::Chat);
        scanner.scan(cut.as_bytes(), &mut |_| {});
        let mut all = All::default();
        for next in [
            r#"{"x":{"y":"}"}}"#,
            r#"{"x":[],"usage":{"a":1},"model":"n"}"#,
        ] {
            scanner.reset();
            scanner.scan(next.as_bytes(), &mut |found| all.note(found));
        }
        let expected = All {
            usage: vec![json!({"a": 1})],
            names: vec![("model", "n".to_owned())],
            closed: 2,
            ..All::default()
        };
        assert_eq!(all, expected, "{cut}");
    }
}

#[test]
fn done_is_known_by_all_of_its_bytes() {
    for (data, done) in [
        ("[DONE]", 1),
        (" [DONE] ", 1),
        ("[DONE", 0),
        ("[DONF]", 0),
        ("DONE", 0),
        ("[[DONE]", 0),
        ("", 0),
    ] {
        assert_eq!(scan(Dialect::Chat, [data.as_bytes()]).done, done, "{data}");
        assert_eq!(
            scan(Dialect::Chat, data.as_bytes().chunks(1)).done,
            done,
            "{data}"
        );
    }
}

#[test]
fn a_usage_that_is_too_large_is_passed_by_and_counted() {
    let usage = |length: usize| {
        let inside = "x".repeat(length - r#"{"a":""}"#.len());
        format!(r#"{{"usage":{{"a":"{inside}"}},"usage":{{"b":1}}}}"#)
    };
    let largest = scan(Dialect::Chat, [usage(copy::USAGE_MAX_BYTES).as_bytes()]);
    assert_eq!((largest.usage.len(), largest.too_large), (2, 0));
    let larger = scan(
        Dialect::Chat,
        usage(copy::USAGE_MAX_BYTES + 1).as_bytes().chunks(1000),
    );
    assert_eq!((larger.usage.len(), larger.too_large), (1, 1));
    let name = format!(r#"{{"model":"{}","model":"m"}}"#, "x".repeat(2000));
    let names = scan(Dialect::Chat, [name.as_bytes()]).names;
    assert_eq!(names, [("model", "m".to_owned())]);
}

#[test]
fn a_list_of_events_is_one_after_the_other() {
    let list = r#"[{"usageMetadata":{"a":1}}
        ,{"usageMetadata":{"a":2},"modelVersion":"m"}]"#;
    let all = scan(Dialect::Gemini, list.as_bytes().chunks(7));
    assert_eq!(all.usage.len(), 2);
    assert_eq!((all.events, all.closed), (2, 1));
    let nested = scan(Dialect::Gemini, [&br#"[[{"usageMetadata":{"a":1}}]]"#[..]]);
    assert_eq!(nested.usage.len(), 0);
}

#[test]
fn parts_within_parts_are_looked_at_up_to_a_depth() {
    let mut json = r#"{"text":"four"}"#.to_owned();
    for _ in 0..1000 {
        json = format!(r#"{{"thinking":[{json}]}}"#);
    }
    json = format!(r#"{{"content":[{json}],"usage":{{"a":1}}}}"#);
    let all = scan(Dialect::Messages, [json.as_bytes()]);
    assert_eq!(
        (all.generated.len(), all.usage.len(), all.closed),
        (0, 1, 1)
    );
}

#[test]
fn generated_text_is_told_as_it_is_written() {
    for text in ["abc", "\u{e9}", r#"\"\\\n"#, r"\u00e9"] {
        let json = format!(r#"{{"delta":"{text}"}}"#);
        let all = scan(Dialect::Responses, json.as_bytes().chunks(1));
        assert_eq!(all.generated, text.as_bytes());
    }
}

/// The paths to values that matter, written another way than in the scanner. `*` is any element; what is
/// below text in parts is left out.
fn paths(dialect: Dialect) -> [&'static [&'static str]; 4] {
    let usage: &[_] = match dialect {
        Dialect::Chat => &["usage", "x_groq.usage"],
        Dialect::Embeddings => &["usage"],
        Dialect::Messages => &["usage", "message.usage"],
        Dialect::Responses => &["usage", "response.usage"],
        Dialect::Gemini => &["usageMetadata"],
    };
    let text: &[_] = match dialect {
        Dialect::Chat => &[
            "choices.*.delta.content",
            "choices.*.message.content",
            "choices.*.delta.reasoning_content",
            "choices.*.message.reasoning_content",
            "choices.*.delta.tool_calls.*.function.arguments",
            "choices.*.message.tool_calls.*.function.arguments",
        ],
        Dialect::Embeddings => &[],
        Dialect::Messages => &[
            "delta.text",
            "delta.thinking",
            "delta.partial_json",
            "content",
        ],
        Dialect::Responses => &["delta", "output.*.content", "output.*.arguments"],
        Dialect::Gemini => &["candidates.*.content.parts"],
    };
    let finish: &[_] = match dialect {
        Dialect::Chat => &["choices.*.finish_reason"],
        Dialect::Embeddings | Dialect::Responses => &[],
        Dialect::Messages => &["stop_reason", "delta.stop_reason"],
        Dialect::Gemini => &["candidates.*.finishReason", "promptFeedback.blockReason"],
    };
    let error: &[_] = match dialect {
        Dialect::Chat => &["error", "x_groq.error"],
        Dialect::Responses => &["error", "response.error"],
        Dialect::Embeddings | Dialect::Messages | Dialect::Gemini => &["error"],
    };
    [usage, text, finish, error]
}

/// Whether the path leads to text, in parts or not, and is not longer than is looked at.
fn is_text(texts: &[&str], mut path: &str) -> bool {
    // A step is an open object or list.
    if path.split('.').count() > PATH_MAX {
        return false;
    }
    while let Some(whole) = path
        .strip_suffix(".*.text")
        .or(path.strip_suffix(".*.thinking"))
    {
        path = whole;
    }
    texts.contains(&path)
}

/// Finds by walking through what a parser has made.
fn walk(dialect: Dialect, path: &str, value: &Value, all: &mut All) {
    let [usage, text, finish, error] = paths(dialect);
    match value {
        Value::Object(_) if usage.contains(&path) => return all.usage.push(value.clone()),
        Value::Object(_) if error.contains(&path) => return all.error += 1,
        Value::String(string) if string.is_empty() => {}
        Value::String(_) if error.contains(&path) => all.error += 1,
        Value::String(_) if is_text(text, path) => {
            let json = value.to_string();
            all.generated
                .extend_from_slice(&json.as_bytes()[1..json.len() - 1]);
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) if finish.contains(&path) => {
            all.finish += 1;
        }
        _ => {}
    }
    let below = |key: &str| match path {
        "" => format!("{}{key}", if key.is_empty() { "." } else { "" }),
        path => format!("{path}.{key}"),
    };
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                walk(dialect, &below(key), value, all);
            }
        }
        Value::Array(elements) => {
            for value in elements {
                walk(dialect, &below("*"), value, all);
            }
        }
        _ => {}
    }
}

const KEYS: [&str; 28] = [
    "usage",
    "x_groq",
    "message",
    "response",
    "usageMetadata",
    "error",
    "choices",
    "finish_reason",
    "delta",
    "content",
    "text",
    "tool_calls",
    "function",
    "arguments",
    "reasoning_content",
    "thinking",
    "partial_json",
    "stop_reason",
    "output",
    "candidates",
    "finishReason",
    "parts",
    "prompt_tokens",
    "other",
    "",
    "usages",
    "usag",
    "u\"sage",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        // No escapes, so that text has its own length.
        "[ a-z{}\\[\\]:,é]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            3 => prop::collection::vec((select(&KEYS[..]), inner), 0..5).prop_map(object),
        ]
    })
}

fn object<K: Into<String>>(members: Vec<(K, Value)>) -> Value {
    Value::Object(
        members
            .into_iter()
            .map(|(key, value)| (key.into(), value))
            .collect(),
    )
}

/// Something at a path that matters, or near one.
fn member(dialect: Dialect) -> impl Strategy<Value = (String, Value)> {
    let paths: Vec<_> = paths(dialect).concat();
    let deeper = select(vec![
        "",
        "",
        "",
        ".*.text",
        ".*.thinking.*.text",
        ".*",
        ".text",
        ".usage",
    ]);
    (select(paths), deeper, value(), value()).prop_map(|(path, deeper, value, beside)| {
        let path = format!("{path}{deeper}");
        let (first, rest) = path.split_once('.').unwrap_or((&path, ""));
        let wrap = |value, key: &str| match key {
            "" => value,
            "*" => Value::from(vec![beside.clone(), value]),
            key => object(vec![
                ("before", beside.clone()),
                (key, value),
                ("text", beside.clone()),
            ]),
        };
        (first.to_owned(), rest.rsplit('.').fold(value, wrap))
    })
}

/// An event of a dialect, with anything beside.
fn event() -> impl Strategy<Value = (Dialect, Value)> {
    dialects().prop_flat_map(|dialect| {
        let beside = (select(&KEYS[..]).prop_map(str::to_owned), value());
        let members = prop_oneof![3 => member(dialect).boxed(), 1 => beside.boxed()];
        (
            Just(dialect),
            prop::collection::vec(members, 0..6).prop_map(object),
        )
    })
}

fn dialects() -> impl Strategy<Value = Dialect> {
    select(vec![
        Dialect::Chat,
        Dialect::Responses,
        Dialect::Embeddings,
        Dialect::Messages,
        Dialect::Gemini,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_same_is_found_as_by_a_parser(
        (dialect, json) in event(),
        pretty: bool,
        piece in 1usize..40,
    ) {
        let text = if pretty { format!("{json:#}") } else { json.to_string() };
        let found = scan(dialect, text.as_bytes().chunks(piece));
        let mut all = All::default();
        walk(dialect, "", &json, &mut all);
        prop_assert_eq!(&found.usage, &all.usage);
        prop_assert_eq!(found.error, all.error);
        prop_assert_eq!(found.finish, all.finish);
        prop_assert_eq!(found.generated, all.generated);
        prop_assert_eq!(found.closed, 1);
    }

    #[test]
    fn any_bytes_are_passed_by(
        dialect in dialects(),
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "(\\{|\\}|\\[|\\]|:|,|\"usage\"|\"choices\"|\"content\"|\"|\\\\|null|1| )*"
                .prop_map(String::into_bytes),
        ],
        piece in 1usize..9,
    ) {
        let found = |pieces: std::slice::Chunks<'_, u8>| {
            let mut scanner = Scanner::new(dialect);
            let mut found = Vec::new();
            let mut generated = Vec::new();
            for piece in pieces {
                scanner.scan(piece, &mut |each| match each {
                    Found::Generated(text) => generated.extend_from_slice(text),
                    each => found.push(format!("{each:?}")),
                });
            }
            (found, generated)
        };
        prop_assert_eq!(found(bytes.chunks(piece)), found(bytes.chunks(1000)));
    }
}
