//! The list of models, in the dialect of whoever asks: two dialects have the same path for it.

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
    let each = |one: fn(&str) -> Value| names.iter().map(|name| one(name)).collect::<Vec<_>>();
    match dialect {
        Dialect::Chat | Dialect::Responses | Dialect::Embeddings => {
            let data = each(
                |name| json!({"id": name, "object": "model", "created": 0, "owned_by": "tidepool"}),
            );
            json!({"object": "list", "data": data})
        }
        Dialect::Messages => {
            let data = each(
                |name| json!({"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}),
            );
            let (first, last) = (names.first(), names.last());
            json!({"data": data, "has_more": false, "first_id": first, "last_id": last})
        }
        Dialect::Gemini => {
            let models = each(|name| {
                json!({"name": format!("models/{name}"), "displayName": name,
                    "supportedGenerationMethods": ["generateContent", "countTokens"]})
            });
            json!({"models": models})
        }
    }
}
