//! What the Hetzner client is told by the operator, and the token that it reads from a file.

use std::{fmt, io, net::IpAddr, path::PathBuf};

use http::HeaderValue;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use tidepool_shared::admission::{Admission, Cidr};

use super::labels::{self, BadLabel};

/// The part of the configuration that is about Hetzner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HetznerSettings {
    #[serde(default = "endpoint")]
    pub endpoint: String,
    /// Holds the API token of one Project, read and write.
    pub token_file: PathBuf,
    /// Which deployment: two of them may share a Project and never touch each other's servers.
    pub env: String,
    /// From where servers can be reached: the main servers' addresses. A server learns them when it is made, so those of
    /// main servers to come are better named before.
    pub admitted: Vec<Cidr>,
    /// The one port of a server that can be reached.
    pub edge_port: u16,
    /// Which snapshots servers are made from; the newest that fits is taken.
    #[serde(default = "image_selector")]
    pub image_selector: String,
    /// The name of an SSH key in the Project. Without one Hetzner makes up a root password, which is
    /// never read from its answer.
    #[serde(default)]
    pub ssh_key: Option<String>,
    /// A server that does not run by then never will.
    #[serde(default = "settle_deadline_s")]
    pub settle_deadline_s: u32,
}

fn endpoint() -> String {
    "https://api.hetzner.cloud/v1".to_owned()
}

fn image_selector() -> String {
    "role=tidepool-image,promoted=true".to_owned()
}

/// Creations from a snapshot take one to two minutes, and sometimes a quarter of an hour.
fn settle_deadline_s() -> u32 {
    20 * 60
}

/// A firewall rule takes no more sources.
const SOURCES_MAX: usize = 100;

/// Why the settings are not usable.
#[derive(Debug, thiserror::Error)]
pub enum BadSettings {
    #[error("endpoint `{0}` is not a URL")]
    Endpoint(String),
    #[error("endpoint `{0}` would send the token in clear: only https, except on this machine")]
    InClear(String),
    #[error("env `{0}` cannot be a label")]
    Env(String, #[source] BadLabel),
    #[error("{0} admitted networks: at least 1, at most {SOURCES_MAX}")]
    Admitted(usize),
    #[error("read token file `{path}`")]
    TokenFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("token file `{0}` does not hold one line of visible characters")]
    Token(PathBuf),
    #[error("set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

impl HetznerSettings {
    /// The endpoint, if it and everything else makes sense.
    pub(super) fn checked(&self) -> Result<Url, BadSettings> {
        labels::check_value(&self.env)
            .and_then(|()| if_not_empty(&self.env))
            .map_err(|source| BadSettings::Env(self.env.clone(), source))?;
        if self.admitted.is_empty() || self.admitted.len() > SOURCES_MAX {
            return Err(BadSettings::Admitted(self.admitted.len()));
        }
        let url = Url::parse(&self.endpoint)
            .ok()
            .filter(Url::has_host)
            .ok_or_else(|| BadSettings::Endpoint(self.endpoint.clone()))?;
        if url.scheme() == "https" || (url.scheme() == "http" && is_this_machine(&url)) {
            Ok(url)
        } else {
            Err(BadSettings::InClear(self.endpoint.clone()))
        }
    }

    /// What firewall and servers are told alike.
    pub(super) fn admission(&self) -> Admission {
        Admission {
            port: self.edge_port,
            sources: self.admitted.iter().copied().collect(),
        }
    }

    /// Reads the token.
    pub fn token(&self) -> Result<Token, BadSettings> {
        let text =
            std::fs::read_to_string(&self.token_file).map_err(|source| BadSettings::TokenFile {
                path: self.token_file.clone(),
                source,
            })?;
        Token::new(text.trim()).ok_or_else(|| BadSettings::Token(self.token_file.clone()))
    }
}

fn if_not_empty(value: &str) -> Result<(), BadLabel> {
    if value.is_empty() {
        Err(BadLabel::Value(value.to_owned()))
    } else {
        Ok(())
    }
}

fn is_this_machine(url: &Url) -> bool {
    url.host_str()
        .map(|host| host.trim_matches(['[', ']']))
        .is_some_and(|host| {
            host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        })
}

/// The right to everything in a Project. Its `Debug` shows nothing, and so does that of the header.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// `None` if it cannot be sent in a header.
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {text}")).ok()?;
        header.set_sensitive(true);
        Some(Self(header))
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> HetznerSettings {
        serde_json::from_value(json!({
            "token_file": "/nowhere",
            "env": "prod",
            "admitted": ["192.0.2.7/32", "2001:db8::7/128"],
            "edge_port": 443,
        }))
        .unwrap()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let settings = settings();
        assert_eq!(settings.endpoint, "https://api.hetzner.cloud/v1");
        assert_eq!(settings.settle_deadline_s, 1200);
        settings.checked().unwrap();
    }

    #[test]
    fn a_misspelt_setting_is_refused() {
        let mut value = serde_json::to_value(settings()).unwrap();
        value["ssh_keys"] = json!(["a"]);
        assert!(serde_json::from_value::<HetznerSettings>(value).is_err());
    }

    #[test]
    fn the_token_is_sent_in_clear_to_this_machine_only() {
        for (endpoint, good) in [
            ("http://127.0.0.1:9000/v1", true),
            ("http://[::1]:9000/v1", true),
            ("http://localhost/v1", true),
            ("http://api.hetzner.cloud/v1", false),
            ("http://127.0.0.1.example.org/v1", false),
            ("ftp://127.0.0.1/", false),
            ("nonsense", false),
        ] {
            let settings = HetznerSettings {
                endpoint: endpoint.to_owned(),
                ..settings()
            };
            assert_eq!(settings.checked().is_ok(), good, "{endpoint}");
        }
    }

    #[test]
    fn servers_that_nobody_or_an_unnamed_deployment_could_reach_are_refused() {
        let nobody = HetznerSettings {
            admitted: Vec::new(),
            ..settings()
        };
        assert!(matches!(nobody.checked(), Err(BadSettings::Admitted(0))));
        for env in ["", "two words", "-a"] {
            let unnamed = HetznerSettings {
                env: env.to_owned(),
                ..settings()
            };
            assert!(matches!(unnamed.checked(), Err(BadSettings::Env(..))));
        }
    }

    #[test]
    fn the_token_is_read_without_its_line_end_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let settings = HetznerSettings {
            token_file: dir.path().join("token"),
            ..settings()
        };
        std::fs::write(&settings.token_file, "geheim\n").unwrap();
        let token = settings.token().unwrap();
        assert_eq!(token.header().as_bytes(), b"Bearer geheim");
        assert!(!format!("{token:?} {:?}", token.header()).contains("geheim"));
        for bad in ["", "\n", "two words", "two\nlines"] {
            std::fs::write(&settings.token_file, bad).unwrap();
            assert!(
                matches!(settings.token(), Err(BadSettings::Token(_))),
                "{bad}"
            );
        }
    }
}
