//! What a change of a configuration key costs, per version of OpenClaw.
//!
//! Every entry that a customer can reach is tried on the real thing (`tests/gateway_contract/rows.rs`);
//! those of `/gateway` are what OpenClaw's own reload plan says. What is not in the list may be hot all
//! the same: the gateway's word decides how it is done, the list only what is expected of it. A
//! version that is not in the list is refused, unless its release, which is signed, says what restarts it: the wrong
//! signal kills a 2026.9.5, and opens a debugger on a 2026.9.6.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;
use tidepool_shared::manifest::Release;
pub use tidepool_shared::manifest::RestartSignal;

/// Its number on this machine.
pub(crate) fn signal_number(signal: RestartSignal) -> Signal {
    match signal {
        RestartSignal::Usr1 => Signal::USR1,
        RestartSignal::Usr2 => Signal::USR2,
    }
}

/// What it takes to make a change true, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Written, and taken over while serving.
    Hot,
    /// The gateway restarts in its process, by itself or by signal; its listener closes meanwhile.
    Restart,
    /// A new process (or container): another address is another place.
    StartAgain,
}

/// The versions that were tried, with their signal. A rebuild (`-rYYYYMMDD`) is the same version.
const KNOWN: &[(&str, RestartSignal)] = &[
    ("2026.9.5", RestartSignal::Usr1),
    ("2026.9.6", RestartSignal::Usr2),
];

/// Keys with what they cost; the longest that fits counts, and one that is not here restarts.
/// The same for all of [`KNOWN`] so far.
const COSTS: &[(&str, Way)] = &[
    ("/acp", Way::Hot),
    ("/agents", Way::Hot),
    ("/approvals", Way::Hot),
    ("/auth", Way::Hot),
    ("/bindings", Way::Hot),
    ("/channels", Way::Hot),
    ("/commands", Way::Hot),
    ("/cron", Way::Hot),
    ("/diagnostics/flags", Way::Hot),
    ("/gateway/auth/identityScopes", Way::Hot),
    ("/gateway/auth/rateLimit", Way::Hot),
    ("/gateway/auth/trustedProxy", Way::Hot),
    ("/gateway/bind", Way::StartAgain),
    ("/gateway/controlUi/allowedOrigins", Way::Hot),
    ("/gateway/customBindHost", Way::StartAgain),
    ("/gateway/http/endpoints", Way::Hot),
    ("/gateway/port", Way::StartAgain),
    ("/gateway/publicOrigin", Way::Hot),
    ("/gateway/reload", Way::Hot),
    ("/gateway/roles", Way::Hot),
    ("/gateway/terminal", Way::Hot),
    ("/gateway/trustedProxies", Way::Hot),
    ("/hooks", Way::Hot),
    ("/logging", Way::Hot),
    ("/mcp", Way::Hot),
    ("/mcp/apps", Way::Restart),
    ("/memory/citations", Way::Hot),
    ("/messages", Way::Hot),
    ("/meta", Way::Hot),
    ("/models", Way::Hot),
    ("/plugins", Way::Hot),
    ("/session", Way::Hot),
    ("/skills", Way::Hot),
    ("/talk", Way::Hot),
    ("/tools", Way::Hot),
    ("/ui", Way::Hot),
];

/// What is known of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    restart_signal: RestartSignal,
}

/// This version was never tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("OpenClaw `{0}` is not a version this agent knows how to restart")]
pub struct UnknownVersion(pub String);

impl Table {
    /// The table of the manifest's version.
    pub fn of(version: &str) -> Result<Self, UnknownVersion> {
        let release = match version.split_once("-r") {
            Some((release, date)) if date.bytes().all(|byte| byte.is_ascii_digit()) => release,
            Some(_) | None => version,
        };
        KNOWN
            .iter()
            .find(|(known, _)| *known == release)
            .map(|(_, restart_signal)| Self {
                restart_signal: *restart_signal,
            })
            .ok_or_else(|| UnknownVersion(version.chars().take(64).collect()))
    }

    /// The table of a release, which may be of a version that is newer than this agent.
    pub fn of_release(release: &Release) -> Result<Self, UnknownVersion> {
        Self::of(&release.openclaw_version).or_else(|unknown| {
            release
                .restart_signal
                .map(|restart_signal| Self { restart_signal })
                .ok_or(unknown)
        })
    }

