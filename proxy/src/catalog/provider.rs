//! Providers: which dialects each kind speaks, at which path, and how it is shown a key.

use http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::Key;
use crate::dialect::Dialect;

const ANTHROPIC_VERSION: &str = "2023-06-01";

/// One that serves models.
#[derive(Debug)]
pub struct Provider {
    pub name: String,
    pub kind: Kind,
    base: Url,
    pub(super) key: Option<Key>,
}

/// What kinds there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    OpenAi,
    Anthropic,
    Gemini,
    OpenRouter,
    Mistral,
    DeepSeek,
    XAi,
    Groq,
    /// Any other that speaks as OpenAI does.
    Compatible,
}

impl Provider {
    /// `None`, and a word in the log, if the row makes no sense.
    pub(super) fn of(name: &str, kind: &str, base_url: &str, key: Option<Key>) -> Option<Self> {
        let provider = Kind::of(kind).zip(Url::parse(base_url).ok());
        let Some((kind, base)) = provider.filter(|(_, base)| !base.cannot_be_a_base()) else {
            tracing::error!(provider = name, "a provider in the database is none");
            return None;
        };
        Some(Self {
            name: name.to_owned(),
            kind,
            base,
            key,
        })
    }

    /// Where a request goes. The path is this provider's own; nothing of it is the client's, except the
    /// model's name, which becomes one segment.
    pub(crate) fn url(&self, dialect: Dialect, model: &str, call: &Call) -> Option<Url> {
        let mut url = self.base.clone();
        {
            let mut segments = url.path_segments_mut().ok()?;
            segments.pop_if_empty();
            segments.extend(self.kind.path(dialect)?);
            match call {
                Call::Plain => {}
                Call::Gemini { verb, .. } => {
                    segments.push(&format!("{model}:{verb}"));
                }
                Call::CountTokens => {
                    segments.push("count_tokens");
                }
            }
        }
        if let Call::Gemini { is_sse: true, .. } = call {
            url.set_query(Some("alt=sse"));
        }
        Some(url)
    }

    /// Where OpenRouter says what a generation came to.
    pub(crate) fn generation_url(&self, id: &str) -> Option<Url> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .ok()?
            .pop_if_empty()
            .extend(["v1", "generation"]);
        url.query_pairs_mut().append_pair("id", id);
        Some(url)
    }

    /// Shows the provider the key.
    pub fn authorize(&self, dialect: Dialect, key: &str, headers: &mut HeaderMap) -> Option<()> {
        let (name, value) = match (self.kind, dialect) {
            (Kind::Anthropic, Dialect::Messages) => ("x-api-key", key.to_owned()),
            (Kind::Gemini, Dialect::Gemini) => ("x-goog-api-key", key.to_owned()),
            _ => ("authorization", format!("Bearer {key}")),
        };
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
        Some(())
    }

    /// What a provider must be told besides, if the client did not.
    pub fn complete(&self, dialect: Dialect, headers: &mut HeaderMap) {
        if dialect == Dialect::Messages {
            let name = HeaderName::from_static("anthropic-version");
            headers
                .entry(name)
                .or_insert(HeaderValue::from_static(ANTHROPIC_VERSION));
        }
    }
}

/// What of a dialect is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Plain,
    Gemini {
        verb: &'static str,
        is_sse: bool,
    },
    /// Of Anthropic's: free, and answered without usage.
    CountTokens,
}

impl Call {
    /// Only counts what a request would come to: nothing is generated and nothing is charged.
    pub(crate) fn is_free(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Gemini { verb, .. } => *verb == "countTokens",
            Self::CountTokens => true,
        }
    }
}

impl Kind {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "openai" => Self::OpenAi,
            "anthropic" => Self::Anthropic,
            "gemini" => Self::Gemini,
            "openrouter" => Self::OpenRouter,
            "mistral" => Self::Mistral,
            "deepseek" => Self::DeepSeek,
            "xai" => Self::XAi,
            "groq" => Self::Groq,
            "compatible" => Self::Compatible,
            _ => return None,
        })
    }

    /// As the price list calls it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::OpenRouter => "openrouter",
            Self::Mistral => "mistral",
            Self::DeepSeek => "deepseek",
            Self::XAi => "xai",
            Self::Groq => "groq",
            Self::Compatible => "compatible",
        }
    }

    /// The path of a dialect, or `None` if this kind does not speak it.
    pub fn path(self, dialect: Dialect) -> Option<&'static [&'static str]> {
        match dialect {
            Dialect::Messages => {
                matches!(self, Self::Anthropic | Self::OpenRouter).then_some(&["v1", "messages"])
            }
            Dialect::Gemini => (self == Self::Gemini).then_some(&["v1beta", "models"]),
            Dialect::Chat => match self {
                Self::Anthropic => None,
                Self::Gemini => Some(&["v1beta", "openai", "chat", "completions"]),
                _ => Some(&["v1", "chat", "completions"]),
            },
            Dialect::Embeddings => match self {
                Self::Anthropic => None,
                Self::Gemini => Some(&["v1beta", "openai", "embeddings"]),
                _ => Some(&["v1", "embeddings"]),
            },
            Dialect::Responses => {
                let speaks = matches!(
                    self,
                    Self::OpenAi | Self::OpenRouter | Self::XAi | Self::Groq | Self::Compatible
                );
                speaks.then_some(&["v1", "responses"])
            }
        }
    }

    /// Whether a field that asks for usage in a stream is understood. Mistral and DeepSeek send usage
    /// without being asked, and may refuse what they do not know.
    pub const fn takes_stream_options(self) -> bool {
        !matches!(self, Self::Mistral)
    }
}
