//! From a claim to nginx's configuration, by the template that the image holds too.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use http::Uri;
use tidepool_certs::{door::EDGE, secret_file::Owner};
use tidepool_shared::document::Digest;

use super::names::Claim;
use crate::openclaw::{HOST as INTERNAL_HOST, ORIGIN as INTERNAL_ORIGIN, OWNER as INTERNAL_USER};

const MAIN: &str = include_str!("../../../snapshot-image/nginx/nginx.conf.template");
const INSTANCE: &str = include_str!("../../../snapshot-image/nginx/instance.conf.template");

/// What is fixed for the life of a server.
#[derive(Clone)]
pub struct Site {
    /// nginx's own directory; everything it writes is inside.
    pub prefix: PathBuf,
    /// The server's own address.
    pub address: IpAddr,
    pub http_port: u16,
    /// Where the gateway finds its models; a container reaches only its own network's address.
    pub relay: SocketAddr,
    pub gateway: SocketAddr,
    /// The LLM proxy.
    pub llm: Llm,
    /// Certificate and key that edges are shown, in one file; nginx starts without, and shows nobody anything.
    pub door: PathBuf,
    /// The root certificate of whoever is let in, in PEM.
    pub authority: String,
    /// The path under which the gateway reaches the relay; 64 hexadecimal digits.
    pub relay_secret: String,
    /// Whom nginx's worker runs as.
    pub worker: Worker,
}

/// Whom nginx's worker runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worker {
    /// The agent's own user, who is not root.
    Same,
    /// Root, because the agent is, outside an image: nobody else may enter the server's directory.
    Root,
    /// Debian's user for this, with its ids: in an image. What a hole in nginx opens is not Docker's socket.
    WwwData(Owner),
}

impl Worker {
    /// Whose a file is that the worker reads by itself.
    pub fn owner(self) -> Option<Owner> {
        match self {
            Self::Same | Self::Root => None,
            Self::WwwData(owner) => Some(owner),
        }
    }
}

/// Where the LLM proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Llm {
    scheme: &'static str,
    host: String,
    port: u16,
}

impl Llm {
    /// Reads a base URL without a path.
    pub fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let (scheme, default_port) = match uri.scheme_str()? {
            "http" => ("http", 80),
            "https" => ("https", 443),
            _ => return None,
        };
        let host = uri.host()?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b);
        if !host.bytes().all(plain) || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return None;
        }
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return None;
        }
        Some(Self {
            scheme,
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(default_port),
        })
    }

    fn tls(&self) -> String {
        if self.scheme == "http" {
            return String::new();
        }
        format!(
            "proxy_ssl_server_name on; proxy_ssl_name {}; proxy_ssl_verify on; proxy_ssl_verify_depth 4; \
             proxy_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;",
            self.host
        )
    }
}

/// A configuration and the name by which nginx itself says that it runs it.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    pub fingerprint: String,
}

impl Site {
    /// The configuration for this claim, or for nobody.
    pub fn render(&self, claim: Option<&Claim>) -> Rendered {
        let instance = claim.map(|claim| self.instance(claim)).unwrap_or_default();
        // Over the whole text, so that any difference, of the template too, has another name.
        let blank = self.main(&instance, "");
        let fingerprint: String = Digest::of(blank.as_bytes())
            .to_string()
            .chars()
            .take(32)
            .collect();
        Rendered {
            text: self.main(&instance, &fingerprint),
            fingerprint,
        }
    }

    /// Where nginx tells the fingerprint; a secret.
    pub(super) fn serving_path(&self) -> String {
        format!("/{}/.well-known/tidepool/serving", self.relay_secret)
    }

    /// Of the root certificate, for nginx.
    pub(super) fn authority_path(&self) -> PathBuf {
        self.prefix.join("authority.pem")
    }

    /// The base URL, without a path of the API, at which the gateway reaches its models.
    pub fn relay_url(&self) -> String {
        format!("http://{}/{}", self.relay, self.relay_secret)
    }

