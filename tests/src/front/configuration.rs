//! A configuration of `serve` for one edge behind Traefik, from the example.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Ports;

/// What is to be in it.
#[derive(Debug)]
pub struct Places<'p> {
    /// Where the coordinator's authority is, for Traefik's certificate.
    pub state_dir: &'p Path,
    pub domain: &'p str,
    pub redis: &'p str,
    pub edge_port: u16,
    pub ports: Ports,
    pub server_port: u16,
}

impl Places<'_> {
    /// Traefik's API.
    pub fn api(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.status)
    }

    /// The file of secrets by which edges know Traefik.
    pub fn secrets(&self) -> PathBuf {
        self.state_dir.join("traefik.secrets")
    }

    /// Writes the example with its edge at these places.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let example =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../coordinator/tidepool.example.toml");
        let text = std::fs::read_to_string(example)?;
        let state = format!("state_dir = \"{}\"", self.state_dir.display());
        let text = text.replace("state_dir = \"/var/lib/tidepool\"", &state);
        let (before, rest) = text.split_once("[edge]").context("the example's edge")?;
        let (_, after) = rest.split_once("[sweep]").context("the example's sweep")?;
        let edge = format!(
            "[edge]
listen = \"127.0.0.1:{}\"
domain = \"{}\"
port = {}
server_port = {}
trusted_hops = [\"127.0.0.1\"]
redis = {{ url = \"{}\", traefik = [\"{}\"] }}

[sweep]",
            self.edge_port,
            self.domain,
            self.ports.https,
            self.server_port,
            self.redis,
            self.api()
        );
        Ok(std::fs::write(path, format!("{before}{edge}{after}"))?)
    }
}
