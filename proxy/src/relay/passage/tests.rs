use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    dialect::Dialect,
    relay::rules::{self, Case},
};

/// An event as a provider of the chat dialect may send it, and whether it is the chunk that we asked for.
#[derive(Debug, Clone)]
struct Sent {
    text: String,
    is_usage_only: bool,
}

fn value() -> impl Strategy<Value = Value> {
    let choice =
        json!({"index": 0, "delta": {"content": "a \"b\" \u{2028}"}, "finish_reason": null});
    let choices = prop::sample::select(vec![
        None,
        Some(Value::Null),
        Some(json!([])),
        Some(json!([choice])),
    ]);
    let usage = prop::sample::select(vec![
        None,
        Some(Value::Null),
        Some(json!({})),
        Some(json!({"prompt_tokens": 5, "completion_tokens": 2, "details": {"x": ["}", 1.5e3]}})),
    ]);
    let other = prop::sample::select(vec![
        json!({"id": "c", "error": null}),
        json!({"tools": [{"usage": {"prompt_tokens": 1}, "choices": []}]}),
        json!({"prompt_filter_results": [[]], "text": "\"usage\":{\"prompt_tokens\":1}"}),
        json!({}),
    ]);
    (choices, usage, other).prop_map(|(choices, usage, mut event)| {
        if let Some(choices) = choices {
            event["choices"] = choices;
        }
        if let Some(usage) = usage {
            event["usage"] = usage;
        }
        event
    })
}

fn event() -> impl Strategy<Value = Sent> {
    let end = || prop::sample::select(vec!["\n", "\r\n", "\r"]);
    let before = prop::sample::select(vec!["", "event: x", "id: 1"]);
    let json = (value(), before, any::<bool>(), end(), end()).prop_map(
        |(value, before, is_pretty, end, last)| {
            let mut text = String::new();
            if is_pretty {
                for line in format!("{value:#}").lines() {
                    text = format!("{text}data: {line}{end}");
                }
            } else {
                text = format!("data:{value}{end}");
            }
            let text = if is_pretty {
                format!("{text}: within{end}")
            } else {
                text
            };
            let before = if before.is_empty() {
                String::new()
            } else {
                format!("{before}{end}")
            };
            // A lone CR and an LF behind it would be one end of a line.
            let last = if end == "\r" { end } else { last };
            Sent {
                is_usage_only: value["choices"] == json!([]) && value["usage"].is_object(),
                text: format!("{before}{text}{last}"),
            }
        },
    );
    let other = prop::sample::select(vec![
        ": keep-alive\n\n",
        "data: [DONE]\r\n\r\n",
        "data: no json\n\n",
        "event: nothing\n\n",
    ]);
    prop_oneof![
        4 => json,
        1 => other.prop_map(|text| Sent { text: text.to_owned(), is_usage_only: false }),
    ]
}

fn form() -> Form {
    Form {
        dialect: Dialect::Chat,
        hides_usage: true,
        is_stream: true,
    }
}

fn passed(form: Form, pieces: &[&[u8]]) -> Vec<u8> {
    let mut passage = Passage::new(form);
    let mut passed = Vec::new();
    for piece in pieces {
        passage.take(Bytes::copy_from_slice(piece));
        while let Some(bytes) = passage.next() {
            passed.extend_from_slice(&bytes);
        }
    }
    passed.extend_from_slice(&passage.finish().0.unwrap_or_default());
    passed
}

#[test]
fn of_a_hidden_chunk_that_was_cut_in_its_last_line_end_nothing_is_left() {
    let hidden: &[u8] = b"data: {\"choices\":[],\"usage\":{}}\r\n\r";
    let next: &[u8] = b"\ndata: [DONE]\r\n\r\n";
    assert_eq!(passed(form(), &[hidden, next]), b"data: [DONE]\r\n\r\n");
    assert_eq!(
        passed(form(), &[hidden, b"", next]),
        b"data: [DONE]\r\n\r\n"
    );
    assert_eq!(
        passed(form(), &[hidden, b"data: [DONE]\r\n\r\n"]),
        b"data: [DONE]\r\n\r\n"
    );
}

#[test]
fn comments_are_not_the_beginning_of_an_answer() {
    let mut passage = Passage::new(form());
    passage.take(Bytes::from_static(b": OPENROUTER PROCESSING\n\n"));
    assert!(!passage.has_begun());
    passage.take(Bytes::from_static(b"data: {\"choices\":[]}\n\n"));
    assert!(passage.has_begun());
}

#[test]
fn a_chunk_that_is_too_large_to_be_held_back_passes() {
    let filler = "x".repeat(HELD_MAX_BYTES);
    let chunk = format!("data: {{\"id\":\"{filler}\",\"choices\":[],\"usage\":{{}}}}\n\n");
    let (left, right) = chunk.as_bytes().split_at(HELD_MAX_BYTES + 1);
    assert_eq!(passed(form(), &[left, right]), chunk.as_bytes());
    assert_eq!(passed(form(), &[chunk.as_bytes()]), b"");
}

proptest! {
    #[test]
    fn all_bytes_pass_but_the_chunks_that_we_asked_for(
        sent in prop::collection::vec(event(), 0..12),
        is_marked in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        hides_usage in any::<bool>(),
    ) {
        let mut stream = String::new();
        let mut expected = String::new();
        for (number, event) in sent.iter().enumerate() {
            let mark = if is_marked && number == 0 { "\u{feff}" } else { "" };
            for text in [mark, &event.text] {
                stream.push_str(text);
                if !(hides_usage && event.is_usage_only) {
                    expected.push_str(text);
                }
            }
        }
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let form = Form { hides_usage, ..form() };
        let mut pieces = Vec::new();
        let mut from = 0;
        for to in cuts.iter().copied().chain([stream.len()]) {
            pieces.push(&stream.as_bytes()[from..to]);
            from = to;
        }
        let passed = passed(form, &pieces);
        prop_assert_eq!(String::from_utf8_lossy(&passed), expected);
    }

    #[test]
    fn any_bytes_keep_the_rules(
        stream in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "(data: ?|: |event: x|\\{\"choices\":\\[\\],\"usage\":\\{\\}\\}|[a\r\n \\[\\]{}\",:]|\r\n|\n\n|\u{feff}){0,40}"
                .prop_map(String::into_bytes),
        ],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        held_max in prop::sample::select(vec![1, 40, HELD_MAX_BYTES]),
        hides_usage in any::<bool>(),
        is_stream in any::<bool>(),
        dialect in prop::sample::select(vec![
            Dialect::Chat, Dialect::Responses, Dialect::Embeddings, Dialect::Messages, Dialect::Gemini,
        ]),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let form = Form { dialect, hides_usage, is_stream };
        rules::hold(Case { form, held_max, stream: &stream }, &cuts);
    }
}
