//! A conversation as a request has it, whatever the dialect.

use serde_json::Value;

use super::dialect::Dialect;

/// What of a request decides the answer.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// What the user said since the model last said something.
    pub(super) said: String,
    /// Whether a tool has answered since then.
    pub(super) has_result: bool,
    /// Names of the tools that are offered.
    pub(super) tools: Vec<String>,
}

/// A step of a conversation.
enum Step {
    User(String),
    Assistant,
    Called,
    Result,
}

impl Conversation {
    pub(super) fn of(dialect: Dialect, body: &Value) -> Self {
        let (steps, tools): (Vec<Step>, _) = match dialect {
            Dialect::Chat => (
                list(&body["messages"]).filter_map(chat).collect(),
                names(&body["tools"], "/function/name"),
            ),
            Dialect::Responses => (responses(&body["input"]), names(&body["tools"], "/name")),
            Dialect::Messages => (
                list(&body["messages"]).flat_map(messages).collect(),
                names(&body["tools"], "/name"),
            ),
            Dialect::Gemini => (
                list(&body["contents"]).flat_map(gemini).collect(),
                list(&body["tools"])
                    .flat_map(|tool| names(&tool["functionDeclarations"], "/name"))
                    .collect(),
            ),
            Dialect::Embeddings => (Vec::new(), Vec::new()),
        };
        let mut conversation = Self {
            tools,
            ..Self::default()
        };
        for step in steps {
            conversation.take(step);
        }
        conversation
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::User(text) => {
                self.said.push_str(&text);
                self.said.push('\n');
            }
            Step::Assistant => {
                self.said.clear();
                self.has_result = false;
            }
            Step::Called => {}
            Step::Result => self.has_result = true,
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn names(tools: &Value, pointer: &str) -> Vec<String> {
    let name = |tool: &Value| tool.pointer(pointer)?.as_str().map(str::to_owned);
    list(tools).filter_map(name).collect()
}

/// A text, or a list of parts with texts.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        parts => list(parts)
            .filter_map(|part| part["text"].as_str())
            .collect(),
    }
}

fn chat(message: &Value) -> Option<Step> {
    match message["role"].as_str()? {
        "user" => Some(Step::User(text(&message["content"]))),
        "tool" => Some(Step::Result),
        "assistant" if list(&message["tool_calls"]).next().is_some() => Some(Step::Called),
        "assistant" => Some(Step::Assistant),
        _ => None,
    }
}

fn responses(input: &Value) -> Vec<Step> {
    if let Some(text) = input.as_str() {
        return vec![Step::User(text.to_owned())];
    }
    let step = |item: &Value| match (item["type"].as_str(), item["role"].as_str()) {
        (Some("function_call"), _) => Some(Step::Called),
        (Some("function_call_output"), _) => Some(Step::Result),
        (_, Some("user")) => Some(Step::User(text(&item["content"]))),
        (_, Some("assistant")) => Some(Step::Assistant),
        _ => None,
    };
    list(input).filter_map(step).collect()
}

fn messages(message: &Value) -> Vec<Step> {
    let content = &message["content"];
    let has = |kind: &str| list(content).any(|block| block["type"] == kind);
    match message["role"].as_str() {
        Some("assistant") if has("tool_use") => vec![Step::Called],
        Some("assistant") => vec![Step::Assistant],
        Some("user") if has("tool_result") => vec![Step::Result, Step::User(text(content))],
        _ => vec![Step::User(text(content))],
    }
}

fn gemini(content: &Value) -> Vec<Step> {
    let parts = &content["parts"];
    let has = |key: &str| list(parts).any(|part| part.get(key).is_some());
    match content["role"].as_str() {
        Some("model") if has("functionCall") => vec![Step::Called],
        Some("model") => vec![Step::Assistant],
        _ if has("functionResponse") => vec![Step::Result, Step::User(text(parts))],
        _ => vec![Step::User(text(parts))],
    }
}
