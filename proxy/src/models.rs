//! The list of models and each of them, in the dialect of whoever asks: two dialects have the same path for it.

use http::HeaderMap;
use serde_json::{Value, json};

use crate::dialect::Dialect;

/// Whose list is asked for at `/v1/models`: each provider's clients have a header of their own.
pub(crate) fn dialect(headers: &HeaderMap) -> Dialect {
    if headers.contains_key("anthropic-version") {
        Dialect::Messages
    } else if headers.contains_key("x-goog-api-key") || headers.contains_key("x-goog-api-client") {
        Dialect::Gemini
    } else {
        Dialect::Chat
    }
}

/// The list, all on one page.
pub(crate) fn list(dialect: Dialect, names: &[&str]) -> Value {
    let all: Vec<_> = names.iter().map(|name| one(dialect, name)).collect();
    match dialect {
        Dialect::Chat | Dialect::Responses | Dialect::Embeddings => {
            json!({"object": "list", "data": all})
        }
        Dialect::Messages => {
            let (first, last) = (names.first(), names.last());
            json!({"data": all, "has_more": false, "first_id": first, "last_id": last})
        }
        Dialect::Gemini => json!({"models": all}),
    }
}

/// One of the list.
pub(crate) fn one(dialect: Dialect, name: &str) -> Value {
    match dialect {
        Dialect::Chat | Dialect::Responses | Dialect::Embeddings => {
            json!({"id": name, "object": "model", "created": 0, "owned_by": "tidepool"})
        }
        Dialect::Messages => {
            json!({"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"})
        }
        Dialect::Gemini => {
            json!({"name": format!("models/{name}"), "displayName": name,
                "supportedGenerationMethods": ["generateContent", "countTokens"]})
        }
    }
}
