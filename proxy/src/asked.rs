//! What a path asks for: a dialect, and what of it.

use crate::{catalog::Call, dialect::Dialect};

/// A longer name is no model's.
pub(crate) const MODEL_MAX_BYTES: usize = 200;

/// A path that leads to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) dialect: Dialect,
    pub(crate) call: Call,
    /// Gemini names its model in the path; the others in the body.
    pub(crate) model: Option<String>,
}

impl Asked {
    /// `None`: there is nothing at this path.
    pub(crate) fn at(path: &str, query: Option<&str>) -> Option<Self> {
        let plain = |dialect| {
            Some(Self {
                dialect,
                call: Call::Plain,
                model: None,
            })
        };
        match path {
            "/v1/chat/completions" => plain(Dialect::Chat),
            "/v1/responses" => plain(Dialect::Responses),
            "/v1/embeddings" => plain(Dialect::Embeddings),
            "/v1/messages" => plain(Dialect::Messages),
            "/v1/messages/count_tokens" => Some(Self {
                dialect: Dialect::Messages,
                call: Call::CountTokens,
                model: None,
            }),
            _ => Self::gemini(path, query),
        }
    }

    fn gemini(path: &str, query: Option<&str>) -> Option<Self> {
        // Google's client for Python asks for the one, that for Node for the other.
        let call = path
            .strip_prefix("/v1beta/models/")
            .or_else(|| path.strip_prefix("/v1/models/"))?;
        let (model, verb) = call.rsplit_once(':')?;
        let verb = match verb {
            "generateContent" => "generateContent",
            "streamGenerateContent" => "streamGenerateContent",
            "countTokens" => "countTokens",
            "embedContent" => "embedContent",
            "batchEmbedContents" => "batchEmbedContents",
            _ => return None,
        };
        // Percent signs would be decoded by somebody, after this look.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
        let fits = (1..=MODEL_MAX_BYTES).contains(&model.len()) && model.bytes().all(is_name);
        fits.then(|| Self {
            dialect: Dialect::Gemini,
            call: Call::Gemini {
                verb,
                // Of the query nothing else passes: it may hold a key.
                is_sse: query.is_some_and(|query| query.split('&').any(|pair| pair == "alt=sse")),
            },
            model: Some(model.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_dialect_or_nothing() {
        assert_eq!(
            Asked::at("/v1/messages", None).unwrap().dialect,
            Dialect::Messages
        );
        let gemini = Asked::at(
            "/v1beta/models/default:streamGenerateContent",
            Some("key=x&alt=sse"),
        )
        .unwrap();
        assert_eq!(gemini.model.as_deref(), Some("default"));
        assert_eq!(
            gemini.call,
            Call::Gemini {
                verb: "streamGenerateContent",
                is_sse: true
            }
        );
        let stable = Asked::at("/v1/models/default:generateContent", None).unwrap();
        assert_eq!(stable.dialect, Dialect::Gemini);
        for nothing in [
            "/v1/models/default",
            "/v1/files",
            "/v1beta/models/default:delete",
            "/v1beta/models/:generateContent",
            "/v1beta/models/a%2fb:generateContent",
            "/v1/chat/completions/",
            "/v1/fine_tuning/jobs",
        ] {
            assert_eq!(Asked::at(nothing, None), None, "{nothing}");
        }
    }
}
