//! A certificate authority (Pebble, Let's Encrypt's own for tests) and the DNS that it and we ask.

use std::{net::Ipv4Addr, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use reqwest::{Certificate, Client};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::deployment::free_port;

const PATIENCE: Duration = Duration::from_secs(20);

/// Where it all is. Dropped, it ends.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    directory: u16,
    management: u16,
    dns: u16,
    records: u16,
    client: Client,
    _processes: [Child; 2],
}

impl Authority {
    /// One that asks names at this port of theirs, and gives certificates for so long.
    pub async fn start(http_port: u16, validity: Duration) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("tidepool-authority-")?;
        let [directory, management, dns, records] =
            [free_port()?, free_port()?, free_port()?, free_port()?];
        let made = rcgen::generate_simple_self_signed([
            "localhost".to_owned(),
            Ipv4Addr::LOCALHOST.to_string(),
        ])?;
        let [certificate, key, config] =
            ["ca.pem", "ca.key", "pebble.json"].map(|name| folder.path().join(name));
        std::fs::write(&certificate, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        let settings = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{directory}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": certificate,
            "privateKey": key,
            "httpPort": http_port,
            "tlsPort": 1,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": validity.as_secs(),
        }});
        std::fs::write(&config, settings.to_string())?;
        let log = std::fs::File::create(folder.path().join("authority.log"))?;
        let dns_server = Command::new("pebble-challtestsrv")
            .args(["-defaultIPv4", "", "-defaultIPv6", ""])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-dns01", &format!("127.0.0.1:{dns}")])
            .args(["-management", &format!("127.0.0.1:{records}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .kill_on_drop(true)
            .spawn()
            .context("start pebble-challtestsrv (Debian: pebble)")?;
        let pebble = Command::new("pebble")
            .arg("-config")
            .arg(&config)
            .args(["-dnsserver", &format!("127.0.0.1:{dns}")])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start pebble (Debian: pebble)")?;
        let client = Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .tls_certs_only([Certificate::from_pem(made.cert.pem().as_bytes())?])
            .build()?;
        let authority = Self {
            folder,
            directory,
            management,
            dns,
            records,
            client,
            _processes: [dns_server, pebble],
        };
        let deadline = Instant::now() + PATIENCE;
        for port in [directory, management, records] {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                ensure!(Instant::now() < deadline, "{}", authority.log());
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(authority)
    }

    /// Its part of an edge's configuration: customers' names must lead to `target`, and their TLS ends at this
    /// port.
    pub fn settings(&self, target: &str, tls_port: u16) -> String {
        format!(
            "domains = {{ target = \"{target}\", listen = \"127.0.0.1:{tls_port}\", \
             directory = \"https://127.0.0.1:{}/dir\", directory_ca = \"{}\", \
             resolver = \"127.0.0.1:{}\" }}",
            self.directory,
            self.folder.path().join("ca.pem").display(),
            self.dns
        )
    }

    /// The root of all certificates that it gives.
    pub async fn root(&self) -> anyhow::Result<Certificate> {
        let url = format!("https://127.0.0.1:{}/roots/0", self.management);
        let root = self.client.get(url).send().await?.error_for_status()?;
        Ok(Certificate::from_pem(&root.bytes().await?)?)
    }

    /// Has a name lead to these addresses.
    pub async fn lead(&self, name: &str, to: &[Ipv4Addr]) -> anyhow::Result<()> {
        let host = format!("{name}.");
        self.tell("clear-a", &json!({ "host": host })).await?;
        self.tell("add-a", &json!({ "host": host, "addresses": to }))
            .await
    }

    /// Has a name say this in a TXT record, or nothing.
    pub async fn say(&self, name: &str, text: Option<&str>) -> anyhow::Result<()> {
        let host = format!("{name}.");
        self.tell("clear-txt", &json!({ "host": host })).await?;
        match text {
            Some(text) => {
                let said = json!({ "host": host, "value": text });
                self.tell("set-txt", &said).await
            }
            None => Ok(()),
        }
    }

    async fn tell(&self, what: &str, body: &Value) -> anyhow::Result<()> {
        let url = format!("http://127.0.0.1:{}/{what}", self.records);
        let told = self.client.post(url).json(body).send().await?;
        told.error_for_status().map(drop).context("change a record")
    }

    /// What both have written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("authority.log")).unwrap_or_default()
    }
}