    fn http(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.http_port)
    }

    fn main(&self, instance: &str, fingerprint: &str) -> String {
        let user = match self.worker {
            Worker::Same => "",
            Worker::Root => "user root;",
            Worker::WwwData(_) => "user www-data;",
        };
        fill(
            MAIN,
            &[
                ("prefix", &self.prefix.display().to_string()),
                ("user", user),
                ("address", &self.address.to_string()),
                ("listen_http", &self.http().to_string()),
                ("listen_relay", &self.relay.to_string()),
                (
                    "llm_upstream",
                    &format!("{}:{}", self.llm.host, self.llm.port),
                ),
                ("llm_scheme", self.llm.scheme),
                ("llm_host", &format!("{}:{}", self.llm.host, self.llm.port)),
                ("llm_tls", &self.llm.tls()),
                ("relay_secret", &self.relay_secret),
                ("serving_path", &self.serving_path()),
                ("fingerprint", fingerprint),
                ("door", &self.door.display().to_string()),
                ("authority", &self.authority_path().display().to_string()),
                ("edge", EDGE),
                ("instance", instance),
            ],
        )
    }

    fn instance(&self, claim: &Claim) -> String {
        let mut origins = String::new();
        for origin in &claim.origins {
            // Writing to a string cannot fail.
            _ = writeln!(origins, "        \"{origin}\" {INTERNAL_ORIGIN};");
        }
        fill(
            INSTANCE,
            &[
                ("prefix", &self.prefix.display().to_string()),
                ("listen_http", &self.http().to_string()),
                ("gateway", &self.gateway.to_string()),
                ("hosts", &claim.hosts.join(" ")),
                ("origins", &origins),
                ("proof", claim.proof()),
                ("max_body_bytes", &claim.max_body_bytes.to_string()),
                ("evictions", &claim.evictions.to_string()),
                ("internal_host", INTERNAL_HOST),
                ("internal_origin", INTERNAL_ORIGIN),
                ("internal_user", INTERNAL_USER),
            ],
        )
    }
}

/// Puts values in place of `{{name}}`; values are not searched again.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        let value = values.iter().find(|(known, _)| *known == name);
        text.push_str(value.map_or("", |(_, value)| value));
        rest = after;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_url_is_scheme_host_and_port_only() {
        let llm = Llm::parse("http://127.0.0.1:4000").unwrap();
        assert_eq!((llm.scheme, llm.port), ("http", 4000));
        assert_eq!(Llm::parse("https://llm.example.com").unwrap().port, 443);
        for url in [
            "",
            "127.0.0.1:4000",
            "ftp://a",
            "http://a/v1",
            "http://u:p@a",
            "http://a;b",
            "http://a?x",
        ] {
            assert!(Llm::parse(url).is_none(), "{url}");
        }
    }

    fn site() -> Site {
        Site {
            prefix: "/p".into(),
            address: [127, 0, 0, 9].into(),
            http_port: 1,
            relay: ([127, 0, 0, 9], 2).into(),
            gateway: ([127, 0, 0, 9], 3).into(),
            llm: Llm::parse("http://127.0.0.1:4").unwrap(),
            door: "/d".into(),
            authority: String::new(),
            relay_secret: "5".into(),
            worker: Worker::Same,
        }
    }

    #[test]
    fn every_placeholder_of_both_templates_has_a_value() {
        let claim = Claim {
            hosts: vec!["h.x".into()],
            origins: vec!["https://h.x".into()],
            proof: "ab".into(),
            evictions: 0,
            max_body_bytes: 7,
        };
        let marked = fill(&format!("{MAIN}{INSTANCE}"), &[]);
        assert!(!marked.contains("{{") && !marked.contains("}}"));
        let text = site().render(Some(&claim)).text;
        for line in [
            "listen 127.0.0.9:1 ssl;",
            "server_name h.x;",
            "server 127.0.0.9:3;",
            "client_max_body_size 7;",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let empty_argument = text
            .lines()
            .find(|line| line.contains("  ;") || line.trim_end().ends_with(" ;"));
        assert_eq!(empty_argument, None);
    }

    #[test]
    fn another_claim_has_another_fingerprint() {
        let site = site();
        let claim = |proof: &str| Claim {
            hosts: vec!["h.x".into()],
            origins: Vec::new(),
            proof: proof.into(),
            evictions: 0,
            max_body_bytes: 7,
        };
        let (a, b) = (claim("aa"), claim("bb"));
        let fingerprints = [None, Some(&a), Some(&b)].map(|claim| site.render(claim).fingerprint);
        let distinct: std::collections::BTreeSet<_> = fingerprints.iter().collect();
        assert_eq!(distinct.len(), 3);
        assert!(site.render(Some(&a)) == site.render(Some(&a)));
    }
}
