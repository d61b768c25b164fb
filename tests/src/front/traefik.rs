//! Traefik with a certificate that its visitors know.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use reqwest::{
    Client, ClientBuilder, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{deployment::free_port, evidence, programs};

const PATIENCE: Duration = Duration::from_mins(2);

/// The real one, if this run has it.
pub fn program() -> Option<PathBuf> {
    let program = std::env::var_os("TIDEPOOL_TRAEFIK").map(PathBuf::from);
    if program.is_none() {
        eprintln!("SKIPPED: TIDEPOOL_TRAEFIK is not set; run `./tidepool test`");
    }
    program
}

/// Where it listens.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub https: u16,
    pub http: u16,
    /// Of its API, metrics and ping.
    pub status: u16,
    /// Where it asks itself, if there are several edges.
    pub sign_in: u16,
}

impl Ports {
    /// Free ones.
    pub fn free() -> anyhow::Result<Self> {
        Ok(Self {
            https: free_port()?,
            http: free_port()?,
            status: free_port()?,
            sign_in: free_port()?,
        })
    }
}

/// A Traefik, set up, running or not.
#[derive(Debug)]
pub struct Traefik {
    program: PathBuf,
    pub ports: Ports,
    root: reqwest::Certificate,
    folder: TempDir,
    status: Client,
    process: Option<Child>,
}

impl Traefik {
    /// Has its configuration written, for a configuration of `serve` with this domain, and for the edges on
    /// these ports or, if there are none, its own.
    pub async fn set_up(
        program: &Path,
        configuration: &Path,
        domain: &str,
        ports: Ports,
        edges: &[u16],
    ) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("tidepool-traefik-")?;
        let [certificate, key] =
            ["wildcard.pem", "wildcard.key"].map(|name| folder.path().join(name));
        let (authority, made, made_key) = wildcard(domain)?;
        std::fs::write(folder.path().join("authority.pem"), &authority)?;
        std::fs::write(&certificate, made)?;
        std::fs::write(&key, made_key)?;
        let port = |port: u16| port.to_string();
        let written = Command::new(programs::program("tidepool")?)
            .args(["init", "traefik", "--config"])
            .arg(configuration)
            .arg("--out")
            .arg(folder.path().join("traefik"))
            .arg("--certificate")
            .arg(&certificate)
            .arg("--key")
            .arg(&key)
            .args(["--https-port", &port(ports.https)])
            .args(["--http-port", &port(ports.http)])
            .args(["--status-port", &port(ports.status)])
            .args(["--sign-in-port", &port(ports.sign_in)])
            .args(
                edges
                    .iter()
                    .map(|port| format!("--edge=http://127.0.0.1:{port}")),
            )
            .output()
            .await?;
        let said = String::from_utf8_lossy(&written.stderr);
        ensure!(written.status.success(), "{said}");
        Ok(Self {
            program: program.to_owned(),
            ports,
            root: reqwest::Certificate::from_pem(authority.as_bytes())?,
            folder,
            status: Client::builder().no_proxy().timeout(PATIENCE).build()?,
            process: None,
        })
    }

    /// One of the files that were written.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("traefik").join(name)
    }

    /// The certificate of the authority that made the one of all names.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// Starts it and waits until it answers.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("traefik.log"))?;
        let mut configuration = std::ffi::OsString::from("--configFile=");
        configuration.push(self.file("traefik.yml"));
        let process = Command::new(&self.program)
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start Traefik")?;
        self.process = Some(process);
        let deadline = Instant::now() + PATIENCE;
        while !self.pings().await {
            ensure!(
                Instant::now() < deadline,
                "Traefik does not come up: {}",
                self.log()
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill().await.context("kill Traefik"),
            None => Ok(()),
        }
    }

    /// The id of its process.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Child::id)
    }

    async fn pings(&self) -> bool {
        let ping = format!("http://127.0.0.1:{}/ping", self.ports.status);
        let pong = self.status.get(ping).send().await;
        pong.is_ok_and(|pong| pong.status() == StatusCode::OK)
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("traefik.log")).unwrap_or_default()
    }

    /// What its API says of a thing from Redis: `routers` or `services`.
    pub async fn shows(&self, kind: &str, name: &str) -> anyhow::Result<Option<Value>> {
        let port = self.ports.status;
        let url = format!("http://127.0.0.1:{port}/api/http/{kind}/{name}@redis");
        let answer = self.status.get(url).send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(answer.error_for_status()?.json().await?))
    }

    /// How many requests it passed to a service of Redis'.
    pub async fn passed_to(&self, service: &str) -> anyhow::Result<f64> {
        let url = format!("http://127.0.0.1:{}/metrics", self.ports.status);
        let text = self.status.get(url).send().await?.text().await?;
        let label = format!("service=\"{service}@redis\"");
        let is_count = |line: &&str| {
            line.starts_with("traefik_service_requests_total{") && line.contains(&label)
        };
        let counts = text.lines().filter(is_count);
        Ok(counts
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// Has it note each request from its next start on, for [`Self::refused_by_routes`].
    pub fn note_requests(&self) -> anyhow::Result<()> {
        let file = self.file("traefik.yml");
        let log = self.folder.path().join("access.log");
        let text = std::fs::read_to_string(&file)?;
        let noting = format!(
            "accessLog: {{ format: json, filePath: \"{}\" }}\n",
            log.display()
        );
        Ok(std::fs::write(file, text + &noting)?)
    }

    /// How many requests met a route from Redis and were told to sign in.
    pub fn refused_by_routes(&self) -> anyhow::Result<usize> {
        let text = std::fs::read_to_string(self.folder.path().join("access.log"))?;
        let is_refused = |line: &&str| {
            let noted: Value = serde_json::from_str(line).unwrap_or_default();
            let router = noted.get("RouterName").and_then(Value::as_str);
            router.is_some_and(|router| router.ends_with("@redis"))
                && noted.get("DownstreamStatus") == Some(&401.into())
        };
        Ok(text.lines().filter(is_refused).count())
    }

    /// A browser that comes from this address, and finds every name here.
    pub fn browser(&self, from: IpAddr) -> ClientBuilder {
        Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .add_root_certificate(self.root.clone())
            .local_address(from)
            .timeout(PATIENCE)
            .dns_resolver(Arc::new(Here))
            .http1_only()
    }
}

/// An authority's certificate, one of it for all names below a domain, and that one's key; PEM.
fn wildcard(domain: &str) -> anyhow::Result<(String, String, String)> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority
        .distinguished_name
        .push(DnType::CommonName, "Tidepool's tests");
    let root = authority.self_signed(&authority_key)?.pem();
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new([format!("*.{domain}")])?;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let issuer = Issuer::new(authority, authority_key);
    let certificate = leaf.signed_by(&key, &issuer)?.pem();
    Ok((root, certificate, key.serialize_pem()))
}

impl Drop for Traefik {
    fn drop(&mut self) {
        evidence::collect(self.folder.path(), "traefik");
    }
}

/// Every name is this machine's.
struct Here;

impl Resolve for Here {
    fn resolve(&self, _: Name) -> Resolving {
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let found: Addrs = Box::new(std::iter::once(here));
        Box::pin(std::future::ready(Ok(found)))
    }
}
