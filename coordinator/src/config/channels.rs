//! On which paths an instance's channels take web hooks, as its configuration says: the edge lets these pass
//! though nobody is signed in. Each is signed by its sender, and its channel in the gateway looks at that.
//!
//! Only channels that listen on the gateway count. Telegram, Feishu, Microsoft Teams and Nextcloud Talk take web
//! hooks on ports of their own, to which no nginx leads; the first two ask by themselves unless told otherwise.

use std::collections::BTreeSet;

use serde_json::Value;
use url::Url;

/// Of one instance; what comes later in the alphabet is left out.
const PATHS_MAX: usize = 16;
const PATH_MAX_BYTES: usize = 128;

/// Channels with a port of their own.
const ELSEWHERE: [&str; 4] = ["feishu", "msteams", "nextcloud-talk", "telegram"];

/// Where OpenClaw 2026.9.6 listens for a channel whose configuration names no path.
const DEFAULTS: [(&str, &str); 5] = [
    ("googlechat", "/googlechat"),
    ("line", "/line/webhook"),
    ("slack", "/slack/events"),
    ("sms", "/webhooks/sms"),
    ("synology-chat", "/webhook/synology"),
];

/// The paths, each once.
pub fn hook_paths(config: &Value) -> Vec<String> {
    let channels = config.get("channels").and_then(Value::as_object);
    let mut paths = BTreeSet::new();
    for (name, channel) in channels.into_iter().flatten() {
        if ELSEWHERE.contains(&name.as_str()) || !channel.is_object() || is_off(channel) {
            continue;
        }
        let accounts = channel.get("accounts").and_then(Value::as_object);
        let accounts = accounts.into_iter().flat_map(|accounts| accounts.values());
        let accounts = accounts.filter(|account| !is_off(account));
        paths.extend(path(name, &[channel]));
        paths.extend(accounts.filter_map(|account| path(name, &[account, channel])));
    }
    paths.into_iter().take(PATHS_MAX).collect()
}

fn is_off(channel: &Value) -> bool {
    channel.get("enabled") == Some(&Value::Bool(false))
}

/// Of a channel, or of an account of its, whose own words go before the channel's.
fn path(channel: &str, said: &[&Value]) -> Option<String> {
    let text = |key: &str| said.iter().find_map(|it| it.get(key)?.as_str());
    let url = || Url::parse(text("webhookUrl")?).ok();
    let takes_hooks = match channel {
        "slack" => text("mode") == Some("http"),
        "zalo" => text("webhookUrl").is_some(),
        _ => true,
    };
    let of_url = || matches!(channel, "googlechat" | "zalo").then(url).flatten();
    let default = || DEFAULTS.iter().find(|(name, _)| *name == channel);
    let path = text("webhookPath")
        .map(str::to_owned)
        .or_else(|| Some(of_url()?.path().to_owned()))
        .or_else(|| Some(default()?.1.to_owned()))?;
    let path = as_openclaw(&path);
    (takes_hooks && is_plain(&path)).then_some(path)
}

/// With a slash before it and none behind it.
fn as_openclaw(path: &str) -> String {
    let path = path.trim();
    let path = path.strip_suffix('/').unwrap_or(path);
    match path.strip_prefix('/') {
        Some(_) => path.to_owned(),
        None => format!("/{path}"),
    }
}

/// No reader behind the edge can take it for another one. The root is the Control UI's, and below `/hooks` a
/// token is asked for; a segment that begins with a dot may be the edge's own.
fn is_plain(path: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_segment = |segment: &str| {
        !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(is_letter)
    };
    let mut segments = path.split('/').skip(1);
    path.len() <= PATH_MAX_BYTES
        && segments
            .clone()
            .next()
            .is_some_and(|first| first != "hooks")
        && segments.all(is_segment)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(channels: &Value) -> Vec<String> {
        hook_paths(&json!({ "channels": channels }))
    }

    #[test]
    fn a_channel_counts_that_is_on_and_takes_web_hooks_on_the_gateway() {
        assert!(hook_paths(&json!({})).is_empty());
        assert_eq!(of(&json!({"slack": {"mode": "http"}})), ["/slack/events"]);
        for other in [
            json!({"slack": {}}),
            json!({"slack": {"mode": "socket", "webhookPath": "/s"}}),
            json!({"slack": {"mode": "http", "enabled": false}}),
            json!({"telegram": {"webhookUrl": "https://a.example/t", "webhookPath": "/t"}}),
            json!({"zalo": {"webhookPath": "/z"}}),
            json!({"discord": {"token": "t"}}),
            json!({"line": null}),
        ] {
            assert!(of(&other).is_empty(), "{other}");
        }
        let zalo = json!({"zalo": {"webhookUrl": "https://a.example/zalo/in"}});
        assert_eq!(of(&zalo), ["/zalo/in"]);
        let many = json!({"line": {}, "googlechat": {}, "custom": {"webhookPath": "custom/in/"}});
        assert_eq!(of(&many), ["/custom/in", "/googlechat", "/line/webhook"]);
    }

    #[test]
    fn an_account_has_a_path_of_its_own_or_the_channels() {
        let slack = json!({"slack": {
            "webhookPath": "/slack/all",
            "accounts": {
                "a": {"mode": "http"},
                "b": {"mode": "http", "webhookPath": "/slack/b"},
                "c": {"mode": "http", "webhookPath": "/slack/c", "enabled": false},
                "d": {"webhookPath": "/slack/d"},
            },
        }});
        assert_eq!(of(&slack), ["/slack/all", "/slack/b"]);
    }

    #[test]
    fn only_plain_paths_pass_and_only_so_many() {
        for path in [
            "/",
            "",
            "/hooks",
            "/hooks/x",
            "/.tidepool/login",
            "/a/../b",
            "/a//b",
            "/a%2fb",
            "/a?b",
            "/ä",
            &format!("/{}", "a".repeat(200)),
        ] {
            let line = json!({"line": {"webhookPath": path}});
            assert!(of(&line).is_empty(), "{path}");
        }
        let accounts: serde_json::Map<_, _> = (0..40)
            .map(|number| {
                let path = format!("/line/{number}");
                (number.to_string(), json!({ "webhookPath": path }))
            })
            .collect();
        assert_eq!(
            of(&json!({"line": {"accounts": accounts}})).len(),
            PATHS_MAX
        );
    }
}
