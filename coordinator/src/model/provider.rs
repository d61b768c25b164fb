//! Who serves models, under which names, with whose keys, within which limits.

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

/// What customers may use: of a tier, or of one instance, whose limits go before its tier's one by one.
/// Whatever is absent is not limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLimits {
    /// `tier/NAME`, or an instance's id.
    pub subject: String,
    pub requests_per_minute: Option<u64>,
    pub tokens_per_minute: Option<u64>,
    /// Hundred-millionths of a US dollar in a day, UTC.
    pub day_microcents: Option<u64>,
    /// The same in a calendar month, UTC.
    pub month_microcents: Option<u64>,
    pub updated_at: Moment,
}

/// Where something sealed is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealedPlace {
    Provider(String),
    CustomerKey { instance: String, provider: String },
}

impl SealedPlace {
    /// What it is sealed for: it opens for nothing else.
    pub fn purpose(&self) -> String {
        match self {
            Self::Provider(name) => format!("provider/{name}"),
            Self::CustomerKey { instance, provider } => {
                format!("instance/{instance}/provider/{provider}")
            }
        }
    }
}

/// Something that is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub place: SealedPlace,
    pub bytes: Vec<u8>,
}
