//! One server of a rack, looked at from outside and worked in as root.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use serde_json::Value;
use tidepool_coordinator::cloud::nspawn::{machine::Machine, server_dir};
use tokio::time::{Instant, sleep, timeout};

use super::PATIENCE;
use crate::inside::Root;

/// One of its servers.
#[derive(Debug)]
pub struct Server {
    pub name: String,
    pub address: Ipv4Addr,
    pub dir: PathBuf,
    machine: Machine,
}

impl Server {
    /// A server of this directory.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let record: Value = serde_json::from_slice(&fs::read(dir.join("server.json"))?)?;
        let name = record["name"].as_str().context("its name")?.to_owned();
        let number = record["number"].as_u64().context("its number")?;
        Ok(Self {
            address: serde_json::from_value(record["address"].clone())?,
            machine: Machine::new(dir.to_owned(), name.clone(), number.try_into()?),
            dir: dir.to_owned(),
            name,
        })
    }

    /// Runs a shell's command inside, as root; what it printed, if it went well.
    pub async fn run(&self, script: &str) -> anyhow::Result<String> {
        let mut command = self.machine.command("sh").context("the machine is on")?;
        let output = command.args(["-c", script]).output();
        let output = timeout(PATIENCE, output)
            .await
            .context(script.to_owned())??;
        let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(
            output.status.success(),
            "`{script}`: {}\n{printed}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(printed)
    }

    /// Runs a command until it prints what satisfies; machines that are off are waited for.
    pub async fn until(
        &self,
        script: &str,
        satisfied: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let printed = self.run(script).await;
            match printed {
                Ok(text) if satisfied(&text) => return Ok(text),
                printed if Instant::now() > deadline => {
                    bail!("`{script}` was not satisfied: {printed:?}")
                }
                _ => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// The process id, on this machine, of its first process.
    pub fn leader(&self) -> Option<u32> {
        self.machine.leader()
    }
}

#[async_trait]
impl Root for Server {
    async fn run(&self, script: &str) -> anyhow::Result<String> {
        Self::run(self, script).await
    }
}

/// The servers of a cloud's directory.
pub fn servers(directory: &Path) -> anyhow::Result<Vec<Server>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory.join("servers"))? {
        let dir = server_dir(directory, &entry?.file_name().to_string_lossy());
        if dir.join("server.json").is_file() {
            found.push(Server::read(&dir)?);
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}
