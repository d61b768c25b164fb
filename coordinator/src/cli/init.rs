//! `tidepool init`: configuration of what stands beside a coordinator.
//!
//! Traefik ends TLS for one wildcard name and hands every request to the built-in edge, which knows the
//! instances: nothing of Traefik's changes when one comes or goes, and any number of them fit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{CommandFailed, output::Output};
use crate::serve::config::Config;

/// What to write.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Traefik in front of the edge: TLS for all instances' names
    Traefik(Traefik),
}

/// Traefik's side of a configuration of `serve`.
#[derive(Debug, Args)]
pub struct Traefik {
    /// The configuration of `serve`
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where to write `traefik.yml` and `dynamic.yml`
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// An edge as Traefik reaches it; several times if there are several coordinators [default: the
    /// configuration's own]
    #[arg(long = "edge", value_name = "URL")]
    edges: Vec<String>,
    #[command(flatten)]
    source: Source,
    #[arg(long, default_value_t = 80)]
    http_port: u16,
    #[arg(long, default_value_t = 443)]
    https_port: u16,
    /// Where `GET /ping` and `GET /metrics` are answered, on this machine only
    #[arg(long, default_value_t = 8082)]
    status_port: u16,
}

/// Where the wildcard's certificate comes from: Let's Encrypt by DNS, or files.
#[derive(Debug, Args)]
struct Source {
    /// For Let's Encrypt
    #[arg(long, requires = "dns", required_unless_present = "certificate")]
    email: Option<String>,
    /// Traefik's name of the DNS provider, such as `hetzner`; Traefik reads its credentials from the
    /// environment
    #[arg(long, requires = "email", conflicts_with = "certificate")]
    dns: Option<String>,
    /// A certificate of your own, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

pub(super) fn run(command: &Command, output: &mut Output) -> Result<(), CommandFailed> {
    let Command::Traefik(options) = command;
    let failed = |error: anyhow::Error| CommandFailed::Init(error.into());
    let written = traefik(options).map_err(failed)?;
    output.show(&json!({ "written": written }), |_| {
        let mut lines: Vec<_> = written
            .iter()
            .map(|path| format!("wrote {}", path.display()))
            .collect();
        lines.push(format!(
            "start it: traefik --configFile={}",
            written[0].display()
        ));
        lines
    })
}

fn traefik(options: &Traefik) -> anyhow::Result<[PathBuf; 2]> {
    let config = Config::read(&options.config)?;
    let (edge, domain) = (&config.edge, config.edge.domain.as_str());
    ensure!(
        edge.is_https(),
        "`edge.scheme` is `{}`: browsers will come by https",
        edge.scheme
    );
    ensure!(
        edge.public_port() == options.https_port,
        "`edge.port` and --https-port differ"
    );
    ensure!(
        !edge.trusted_hops.is_empty(),
        "`edge.trusted_hops` is empty: the edge would take Traefik for every visitor"
    );
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    ensure!(
        !domain.is_empty() && domain.bytes().all(is_name),
        "`edge.domain` is no name: `{domain}`"
    );
    let own = [format!("http://{}", edge.listen)];
    let edges = if options.edges.is_empty() {
        own.as_slice()
    } else {
        options.edges.as_slice()
    };
    fs::create_dir_all(&options.out)
        .with_context(|| format!("make `{}`", options.out.display()))?;
    let out = options.out.canonicalize()?;
    let dynamic = out.join("dynamic.yml");
    let statics = out.join("traefik.yml");
    write(&dynamic, &dynamic_yml(options, domain, edges)?)?;
    write(&statics, &static_yml(options, domain, &out, &dynamic))?;
    Ok([statics, dynamic])
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write `{}`", path.display()))
}

/// In quotes that YAML and JSON have in common.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn static_yml(options: &Traefik, domain: &str, out: &Path, dynamic: &Path) -> String {
    let Traefik {
        http_port,
        https_port,
        status_port,
        ..
    } = options;
    let wildcard = quoted(&format!("*.{domain}"));
    let (tls, resolver) = match (&options.source.email, &options.source.dns) {
        (Some(email), Some(dns)) => (
            format!("tls: {{ certResolver: wildcard, domains: [ {{ main: {wildcard} }} ] }}"),
            format!(
                "certificatesResolvers:
  wildcard:
    acme:
      email: {}
      storage: {}
      keyType: EC256
      dnsChallenge: {{ provider: {} }}
",
                quoted(email),
                quoted(&out.join("acme.json").to_string_lossy()),
                quoted(dns)
            ),
        ),
        _ => ("tls: {}".to_owned(), String::new()),
    };
    format!(
        "# Made by `tidepool init traefik`. Nothing in it changes when instances come and go.
global: {{ checkNewVersion: false, sendAnonymousUsage: false }}
log: {{ level: INFO, format: json }}
entryPoints:
  web:
    address: \":{http_port}\"
    http: {{ redirections: {{ entryPoint: {{ to: websecure, scheme: https }} }} }}
  websecure:
    address: \":{https_port}\"
    asDefault: true
    http:
      {tls}
    # An upload may take long; 60 s is the default.
    transport: {{ respondingTimeouts: {{ readTimeout: 10m }} }}
  # Of this machine only: ping and metrics. There is no dashboard.
  traefik: {{ address: \"127.0.0.1:{status_port}\" }}
ping: {{}}
metrics: {{ prometheus: {{}} }}
providers:
  file: {{ filename: {dynamic} }}
{resolver}",
        dynamic = quoted(&dynamic.to_string_lossy()),
    )
}

fn dynamic_yml(options: &Traefik, domain: &str, edges: &[String]) -> anyhow::Result<String> {
    let rule = format!(
        "HostRegexp(`^[a-z0-9-]+\\.{}$`)",
        domain.to_ascii_lowercase().replace('.', "\\.")
    );
    let servers: Vec<_> = edges
        .iter()
        .map(|url| format!("          - {{ url: {} }}\n", quoted(url)))
        .collect();
    let absolute = |path: &Path| -> anyhow::Result<String> {
        let path = path
            .canonicalize()
            .with_context(|| format!("find `{}`", path.display()))?;
        Ok(quoted(&path.to_string_lossy()))
    };
    let certificate = match (&options.source.certificate, &options.source.key) {
        (Some(certificate), Some(key)) => format!(
            "tls:
  stores:
    default:
      defaultCertificate: {{ certFile: {}, keyFile: {} }}
",
            absolute(certificate)?,
            absolute(key)?
        ),
        _ => String::new(),
    };
    Ok(format!(
        "# Made by `tidepool init traefik`.
http:
  routers:
    instances:
      rule: {rule}
      service: edges
      middlewares: [ crowd ]
  middlewares:
    # Of one visitor at the same time: the edge sees one address, Traefik's.
    crowd: {{ inFlightReq: {{ amount: 512 }} }}
  services:
    edges:
      loadBalancer:
        serversTransport: edges
        servers:
{servers}  serversTransports:
    # Go's default of two kept connections would open one for nearly every request.
    edges: {{ maxIdleConnsPerHost: 64 }}
{certificate}",
        rule = quoted(&rule),
        servers = servers.concat(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_is_for_every_instance_of_the_domain_and_for_nothing_else() {
        let options = Traefik {
            config: PathBuf::new(),
            out: PathBuf::new(),
            edges: Vec::new(),
            source: Source {
                email: Some("ops@example.com".into()),
                dns: Some("hetzner".into()),
                certificate: None,
                key: None,
            },
            http_port: 80,
            https_port: 443,
            status_port: 8082,
        };
        let edges = [
            "http://127.0.0.1:8080".to_owned(),
            "http://10.0.0.2:8080".to_owned(),
        ];
        let dynamic = dynamic_yml(&options, "apps.example.com", &edges).unwrap();
        let out = Path::new("/etc/traefik");
        let statics = static_yml(&options, "apps.example.com", out, &out.join("dynamic.yml"));
        insta::assert_snapshot!("traefik", format!("{statics}---\n{dynamic}"));
    }
}
