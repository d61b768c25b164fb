//! What of a configuration may be shown again: everything but its secrets.
//!
//! A secret becomes `{"set": true, "last4": …}`. That is no string, so laying a shown configuration
//! back over the real one is refused by the schema instead of destroying the secret.

use serde_json::{Value, json};

/// A key that ends like this names a secret.
const SECRET_ENDINGS: &[&str] = &[
    "token",
    "secret",
    "password",
    "passphrase",
    "apikey",
    "encryptkey",
    "privatekey",
    "credential",
    "authorization",
];

/// Secrets shorter than this show nothing of themselves.
const MIN_LEN_FOR_LAST4: usize = 16;

/// What the keys on the way down say about the strings below.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Below `headers` or `env`, where any name may hold a secret.
    all_secret: bool,
    /// Below `tls`, where `key` is a private one.
    tls: bool,
}

impl Place {
    fn below(self, key: &str) -> Self {
        Self {
            all_secret: self.all_secret || key.ends_with("headers") || key == "env",
            tls: self.tls || key == "tls",
        }
    }

    fn is_secret(self, key: &str) -> bool {
        self.all_secret
            || (self.tls && key == "key")
            || SECRET_ENDINGS.iter().any(|ending| key.ends_with(ending))
    }
}

/// The configuration with its secrets replaced.
pub fn redacted(config: &Value) -> Value {
    shown(config, Place::default())
}

fn shown(value: &Value, place: Place) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), shown_field(key, value, place)))
            .collect(),
        Value::Array(items) => items.iter().map(|item| shown(item, place)).collect(),
        Value::String(secret) if place.all_secret => hidden(secret),
        Value::String(text) => Value::String(without_user_info(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn shown_field(key: &str, value: &Value, place: Place) -> Value {
    let plain: String = key
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    match value {
        Value::String(secret) if place.is_secret(&plain) => hidden(secret),
        _ => shown(value, place.below(&plain)),
    }
}

fn hidden(secret: &str) -> Value {
    let length = secret.chars().count();
    let last4: Option<String> = (length >= MIN_LEN_FOR_LAST4)
        .then(|| secret.chars().skip(length.saturating_sub(4)).collect());
    json!({"set": true, "last4": last4})
}

/// The text with `user:password@` cut from every URL in it.
fn without_user_info(text: &str) -> String {
    let mut pieces = text.split("://");
    let mut shown = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let ends = |letter: char| letter.is_whitespace() || matches!(letter, '/' | '?' | '#');
        let (authority, rest) = piece.split_at(piece.find(ends).unwrap_or(piece.len()));
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        shown.extend(["://", host, rest]);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced_wherever_they_are() {
        let config = json!({
            "channels": {"telegram": {"botToken": "123456789:abcdefgh", "name": "x"}},
            "list": [{"api_key": "short"}],
            "maxTokens": 12,
        });
        assert_eq!(
            redacted(&config),
            json!({
                "channels": {"telegram": {"botToken": {"set": true, "last4": "efgh"}, "name": "x"}},
                "list": [{"api_key": {"set": true, "last4": null}}],
                "maxTokens": 12,
            })
        );
    }

    #[test]
    fn every_string_below_headers_and_env_is_a_secret_whatever_its_name() {
        let config = json!({
            "models": {"providers": {"mine": {"headers": {"X-Team": "blue", "Cookie": ["a"]}}}},
            "mcp": {"servers": {"x": {"env": {"vars": {"DSN": "0123456789abcdef"}, "on": true}}}},
            "environment": "test",
        });
        let short = json!({"set": true, "last4": null});
        assert_eq!(
            redacted(&config),
            json!({
                "models": {"providers": {"mine": {"headers": {"X-Team": short, "Cookie": [short]}}}},
                "mcp": {"servers": {"x": {"env": {
                    "vars": {"DSN": {"set": true, "last4": "cdef"}},
                    "on": true,
                }}}},
                "environment": "test",
            })
        );
    }

    #[test]
    fn keys_by_other_names_are_secrets_too() {
        let config = json!({
            "passphrase": "a", "encryptKey": "a", "Authorization": "a",
            "tls": {"key": "a", "cert": "b"},
            "key": "agent:main:main",
        });
        let short = json!({"set": true, "last4": null});
        assert_eq!(
            redacted(&config),
            json!({
                "passphrase": short, "encryptKey": short, "Authorization": short,
                "tls": {"key": short, "cert": "b"},
                "key": "agent:main:main",
            })
        );
    }

    #[test]
    fn a_url_loses_who_signs_in_and_nothing_else() {
        for (real, shown) in [
            ("https://ann:pw@host:1/a@b?c", "https://host:1/a@b?c"),
            ("redis://:p@ss@host", "redis://host"),
            (
                "see https://a@b and wss://c:d@e#f",
                "see https://b and wss://e#f",
            ),
            ("https://host/@x", "https://host/@x"),
            ("ann@example.org", "ann@example.org"),
        ] {
            assert_eq!(redacted(&json!([real])), json!([shown]));
        }
    }
}
