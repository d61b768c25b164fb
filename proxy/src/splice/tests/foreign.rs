//! What is served with a customer's own key only, in the forms in which it might pass unseen.

use super::*;

fn foreign(dialect: Dialect, body: &str) -> Option<&'static str> {
    Envelope::read(dialect, body.as_bytes()).unwrap().foreign
}

fn of_tools(dialect: Dialect, tools: &str) -> Option<&'static str> {
    foreign(dialect, &format!(r#"{{"tools":{tools}}}"#))
}

#[test]
fn tools_of_the_client_pass_in_every_dialect() {
    for (dialect, tools) in [
        (
            Dialect::Chat,
            r#"[{"type":"function","function":{"name":"type"}}]"#,
        ),
        (
            Dialect::Responses,
            r#"[{"type":"function","name":"a"},{"name":"b","type":"custom"}]"#,
        ),
        (
            Dialect::Messages,
            r#"[{"name":"a","input_schema":{"type":"object"}},{"type":"custom","name":"b"}]"#,
        ),
        (Dialect::Gemini, r#"[{"functionDeclarations":[]}]"#),
        (Dialect::Gemini, r#"[{"function_declarations":[]}]"#),
        (Dialect::Chat, "null"),
        (Dialect::Chat, "[ ]"),
    ] {
        assert_eq!(of_tools(dialect, tools), None, "{tools}");
    }
}

#[test]
fn tools_that_are_no_list_or_hold_what_is_no_tool_are_foreign() {
    for (dialect, tools) in [
        (Dialect::Gemini, r#"{"googleSearch":{}}"#),
        (Dialect::Gemini, r#"{"functionDeclarations":[]}"#),
        (Dialect::Messages, r#"{"type":"custom"}"#),
        (Dialect::Chat, r#""web_search""#),
        (Dialect::Chat, "1"),
        (Dialect::Chat, "false"),
        (Dialect::Chat, r#"["web_search"]"#),
        (Dialect::Chat, r#"[[{"type":"web_search"}]]"#),
    ] {
        assert_eq!(of_tools(dialect, tools), Some("tools"), "{tools}");
    }
}

#[test]
fn a_tool_is_looked_at_to_its_end() {
    let second = r#"[{"type":"custom","type":"web_search_20250305","name":"web_search"}]"#;
    let read = |tools: &str| {
        let body = format!(r#"{{"tools":{tools}}}"#);
        Envelope::read(Dialect::Messages, body.as_bytes())
    };
    assert_eq!(read(second).unwrap_err(), Malformed::Twice("type"));
    let escaped = r#"[{"type":"custom","\u0074ype":"web_search_20250305"}]"#;
    assert_eq!(read(escaped).unwrap_err(), Malformed::Twice("type"));
    let other_case = r#"[{"Type":"web_search_20250305"}]"#;
    assert_eq!(read(other_case).unwrap_err(), Malformed::Case("type"));
    for (dialect, tools) in [
        (Dialect::Messages, r#"[{"type":null,"name":"a"}]"#),
        (Dialect::Chat, r#"[{"type":"function","googleSearch":{}}]"#),
        (
            Dialect::Gemini,
            r#"[{"functionDeclarations":[],"mcpServers":[]}]"#,
        ),
        (Dialect::Gemini, r#"[{"newTool":{}}]"#),
        (Dialect::Gemini, r#"[{"type":"function"}]"#),
        (Dialect::Responses, r#"[{"type":"namespace","tools":[]}]"#),
    ] {
        assert_eq!(of_tools(dialect, tools), Some("tools"), "{tools}");
    }
}

#[test]
fn tools_are_counted_and_stand_between_commas() {
    let many = |count: usize| format!("[{}]", vec![r#"{"name":"a"}"#; count].join(","));
    assert_eq!(of_tools(Dialect::Messages, &many(1024)), None);
    assert_eq!(of_tools(Dialect::Messages, &many(1025)), Some("tools"));
    for tools in ["[{}{}]", "[{},]", "[,{}]"] {
        let body = format!(r#"{{"tools":{tools}}}"#);
        assert!(
            Envelope::read(Dialect::Chat, body.as_bytes()).is_err(),
            "{tools}"
        );
    }
}

#[test]
fn items_of_responses_bring_no_hosted_tools_and_refer_to_nothing() {
    let of_input = |input: &str| foreign(Dialect::Responses, &format!(r#"{{"input":{input}}}"#));
    for input in [
        r#""Hi""#,
        "null",
        r#"[{"role":"user","content":"Hi"},{"type":null,"role":"user"}]"#,
        r#"[{"type":"function_call_output","call_id":"c","output":"x"}]"#,
        r#"[{"type":"additional_tools","tools":[{"type":"function","name":"a"}]}]"#,
    ] {
        assert_eq!(of_input(input), None, "{input}");
    }
    for input in [
        r#"[{"role":"user"},{"type":"additional_tools","tools":[{"type":"web_search"}]}]"#,
        r#"[{"type":"tool_search_output","tools":{"type":"web_search"}}]"#,
        r#"[{"type":"item_reference","id":"msg_1"}]"#,
        r#"[{"type":"item\u005freference","id":"msg_1"}]"#,
        r#"[{"type":null,"id":"msg_1"}]"#,
        r#"[{"id":"msg_1"}]"#,
        r#"{"type":"item_reference","id":"msg_1"}"#,
    ] {
        assert_eq!(of_input(input), Some("input"), "{input}");
    }
    let twice = br#"{"input":[{"type":"message","type":"item_reference","id":"m"}]}"#;
    let twice = Envelope::read(Dialect::Responses, twice);
    assert_eq!(twice.unwrap_err(), Malformed::Twice("type"));
    // Texts of embeddings are no items.
    assert_eq!(foreign(Dialect::Embeddings, r#"{"input":[{}]}"#), None);
}

#[test]
fn other_models_threads_and_stored_prompts_are_foreign() {
    for (dialect, key) in [
        (Dialect::Messages, "fallbacks"),
        (Dialect::Messages, "thread"),
        (Dialect::Responses, "prompt"),
        (Dialect::Responses, "Prompt"),
    ] {
        let body = format!(r#"{{"{key}":{{"id":"x"}}}}"#);
        let expected = key.to_ascii_lowercase();
        assert_eq!(foreign(dialect, &body), Some(&*expected));
    }
}
