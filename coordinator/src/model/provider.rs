//! Who serves models, under which names, with whose keys, within which limits.
use tidepool_shared::{limits::Limits, sealed_place::SealedPlace};

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

/// A key that a customer gave for a provider; not the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomerKey {
    pub provider: String,
    pub created_at: Moment,
}

/// What customers may use, and whose limits these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLimits {
    /// `tier/NAME`, or an instance's id.
    pub subject: String,
    pub limits: Limits,
    pub updated_at: Moment,
}

/// Something that is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub place: SealedPlace,
    pub bytes: Vec<u8>,
}
