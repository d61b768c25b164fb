//! Who serves models, under which names, and what was used.

use crate::ambient::Moment;

/// One that serves models. Its key is sealed; see `tidepool_certs::sealed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    pub name: String,
    /// One of [`KINDS`].
    pub kind: String,
    pub base_url: String,
    pub sealed_key: Option<Vec<u8>>,
    pub created_at: Moment,
    pub updated_at: Moment,
}

/// The kinds of providers that the proxy knows, and where each is by default. The last one has no address
/// of its own: it is any that speaks as OpenAI does.
pub const KINDS: [(&str, Option<&str>); 9] = [
    ("openai", Some("https://api.openai.com")),
    ("anthropic", Some("https://api.anthropic.com")),
    ("gemini", Some("https://generativelanguage.googleapis.com")),
    ("openrouter", Some("https://openrouter.ai/api")),
    ("mistral", Some("https://api.mistral.ai")),
    ("deepseek", Some("https://api.deepseek.com")),
    ("xai", Some("https://api.x.ai")),
    ("groq", Some("https://api.groq.com/openai")),
    ("compatible", None),
];

/// A name that customers of a tier may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelAlias {
    pub tier: String,
    pub alias: String,
    /// JSON: a list of `{provider, model, weight}`.
    pub targets: String,
    pub updated_at: Moment,
}

/// What an instance used of one model on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSum {
    /// Days since 1970, UTC.
    pub day: i64,
    pub provider: String,
    pub model: String,
    /// `managed`, `own` or `demo`.
    pub payer: String,
    pub requests: u64,
    /// Of these without an exact count.
    pub estimated: u64,
    /// Of these without a price.
    pub unpriced: u64,
    pub input: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    pub output: u64,
    pub cost_microcents: u64,
}
