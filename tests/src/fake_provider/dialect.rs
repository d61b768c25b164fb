//! The dialects, and where each has the key.

use http::HeaderMap;

/// What is spoken at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    Chat,
    Responses,
    Embeddings,
    Messages,
    Gemini,
}

impl Dialect {
    /// As the ledger has it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Messages => "messages",
            Self::Gemini => "gemini",
        }
    }

    /// The key that a request shows, where the real provider looks for it.
    pub(super) fn key(self, headers: &HeaderMap) -> Option<String> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let bearer = || text("authorization")?.strip_prefix("Bearer ");
        let key = match self {
            Self::Chat | Self::Responses | Self::Embeddings => bearer()?,
            // Newer clients have it as the others do.
            Self::Messages => text("x-api-key").or_else(bearer)?,
            Self::Gemini => text("x-goog-api-key")?,
        };
        Some(key.to_owned())
    }
}
