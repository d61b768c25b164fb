//! Providers of models over HTTP. A key goes in and never comes out.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use tidepool_shared::sealed_place::SealedPlace;
use url::{Host, Url};
use utoipa::ToSchema;

use super::{
    ApiState,
    body::{Parsed, request_bodies},
    problem::{Code, Problem, ProblemBody},
};
use crate::{
    doorbell::Ring,
    model::{KINDS, Provider},
    store::Transition,
};

const NAME_MAX: usize = 32;

/// A provider as it is to be.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutProvider {
    /// `openai`, `anthropic`, `gemini`, `openrouter`, `mistral`, `deepseek`, `xai`, `groq` or `compatible`.
    pub kind: String,
    /// Without `/v1`; the kind's own if absent.
    #[schema(max_length = 512)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The operator's key. If absent, the one that is there stays, as long as the address stays.
    #[schema(min_length = 1, max_length = 1024)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

request_bodies!(PutProvider);

/// A provider. Its key is not shown.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProviderView {
    pub name: String,
    pub kind: String,
    pub base_url: String,
    pub has_key: bool,
    pub updated_at: String,
}

/// All providers.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Providers {
    pub data: Vec<ProviderView>,
}

impl From<Provider> for ProviderView {
    fn from(provider: Provider) -> Self {
        Self {
            name: provider.name,
            kind: provider.kind,
            base_url: provider.base_url,
            has_key: provider.sealed_key.is_some(),
            updated_at: provider.updated_at.rfc3339(),
        }
    }
}

/// Lists providers.
#[utoipa::path(get, path = "/v1/providers", tag = "models",
    responses((status = 200, body = Providers), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(State(state): State<Arc<ApiState>>) -> Result<Json<Providers>, Problem> {
    let providers = state.store.providers().await?;
    let data = providers.into_iter().map(Into::into).collect();
    Ok(Json(Providers { data }))
}

/// Makes a provider, or changes it. Requests under way end as they began.
#[utoipa::path(put, path = "/v1/providers/{name}", tag = "models", params(("name" = String, Path)), request_body = PutProvider,
    responses((status = 200, body = ProviderView), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn put(
    State(state): State<Arc<ApiState>>,
    Path(name): Path<String>,
    Parsed(body): Parsed<PutProvider>,
) -> Result<Json<ProviderView>, Problem> {
    if !is_name(&name) {
        let detail = "a provider's name is 1 to 32 of a-z, 0-9 and -";
        return Err(Problem::new(Code::InvalidParameter, detail));
    }
    let base_url = base_url(&body)?;
    let sealed_key = match body.key {
        Some(key) => Some(seal(&state, key, SealedPlace::Provider(name.clone())).await?),
        None => None,
    };
    let now = state.now();
    let provider = Provider {
        name,
        kind: body.kind,
        base_url,
        sealed_key,
        created_at: now,
        updated_at: now,
    };
    state.store.put_provider(&provider).await?;
    state.doorbell.ring(Ring::Events);
    let all = state.store.providers().await?;
    let written = all.into_iter().find(|other| other.name == provider.name);
    Ok(Json(written.unwrap_or(provider).into()))
}

/// Deletes a provider. Names of models that lead there lead nowhere.
#[utoipa::path(delete, path = "/v1/providers/{name}", tag = "models", params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(state): State<Arc<ApiState>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    match state.store.delete_provider(&name).await? {
        Transition::Done => {
            state.doorbell.ring(Ring::Events);
            Ok(StatusCode::NO_CONTENT)
        }
        Transition::NotPossible => Err(Problem::new(Code::NotFound, "no such provider")),
    }
}

/// Of providers and of models' names.
pub(super) fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(fits)
}

/// Seals a key for the place where it will be kept.
pub(super) async fn seal(
    state: &ApiState,
    key: String,
    place: SealedPlace,
) -> Result<Vec<u8>, Problem> {
    // It becomes a header.
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let detail = "a key is printable ASCII without spaces";
        return Err(Problem::field("/key", "key", detail));
    }
    state.seal(key, place.to_string()).await
}

/// A key goes only where it cannot be read on the way, or does not leave this network.
fn base_url(body: &PutProvider) -> Result<String, Problem> {
    let refused = |detail: &str| Problem::field("/base_url", "base_url", detail);
    let kind = KINDS.iter().find(|(kind, _)| *kind == body.kind);
    let Some((_, default)) = kind else {
        let kinds: Vec<_> = KINDS.iter().map(|(kind, _)| *kind).collect();
        let detail = format!("one of {}", kinds.join(", "));
        return Err(Problem::field("/kind", "kind", detail));
    };
    let text = body.base_url.as_deref().or(*default);
    let text = text.ok_or_else(|| refused("a compatible provider needs an address"))?;
    let url = Url::parse(text).map_err(|_| refused("not a URL"))?;
    let is_bare = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !is_bare {
        return Err(refused("a URL without user, query and fragment"));
    }
    match url.scheme() {
        "https" => {}
        "http" if is_near(&url) => {}
        _ => return Err(refused("https, or http to a private address")),
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_private(),
        Some(Host::Ipv6(address)) => {
            IpAddr::from(address).is_loopback() || address.is_unique_local()
        }
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, base_url: Option<&str>) -> Option<String> {
        let body = PutProvider {
            kind: kind.into(),
            base_url: base_url.map(Into::into),
            key: None,
        };
        super::base_url(&body).ok()
    }

    #[test]
    fn a_key_goes_to_https_or_to_a_private_address() {
        assert_eq!(
            of("openai", None).as_deref(),
            Some("https://api.openai.com")
        );
        assert_eq!(
            of("compatible", Some("http://10.0.0.5:8000/")).as_deref(),
            Some("http://10.0.0.5:8000")
        );
        for refused in [
            "http://api.example.com",
            "http://8.8.8.8",
            "https://user:secret@api.example.com",
            "https://api.example.com?key=x",
            "file:///etc/passwd",
            "nonsense",
        ] {
            assert_eq!(of("compatible", Some(refused)), None, "{refused}");
        }
        assert_eq!(of("compatible", None), None);
        assert_eq!(of("unheard-of", Some("https://api.example.com")), None);
    }
}
