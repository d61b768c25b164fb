//! OpenClaw's configuration: the neutral one of every pool server, the customer's on top of it, and
//! what the gateway itself wrote in between.
//!
//! The neutral configuration is final in every key that costs a restart, so that a claim touches
//! nothing and the customer's wishes are hot. Who is let in is constant (one owner, one origin);
//! nginx decides who may bear that name.

mod checker;
pub(crate) mod file;
mod merge;
mod schema;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tidepool_certs::secret_file::Owner;
use tidepool_shared::openclaw::{RefusedPatch, check_patch};

pub use self::{
    checker::{CheckArguments, Checker, NoAnswer, Unchecked, answer},
    merge::{apply_patch, three_way},
    schema::{Schema, UnusableSchema, Violation, Violations},
};

/// The one identity that a gateway knows.
pub const OWNER: &str = "owner@tidepool.internal";
/// The one browser origin that a gateway knows; nginx replaces the instance's own by it.
pub const ORIGIN: &str = "https://gateway.tidepool.internal";
/// The host name that belongs to [`ORIGIN`].
pub const HOST: &str = "gateway.tidepool.internal";
/// The header that carries [`OWNER`].
pub const USER_HEADER: &str = "x-forwarded-user";
/// The only model name that a gateway knows; what it means is decided at the proxy.
pub const MODEL: &str = "default";

/// What the owner may do. Granted to the identity, so that no browser needs to be paired.
const OWNER_SCOPES: [&str; 6] = [
    "operator.admin",
    "operator.read",
    "operator.write",
    "operator.approvals",
    "operator.questions",
    "operator.pairing",
];

/// OpenClaw's own log file beside what it prints; it starts a new one at this size.
const LOG_FILE_BYTES: u32 = 4 * 1024 * 1024;

/// Where a gateway lives and whom it trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where nginx and the agent reach the gateway. OpenClaw also takes the same port on 127.0.0.1, so
    /// that gateways of one machine need different ports, and at least 120 between them (browser control).
    pub gateway: SocketAddr,
    /// The address that nginx and the agent connect from, when it must be chosen (local servers).
    pub source: Option<IpAddr>,
    /// Addresses whose forwarding headers count: nginx's, as the gateway sees it.
    pub trusted_proxies: Vec<IpAddr>,
    /// Base URL of the model relay, such as `http://127.80.3.7:8081/v1`.
    pub relay: String,
    /// The gateway's home; nothing of ours lies in it, because the customer owns it.
    pub home: PathBuf,
    /// The agent's own records about this gateway; the customer must not be able to write here.
    pub records: PathBuf,
    /// What a gateway in a container sees instead; `None` for one that is a process of this machine.
    pub inside: Option<Inside>,
}

/// A container as its gateway sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its home, in which only the state directory is ours to see.
    pub home: PathBuf,
    /// Whom it runs as.
    pub owner: Owner,
    pub browsers: Browsers,
}

/// Whether there is a browser beside the gateway, which it finds by its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Browsers {
    Mounted,
    None,
}

/// OpenClaw's state directory within its home.
const STATE_DIR: &str = ".openclaw";
/// The configuration within the state directory.
const CONFIG: &str = "openclaw.json";

impl Place {
    /// OpenClaw's state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.home.join(STATE_DIR)
    }

    /// The configuration file. Its folder also holds OpenClaw's own `openclaw.json.last-good`.
    pub fn config_path(&self) -> PathBuf {
        self.state_dir().join(CONFIG)
    }

    /// The copy that the gateway makes of each configuration that it has accepted.
    pub(crate) fn accepted_path(&self) -> PathBuf {
        self.state_dir().join("openclaw.json.last-good")
    }

    /// Where the gateway that runs is recorded; another one leaves another record.
    pub fn process_record(&self) -> PathBuf {
        self.records.join("gateway.process.json")
    }

    /// The state directory as the gateway knows it.
    pub(crate) fn seen_state_dir(&self) -> PathBuf {
        let home = self
            .inside
            .as_ref()
            .map_or(&self.home, |inside| &inside.home);
        home.join(STATE_DIR)
    }

    /// The configuration file as the gateway knows it.
    pub(crate) fn seen_config_path(&self) -> PathBuf {
        self.seen_state_dir().join(CONFIG)
    }

    fn listen(&self) -> SocketAddr {
        self.inside
            .as_ref()
            .map_or(self.gateway, |inside| inside.listen)
    }

    /// What the gateway prints.
    pub fn log_path(&self) -> PathBuf {
        self.records.join("gateway.log")
    }
}

/// Whether the gateway's run is ours or the customer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The warm-up turn is ours: OpenClaw keeps no audit record of it.
    WarmingUp,
    /// As a customer gets it.
    Ready,
}

