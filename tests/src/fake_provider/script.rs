//! What the provider does, chosen by words.
//!
//! | words of the user, or of the model's name with `-` for spaces | what happens |
//! |---|---|
//! | `fail 429` | an error of this status |
//! | `use NAME {...}`, `NAME` being a tool that is offered | a call of this tool with these arguments; then a text |
//! | `break off` | the connection breaks after a few words |
//! | `stumble` | an error is told after a few words, and the stream ends |
//! | `never end` | words without end |
//! | `at length` | [`LONG_TEXT`] again and again instead of [`TEXT`] |
//! | `slowly` | a pause before each event |
//! | anything else | [`TEXT`] |

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::conversation::Conversation;

/// The answer to nearly everything. What splits lines where JSON has none shows here.
pub const TEXT: &str =
    "The tide comes in, \u{2028}the tide goes out: n\u{e4}chste Flut \u{1f30a} at \"noon\".";

/// Prose, numbers and a call, as answers have them.
pub const LONG_TEXT: &str = "Here is what the tables say for Cuxhaven. High water comes at 04:12 and at 16:38; low \
    water follows about six hours later. The range is 3.1 metres today, and 3.4 metres tomorrow, because the moon is \
    nearly full. If you want to walk to Neuwerk, leave two hours before low water, take the marked way (about 11 km), \
    and be back before the creeks fill: the water rises in them first, behind you, where you do not see it. I checked \
    the forecast with get_tide({\"place\": \"Cuxhaven\", \"days\": 2}), which returned no warning. For a boat with \
    1.8 m draught the harbour is open from 13:30 until 19:45. ";

/// The answer to those who want a long one: more than tests wait for, so that counts that a dialect tells with
/// every event only grow.
static LONG_ANSWER: LazyLock<String> = LazyLock::new(|| LONG_TEXT.repeat(12));

/// What to do.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) action: Action,
    pub(super) end: End,
    pub(super) is_slow: bool,
}

#[derive(Debug)]
pub(super) enum Action {
    Refuse(u16),
    Say(&'static str),
    Call(Call),
}

/// A call of a tool.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Value,
}

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    BreakOff,
    Stumble,
    Never,
}

impl Script {
    pub(super) fn of(model: &str, conversation: &Conversation) -> Self {
        let words = format!("{} {}", model.replace('-', " "), conversation.said);
        let action = if let Some(status) = status(&words) {
            Action::Refuse(status)
        } else if let Some(call) = call(conversation) {
            Action::Call(call)
        } else {
            Action::Say(if words.contains("at length") {
                LONG_ANSWER.as_str()
            } else {
                TEXT
            })
        };
        let end = if words.contains("break off") {
            End::BreakOff
        } else if words.contains("stumble") {
            End::Stumble
        } else if words.contains("never end") {
            End::Never
        } else {
            End::Whole
        };
        Self {
            action,
            end,
            is_slow: words.contains("slowly"),
        }
    }
}

fn status(words: &str) -> Option<u16> {
    let (_, rest) = words.split_once("fail ")?;
    let status = rest.get(..3)?.parse().ok()?;
    (400..600).contains(&status).then_some(status)
}

fn call(conversation: &Conversation) -> Option<Call> {
    if conversation.has_result {
        return None;
    }
    conversation.tools.iter().find_map(|name| {
        let (_, rest) = conversation.said.split_once(&format!("use {name} "))?;
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let given = values.next().and_then(Result::ok);
        Some(Call {
            name: name.clone(),
            arguments: given.unwrap_or_else(|| json!({})),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_provider::Dialect;

    fn of(model: &str, body: &Value) -> Script {
        Script::of(model, &Conversation::of(Dialect::Chat, body))
    }

    #[test]
    fn words_choose_and_a_tool_that_answered_is_not_called_again() {
        let user = json!({"role": "user", "content": "Please use ls {\"path\": \".\"} now"});
        let context = json!({"role": "user", "content": [{"type": "text", "text": "context"}]});
        let called = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "a"}]});
        let result = json!({"role": "tool", "content": "a b"});
        let tools = json!([{"function": {"name": "exec"}}, {"function": {"name": "ls"}}]);
        let first = of("m", &json!({"messages": [user, context], "tools": tools}));
        let Action::Call(call) = first.action else {
            panic!("{first:?}");
        };
        assert_eq!(
            (call.name.as_str(), call.arguments),
            ("ls", json!({"path": "."}))
        );
        let messages = json!([user, called, result, context]);
        let second = of("m", &json!({"messages": messages, "tools": tools}));
        assert!(matches!(second.action, Action::Say(TEXT)), "{second:?}");
        let refused = of("fail-503", &json!({"messages": []}));
        assert!(matches!(refused.action, Action::Refuse(503)), "{refused:?}");
    }
}
