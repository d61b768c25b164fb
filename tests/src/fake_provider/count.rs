//! What a text and a prompt come to in tokens: the tokenizer of OpenAI's models, and what OpenAI says is around a text.
//!
//! The proxy has no tokenizer, and what it estimates with was fitted to this one. Whether texts that nobody would write
//! cost little is looked at beside the estimate itself.

use serde_json::Value;

/// Of a text.
pub(super) fn tokens(text: &str) -> u64 {
    u64::try_from(bpe_openai::o200k_base().count(text)).unwrap_or(u64::MAX)
}

/// Before the answer, and for each message beside its role and its texts (OpenAI's cookbook, "How to count tokens with
/// tiktoken", `num_tokens_from_messages`).
const ANSWER_BEGINS: u64 = 3;
const MESSAGE: u64 = 3;
/// The same of functions (`num_tokens_for_tools`).
const FUNCTION: u64 = 7;
const PROPERTIES: u64 = 3;
const PROPERTY: u64 = 3;
const FUNCTIONS_END: u64 = 12;

/// Of a request, whatever its dialect: texts are where the dialects have them.
pub(super) fn prompt(request: &Value) -> u64 {
    let lists = ["messages", "input", "contents"];
    let messages: u64 = lists.iter().map(|name| turns(&request[name])).sum();
    let alone = ["system", "instructions", "systemInstruction"];
    let instructions: u64 = alone
        .iter()
        .map(|name| &request[name])
        .filter(|value| !value.is_null())
        .map(|value| MESSAGE + tokens("system") + texts(value))
        .sum();
    ANSWER_BEGINS + messages + instructions + tools(&request["tools"])
}

fn turns(list: &Value) -> u64 {
    match list {
        Value::String(text) => MESSAGE + tokens("user") + tokens(text),
        Value::Array(list) => list
            .iter()
            .map(|turn| {
                let role = turn["role"].as_str().map_or(0, tokens);
                MESSAGE + role + texts(turn)
            })
            .sum(),
        _ => 0,
    }
}

/// Of all that is said in it; not what tells programs which piece this is.
fn texts(value: &Value) -> u64 {
    match value {
        Value::String(text) => tokens(text),
        Value::Array(list) => list.iter().map(texts).sum(),
        Value::Object(members) => members
            .iter()
            .filter(|(key, _)| {
                !matches!(
                    key.as_str(),
                    "role" | "type" | "id" | "call_id" | "tool_call_id" | "tool_use_id"
                )
            })
            .map(|(_, value)| texts(value))
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

fn tools(tools: &Value) -> u64 {
    let Some(tools) = tools.as_array() else {
        return 0;
    };
    let all: u64 = tools
        .iter()
        .map(|tool| {
            let function = if tool["function"].is_object() {
                &tool["function"]
            } else {
                tool
            };
            let said = ["name", "description"]
                .iter()
                .filter_map(|key| function[key].as_str())
                .map(tokens)
                .sum::<u64>();
            let schema = [&function["parameters"], &function["input_schema"]];
            let takes: u64 = schema.iter().map(|schema| properties(schema)).sum();
            FUNCTION + said + takes
        })
        .sum();
    all + FUNCTIONS_END
}

fn properties(schema: &Value) -> u64 {
    let Some(properties) = schema["properties"].as_object() else {
        return 0;
    };
    let each = properties.iter().map(|(name, property)| {
        let kind = property["type"].as_str().map_or(0, tokens);
        let said = property["description"].as_str().map_or(0, tokens);
        PROPERTY + tokens(name) + kind + said
    });
    PROPERTIES + each.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// From the cookbook's own example for `gpt-4o`, which asks OpenAI for its count and gets the same.
    #[test]
    fn the_cookbooks_conversation_is_counted_as_openai_counts_it() {
        let conversation = json!({"messages": [
            {"role": "system", "content": "You are a helpful, pattern-following assistant that translates corporate \
                jargon into plain English."},
            {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
            {"role": "system", "name": "example_assistant", "content": "Things working well together will increase \
                revenue."},
            {"role": "system", "name": "example_user", "content": "Let's circle back when we have more bandwidth to \
                touch base on opportunities for increased leverage."},
            {"role": "system", "name": "example_assistant", "content": "Let's talk later when we're less busy about \
                how to do better."},
            {"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client \
                deliverable."},
        ]});
        // The cookbook adds one token for each name.
        assert_eq!(prompt(&conversation) + 4, 124);
    }
}