/// The configuration of a pool server.
pub fn neutral(place: &Place, stage: Stage) -> Value {
    let mut config = json!({
        "gateway": gateway(place),
        "models": {
            "mode": "replace",
            // Asks a public service for model prices; a pool server asks nobody.
            "catalogRefresh": { "enabled": false },
            "providers": { "managed": {
                // No key: the proxy knows the server by its address.
                "baseUrl": place.relay,
                "api": "openai-completions",
                "timeoutSeconds": 300,
                "models": [{
                    "id": MODEL, "name": "Default", "input": ["text", "image"],
                    "contextWindow": 200_000, "maxTokens": 8192,
                }],
            }},
        },
        "agents": { "defaults": {
            "model": { "primary": format!("managed/{MODEL}") },
            "heartbeat": { "every": "0m" },
        }},
        "plugins": { "entries": {
            "memory-core": { "config": { "dreaming": { "enabled": false } } },
        }},
        "discovery": { "mdns": { "mode": "off" } },
        "telemetry": { "enabled": false },
        "update": { "checkOnStart": false, "auto": { "enabled": false } },
        "logging": {
            // Otherwise a file in /tmp that all gateways of a machine share.
            "file": place.seen_state_dir().join("logs/gateway.jsonl"),
            "maxFileBytes": LOG_FILE_BYTES,
        },
    });
    let browsers = place.inside.as_ref().map(|inside| inside.browsers);
    if browsers == Some(Browsers::Mounted) {
        // The container is its sandbox: Chromium's own needs what the container is not allowed.
        let browser = json!({ "browser": { "headless": true, "noSandbox": true } });
        apply_patch(&mut config, &browser);
    }
    if stage == Stage::WarmingUp {
        apply_patch(
            &mut config,
            &json!({ "logging": { "audit": { "enabled": false } } }),
        );
    }
    config
}

fn gateway(place: &Place) -> Value {
    let mut gateway = json!({
        "mode": "local",
        "port": place.listen().port(),
        "trustedProxies": place.trusted_proxies,
        "auth": {
            "mode": "trusted-proxy",
            "identityScopes": { OWNER: OWNER_SCOPES },
            "trustedProxy": {
                "allowLoopback": place.trusted_proxies.iter().any(IpAddr::is_loopback),
                "userHeader": USER_HEADER,
                "requiredHeaders": ["x-forwarded-proto", "x-forwarded-host"],
                "allowUsers": [OWNER],
                "deviceAutoApprove": { "enabled": true, "scopes": OWNER_SCOPES },
            },
        },
        "controlUi": { "allowedOrigins": [ORIGIN] },
    });
    let listen = match place.listen().ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => json!({ "bind": "loopback" }),
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => json!({ "bind": "lan" }),
        address => json!({ "bind": "custom", "customBindHost": address }),
    };
    apply_patch(&mut gateway, &listen);
    gateway
}

/// The configuration that a customer's patch asks for.
pub fn wanted(place: &Place, patch: &Value) -> Result<Value, RefusedPatch> {
    check_patch(patch)?;
    let mut config = neutral(place, Stage::Ready);
    apply_patch(&mut config, patch);
    Ok(config)
}

/// Reads a configuration that OpenClaw may have written. It writes plain JSON, whatever it reads.
pub(crate) fn read(path: &Path) -> std::io::Result<Option<Value>> {
    Ok(file::read(path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            gateway: "127.80.3.7:18789".parse().unwrap(),
            source: None,
            trusted_proxies: vec!["127.80.3.7".parse().unwrap()],
            relay: "http://127.80.3.7:8081/v1".into(),
            home: "/srv/gateway/home".into(),
            records: "/srv/gateway/records".into(),
            inside: None,
        }
    }

    #[test]
    fn the_neutral_configuration_names_no_customer_and_carries_no_key() {
        let text = neutral(&place(), Stage::Ready).to_string();
        assert!(text.contains(OWNER) && text.contains(ORIGIN));
        assert!(!text.contains("apiKey") && !text.contains("token"));
    }

    #[test]
    fn the_listener_follows_the_address() {
        let bind = |address: &str| {
            let mut place = place();
            place.gateway = address.parse().unwrap();
            neutral(&place, Stage::Ready)["gateway"]["bind"].clone()
        };
        assert_eq!(bind("127.0.0.1:1"), "loopback");
        assert_eq!(bind("0.0.0.0:1"), "lan");
        assert_eq!(bind("127.80.3.7:1"), "custom");
    }

    #[test]
    fn a_gateway_in_a_container_is_told_of_its_own_paths_and_ports_only() {
        let mut place = place();
        place.inside = Some(Inside {
            listen: "0.0.0.0:18790".parse().unwrap(),
            home: "/home/node".into(),
            owner: Owner {
                user: 1000,
                group: 1000,
            },
            browsers: Browsers::Mounted,
        });
        let config = neutral(&place, Stage::Ready);
        assert_eq!(config["browser"]["noSandbox"], true);
        assert_eq!(config["gateway"]["bind"], "lan");
        assert_eq!(config["gateway"]["port"], 18790);
        assert!(!config.to_string().contains("/srv/gateway"));
    }

    #[test]
    fn a_patch_changes_what_is_the_customers_only() {
        let patch = json!({"agents": {"entries": {"main": {"identity": {"name": "Ada"}}}}});
        let config = wanted(&place(), &patch).unwrap();
        assert_eq!(
            config["agents"]["entries"]["main"]["identity"]["name"],
            "Ada"
        );
        assert_eq!(
            config["gateway"],
            neutral(&place(), Stage::Ready)["gateway"]
        );
        assert!(wanted(&place(), &json!({"gateway": {}})).is_err());
    }
}