    /// The signal that restarts this version.
    pub fn restart_signal(self) -> RestartSignal {
        self.restart_signal
    }

    /// The way that makes the change from `before` to `after` true: the dearest of its keys.
    pub fn way(self, before: &Value, after: &Value) -> Way {
        let mut changed = BTreeSet::new();
        differences(before, after, &mut String::new(), &mut changed);
        changed
            .iter()
            .map(|pointer| cost(pointer))
            .max()
            .unwrap_or(Way::Hot)
    }
}

fn cost(pointer: &str) -> Way {
    COSTS
        .iter()
        .filter(|(key, _)| {
            pointer
                .strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
        .max_by_key(|(key, _)| key.len())
        .map_or(Way::Restart, |(_, way)| *way)
}

/// The pointers of all values that differ, down to what is no object on either side.
fn differences(before: &Value, after: &Value, at: &mut String, found: &mut BTreeSet<String>) {
    if before == after {
        return;
    }
    let empty = serde_json::Map::new();
    let (old, new) = match (before, after) {
        (Value::Object(old), Value::Object(new)) => (old, new),
        // An object that comes or goes is as dear as its keys.
        (Value::Object(old), Value::Null) if !old.is_empty() => (old, &empty),
        (Value::Null, Value::Object(new)) if !new.is_empty() => (&empty, new),
        _ => {
            found.insert(at.clone());
            return;
        }
    };
    for key in old.keys().chain(new.keys()) {
        let length = at.len();
        at.push('/');
        at.push_str(key);
        let (before, after) = (old.get(key), new.get(key));
        differences(
            before.unwrap_or(&Value::Null),
            after.unwrap_or(&Value::Null),
            at,
            found,
        );
        at.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_signal_follows_the_version_and_an_unknown_one_is_refused() {
        let signal = |version| Table::of(version).map(Table::restart_signal);
        assert_eq!(signal("2026.9.5"), Ok(RestartSignal::Usr1));
        assert_eq!(signal("2026.9.6"), Ok(RestartSignal::Usr2));
        assert_eq!(signal("2026.9.6-r20261101"), Ok(RestartSignal::Usr2));
        for unknown in ["2026.9.7", "2026.10.1", "2026.9.60", "", "2026.9.6-rc1"] {
            assert!(signal(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn a_release_says_what_restarts_it_if_the_agent_does_not_know() {
        let release = |version: &str, restart_signal| Release {
            openclaw_version: version.to_owned(),
            gateway: Vec::new(),
            config_schema: "schema.json".into(),
            container: None,
            archive: None,
            restart_signal,
        };
        let signal = |release| Table::of_release(&release).map(Table::restart_signal);
        let said = Some(RestartSignal::Usr2);
        assert_eq!(signal(release("2027.1.1", said)), Ok(RestartSignal::Usr2));
        assert!(signal(release("2027.1.1", None)).is_err());
        assert_eq!(signal(release("2026.9.5", said)), Ok(RestartSignal::Usr1));
    }

    #[test]
    fn the_dearest_key_decides() {
        let table = Table::of("2026.9.6").unwrap();
        let way = |before: Value, after: Value| table.way(&before, &after);
        assert_eq!(way(json!({}), json!({})), Way::Hot);
        assert_eq!(
            way(
                json!({}),
                json!({"channels": {"telegram": {"enabled": true}}})
            ),
            Way::Hot
        );
        assert_eq!(
            way(json!({"agents": 1}), json!({"discovery": {}})),
            Way::Restart
        );
        assert_eq!(
            way(
                json!({"gateway": {"port": 1}}),
                json!({"gateway": {"port": 2}, "agents": {}})
            ),
            Way::StartAgain
        );
        assert_eq!(
            way(
                json!({"gateway": {"controlUi": {"basePath": "/a"}}}),
                json!({"gateway": {"controlUi": {}}})
            ),
            Way::Restart
        );
    }

    #[test]
    fn a_key_that_only_begins_alike_is_another_key() {
        assert_eq!(cost("/agentsX"), Way::Restart);
        assert_eq!(cost("/gateway/auth/mode"), Way::Restart);
    }
}
