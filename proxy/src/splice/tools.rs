//! Whether a request has anything done that its usage does not tell, or that reaches what others left with the
//! provider: tools that the provider runs itself, wherever a dialect takes tools, and things of an earlier
//! conversation that are only referred to.
//!
//! What is not known to be harmless counts as hosted. A key that decides and is given twice is refused, for
//! parsers differ about which of the two counts.

use super::members::{Malformed, Members, Value};
use crate::dialect::Dialect;

/// Of OpenAI's and Anthropic's tools: those that the client runs.
const CLIENTS_OWN: [&[u8]; 2] = [b"\"function\"", b"\"custom\""];
/// What Gemini's compatible endpoint may understand in a tool of OpenAI's form, in any spelling.
const GEMINIS: [&str; 7] = [
    "codeexecution",
    "computeruse",
    "enterprisewebsearch",
    "filesearch",
    "mcpservers",
    "retrieval",
    "urlcontext",
];
/// Gemini's only tools that the client runs, in both spellings that its parser takes.
const GEMINIS_OWN: [&str; 2] = ["functionDeclarations", "function_declarations"];
/// More tools than providers take of anybody; each is looked at.
const TOOLS_MAX: usize = 1024;

/// Whether one of these tools is run by the provider. What is no list may be read as one tool.
pub(super) fn has_hosted(dialect: Dialect, tools: &Value<'_>) -> Result<bool, Malformed> {
    if tools.is_null() {
        return Ok(false);
    }
    let Some(mut elements) = tools.elements() else {
        return Ok(true);
    };
    let mut count = 0;
    while let Some(tool) = elements.next_element()? {
        count += 1;
        if count > TOOLS_MAX || !tool.is_object() || is_hosted(dialect, tool.members()?)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_hosted(dialect: Dialect, tool: Members<'_>) -> Result<bool, Malformed> {
    match dialect {
        Dialect::Gemini => is_hosted_by_gemini(tool),
        Dialect::Chat | Dialect::Responses | Dialect::Embeddings | Dialect::Messages => {
            is_hosted_by_others(tool)
        }
    }
}

fn is_hosted_by_gemini(mut tool: Members<'_>) -> Result<bool, Malformed> {
    while let Some(member) = tool.next_member()? {
        if !GEMINIS_OWN.contains(&&*member.key()?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_hosted_by_others(mut tool: Members<'_>) -> Result<bool, Malformed> {
    let mut kind = Kind::default();
    while let Some(member) = tool.next_member()? {
        let key = member.key()?;
        kind.note(&key, &member.value)?;
        let plain: String = key.chars().filter(|letter| *letter != '_').collect();
        let plain = plain.to_ascii_lowercase();
        if plain.starts_with("google") || GEMINIS.contains(&plain.as_str()) {
            return Ok(true);
        }
    }
    // Anthropic's tools of the client need not say that they are.
    Ok(kind.0.is_some_and(|kind| !CLIENTS_OWN.contains(&kind)))
}

/// Whether an item of the `input` of Responses brings hosted tools, or only refers to what is elsewhere.
pub(super) fn is_foreign_input(input: &Value<'_>) -> Result<bool, Malformed> {
    if input.is_null() || input.text().starts_with(b"\"") {
        return Ok(false);
    }
    let Some(mut items) = input.elements() else {
        return Ok(true);
    };
    while let Some(item) = items.next_element()? {
        if item.is_object() && is_foreign_item(item.members()?)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_foreign_item(mut item: Members<'_>) -> Result<bool, Malformed> {
    let mut kind = Kind::default();
    let mut has_role = false;
    while let Some(member) = item.next_member()? {
        let key = member.key()?;
        kind.note(&key, &member.value)?;
        has_role |= key == "role";
        if key.eq_ignore_ascii_case("tools") && has_hosted(Dialect::Responses, &member.value)? {
            return Ok(true);
        }
    }
    Ok(match kind.0 {
        // A message need not say that it is one; a reference need not either.
        None | Some(b"null") => !has_role,
        Some(kind) => kind == b"\"item_reference\"" || kind.contains(&b'\\'),
    })
}

/// The `type` of a tool or an item.
#[derive(Debug, Default)]
struct Kind<'a>(Option<&'a [u8]>);

impl<'a> Kind<'a> {
    fn note(&mut self, key: &str, value: &Value<'a>) -> Result<(), Malformed> {
        if !key.eq_ignore_ascii_case("type") {
            return Ok(());
        }
        if key != "type" {
            return Err(Malformed::Case("type"));
        }
        match self.0.replace(value.text()) {
            Some(_) => Err(Malformed::Twice("type")),
            None => Ok(()),
        }
    }
}
