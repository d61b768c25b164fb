//! Whether a request offers tools that the provider runs itself, for a fee that its usage does not tell.

use super::members::{Malformed, Member, Members};

/// Of OpenAI's and Anthropic's tools: those that the client runs.
const CLIENTS_OWN: [&[u8]; 2] = [b"\"function\"", b"\"custom\""];
/// Of Gemini's, which are told by their keys, in either spelling.
const GEMINIS: [&str; 6] = [
    "codeexecution",
    "computeruse",
    "enterprisewebsearch",
    "filesearch",
    "retrieval",
    "urlcontext",
];

/// Whether one of these tools is run by the provider.
pub(super) fn has_hosted(tools: &Member<'_>) -> Result<bool, Malformed> {
    for tool in tools.elements()? {
        if is_hosted(tool?)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_hosted(mut tool: Members<'_>) -> Result<bool, Malformed> {
    while let Some(member) = tool.next_member()? {
        let key = member.key()?;
        if key == "type" {
            return Ok(!CLIENTS_OWN.contains(&member.text()) && member.text() != b"null");
        }
        let plain: String = key.chars().filter(|letter| *letter != '_').collect();
        let plain = plain.to_ascii_lowercase();
        if plain.starts_with("google") || GEMINIS.contains(&plain.as_str()) {
            return Ok(true);
        }
    }
    Ok(false)
}
