//! Whether a provider takes a key: one harmless call, whose answer nobody keeps.

use std::time::Duration;

use reqwest::{Client, StatusCode, redirect::Policy};

use crate::model::Provider;

const CONNECT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);

/// Tries keys.
#[derive(Debug, Clone)]
pub struct KeyTrial(Client);

/// Why a key is not known to be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// The provider says that it is not.
    Refused,
    /// The provider said something else, or nothing.
    Unknown,
}

impl KeyTrial {
    /// A client that follows no redirect: a key goes where the operator's provider is, and nowhere else.
    pub fn new() -> reqwest::Result<Self> {
        Client::builder()
            .connect_timeout(CONNECT)
            .timeout(PATIENCE)
            .redirect(Policy::none())
            .no_proxy()
            .build()
            .map(Self)
    }

    /// Asks for something that only a key's owner may see, and that costs nothing.
    pub async fn try_key(&self, provider: &Provider, key: &str) -> Result<(), NotTaken> {
        let base = &provider.base_url;
        let get = |path: &str| self.0.get(format!("{base}{path}"));
        let request = match provider.kind.as_str() {
            "anthropic" => get("/v1/models")
                .header("x-api-key", key)
                .header("anthropic-version", "2023-06-01"),
            "gemini" => get("/v1beta/models").header("x-goog-api-key", key),
            // Its models are everybody's to see.
            "openrouter" => get("/v1/key").bearer_auth(key),
            _ => get("/v1/models").bearer_auth(key),
        };
        let Ok(response) = request.send().await else {
            return Err(NotTaken::Unknown);
        };
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(NotTaken::Refused),
            // Gemini's word for a key that it does not know.
            StatusCode::BAD_REQUEST if provider.kind == "gemini" => Err(NotTaken::Refused),
            _ => Err(NotTaken::Unknown),
        }
    }
}
