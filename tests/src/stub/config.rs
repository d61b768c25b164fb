//! The stub's configuration file: read strictly enough, and watched with OpenClaw's words.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use serde_json::Value;
use tokio::time::sleep;

use super::{Shared, Switches, say};

/// The first level of OpenClaw's schema; anything else is invalid, as with the real one.
const KNOWN: &[&str] = &[
    "$schema",
    "meta",
    "env",
    "diagnostics",
    "logging",
    "update",
    "telemetry",
    "browser",
    "ui",
    "secrets",
    "auth",
    "models",
    "agents",
    "tools",
    "bindings",
    "messages",
    "commands",
    "approvals",
    "session",
    "cron",
    "hooks",
    "channels",
    "discovery",
    "gateway",
    "memory",
    "skills",
    "plugins",
];
/// Keys whose change restarts the gateway.
const RESTARTING: &[&str] = &[
    "/gateway/port",
    "/gateway/bind",
    "/gateway/mode",
    "/gateway/auth/mode",
    "/discovery",
    "/gateway/controlUi/basePath",
];
/// How often the file is looked at; the real one takes 0.6 s to settle.
const LOOK: Duration = Duration::from_millis(20);

/// A valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config(Value);

impl Config {
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let members = value.as_object().ok_or("not an object")?;
        if let Some(unknown) = members.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(format!(": Unrecognized key: \"{unknown}\""));
        }
        if value.pointer("/gateway/mode") != Some(&Value::from("local")) {
            return Err("gateway.mode: must be local".to_owned());
        }
        Ok(Self(value))
    }

    /// Where to listen: a custom address comes with loopback on the same port.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let port = self.at("/gateway/port").as_u64().unwrap_or(18789);
        let port = u16::try_from(port).unwrap_or(18789);
        let host = self.at("/gateway/customBindHost").as_str();
        let host = host.and_then(|text| text.parse::<IpAddr>().ok());
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let addresses = match (self.at("/gateway/bind").as_str(), host) {
            (Some("custom"), Some(host)) => vec![host, loopback],
            (Some("lan"), _) => vec![Ipv4Addr::UNSPECIFIED.into()],
            _ => vec![loopback],
        };
        addresses
            .into_iter()
            .map(|address| (address, port).into())
            .collect()
    }

    pub(crate) fn is_trusted_proxy(&self, peer: IpAddr) -> bool {
        let listed = self.at("/gateway/trustedProxies").as_array();
        let peer = peer.to_string();
        listed.is_some_and(|proxies| proxies.iter().any(|proxy| *proxy == *peer))
    }

    pub(crate) fn admits_user(&self, user: &str) -> bool {
        let users = self.at("/gateway/auth/trustedProxy/allowUsers").as_array();
        users.is_some_and(|users| users.iter().any(|allowed| *allowed == *user))
    }

    pub(crate) fn admits_origin(&self, origin: &str) -> bool {
        let origins = self.at("/gateway/controlUi/allowedOrigins").as_array();
        origins.is_some_and(|origins| origins.iter().any(|allowed| *allowed == *origin))
    }

    pub(crate) fn relay(&self) -> Option<&str> {
        self.at("/models/providers/managed/baseUrl").as_str()
    }

    pub(crate) fn keeps_audit(&self) -> bool {
        self.at("/logging/audit/enabled") != false
    }

    pub(crate) fn assistant(&self) -> &str {
        self.at("/agents/entries/main/identity/name")
            .as_str()
            .unwrap_or("Assistant")
    }

    fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The changed keys, to two levels, as the real one lists them.
    fn changes(&self, other: &Self) -> Vec<String> {
        let empty = serde_json::Map::new();
        let old = self.0.as_object().unwrap_or(&empty);
        let new = other.0.as_object().unwrap_or(&empty);
        let mut changed: Vec<_> = old
            .keys()
            .chain(new.keys())
            .filter(|key| old.get(*key) != new.get(*key))
            .cloned()
            .collect();
        changed.sort();
        changed.dedup();
        changed
    }

    fn needs_restart(&self, other: &Self) -> bool {
        RESTARTING
            .iter()
            .any(|pointer| self.at(pointer) != other.at(pointer))
    }
}

/// Looks at the file again and again.
#[derive(Debug)]
pub(crate) struct Watcher {
    seen: Option<Vec<u8>>,
    written: Option<std::time::SystemTime>,
}

impl Watcher {
    pub(crate) fn new(switches: &Switches) -> Self {
        Self {
            seen: fs::read(&switches.config_path).ok(),
            written: modified(&switches.config_path),
        }
    }

    /// One look; answers whether the gateway must restart.
    pub(crate) async fn turn(&mut self, shared: &Shared) -> bool {
        sleep(LOOK).await;
        let path = &shared.switches.config_path;
        let written = modified(path);
        if shared.switches.deaf || written == self.written {
            return false;
        }
        self.written = written;
        let bytes = fs::read(path).unwrap_or_default();
        self.seen = Some(bytes.clone());
        match Config::parse(&bytes) {
            Err(issues) => {
                say(&format!(
                    "[reload] config reload skipped (invalid config): {issues}"
                ));
                false
            }
            Ok(config) => self.take_over(shared, config, &bytes).await,
        }
    }

    async fn take_over(&self, shared: &Shared, config: Config, bytes: &[u8]) -> bool {
        let mut current = shared.config.write().await;
        let paths = current.changes(&config).join(", ");
        if paths.is_empty() {
            return false;
        }
        say(&format!(
            "[reload] config change detected; evaluating reload ({paths})"
        ));
        if current.needs_restart(&config) {
            say(&format!(
                "[reload] config change requires gateway restart ({paths})"
            ));
            return true;
        }
        *current = config;
        let mut copy = shared.switches.config_path.clone().into_os_string();
        copy.push(".last-good");
        if fs::write(copy, bytes).is_ok() {
            say(&format!("[reload] config hot reload applied ({paths})"));
        }
        false
    }
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}
