//! Which headers pass, in both directions: those that are named here and no others.
//!
//! A server in a customer's hands must not speak to a provider in our name beyond its request, and one
//! tenant must not learn of others from what a provider says of the key that they share.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::directory::Customer;

/// To the provider. No credentials, no cookies, nothing about who asks.
const ASKED: [&str; 8] = [
    "accept",
    "anthropic-beta",
    "anthropic-version",
    "content-type",
    "idempotency-key",
    "openai-beta",
    "user-agent",
    "x-goog-api-client",
];

/// To the provider: the SDKs' notes on themselves, such as their retry count.
const ASKED_PREFIX: &str = "x-stainless-";

/// As long as providers take.
const IDEMPOTENCY_MAX_BYTES: usize = 255;

/// To the server. No cookies, no names of our accounts, no state of limits that others share.
const ANSWERED: [&str; 9] = [
    "cache-control",
    "content-encoding",
    "content-type",
    "openai-version",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-request-id",
    "x-should-retry",
];

/// What of a request's headers goes on.
pub(crate) fn asked(headers: &HeaderMap) -> HeaderMap {
    let mut kept = only(headers, |name| {
        ASKED.contains(&name) || name.starts_with(ASKED_PREFIX)
    });
    // Whatever comes back is read for its usage.
    kept.insert(
        header::ACCEPT_ENCODING,
        http::HeaderValue::from_static("identity"),
    );
    kept
}

/// What the client says in its own name is said in ours: its keys for repeated requests must not be another
/// customer's, who shares our key, and a body is what we took it for.
pub(crate) fn make_ours(headers: &mut HeaderMap, customer: Option<&Customer>) {
    let name = HeaderName::from_static("idempotency-key");
    if let Some(key) = headers.remove(&name)
        && let (Ok(key), Some(customer)) = (key.to_str(), customer)
        && let Ok(key) = HeaderValue::from_str(&format!("{}-{key}", customer.instance))
        && key.len() <= IDEMPOTENCY_MAX_BYTES
    {
        headers.insert(name, key);
    }
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
}

/// What of an answer's headers goes back.
pub(crate) fn answered(headers: &HeaderMap) -> HeaderMap {
    only(headers, |name| ANSWERED.contains(&name))
}

fn only(headers: &HeaderMap, keeps: impl Fn(&str) -> bool) -> HeaderMap {
    let kept = headers
        .iter()
        .filter(|(name, _)| keeps(name.as_str()))
        .map(|(name, value)| (HeaderName::clone(name), value.clone()));
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(names: &[&str]) -> HeaderMap {
        names
            .iter()
            .map(|name| (HeaderName::try_from(*name).unwrap(), "x".parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_server_passes_on_neither_credentials_nor_names() {
        let dropped = map(&[
            "authorization",
            "x-api-key",
            "x-goog-api-key",
            "api-key",
            "cookie",
            "host",
            "forwarded",
            "x-forwarded-for",
            "x-real-ip",
            "connection",
            "transfer-encoding",
            "accept-encoding",
            "openai-organization",
            "proxy-authorization",
        ]);
        let kept = asked(&dropped);
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!(kept.get("accept-encoding").unwrap(), "identity");
        let asked_for = map(&[
            "content-type",
            "anthropic-version",
            "x-stainless-retry-count",
        ]);
        assert_eq!(asked(&asked_for).len(), 4);
    }

    #[test]
    fn a_provider_tells_nothing_of_the_account_or_of_other_tenants() {
        let dropped = map(&[
            "set-cookie",
            "openai-organization",
            "openai-project",
            "anthropic-organization-id",
            "x-ratelimit-remaining-tokens",
            "anthropic-ratelimit-requests-limit",
            "server",
            "content-length",
        ]);
        assert!(answered(&dropped).is_empty());
        let told = map(&["content-type", "request-id", "retry-after", "x-request-id"]);
        assert_eq!(answered(&told).len(), 4);
    }
}
