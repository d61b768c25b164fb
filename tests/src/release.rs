//! Releases of the agent and of OpenClaw, made as an operator makes them: by the command line, with a release key.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::programs;

/// What `next-agent` says that it is.
pub const NEXT: &str = "99.0.0";

/// An operator's desk: keys and files to sign.
#[derive(Debug)]
pub struct Releases {
    dir: PathBuf,
    /// Of the release key.
    pub public_key: String,
}

impl Releases {
    /// With a new release key in this directory.
    pub async fn new(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let public_key = keygen(&dir.join("release.key")).await?;
        Ok(Self {
            dir: dir.to_owned(),
            public_key,
        })
    }

    /// Lets servers of an image believe this desk's key.
    pub fn trusted_in(&self, manifest: &Path) -> anyhow::Result<()> {
        let mut text: Value = serde_json::from_slice(&fs::read(manifest)?)?;
        let fields = text.as_object_mut().context("a manifest")?;
        fields.insert("release_keys".to_owned(), json!([self.public_key]));
        Ok(fs::write(manifest, serde_json::to_vec_pretty(&text)?)?)
    }

    /// The agent's next release, signed; its file.
    pub async fn next(&self) -> anyhow::Result<PathBuf> {
        let file = self.dir.join("next-agent");
        // What is only for a debugger would be most of what is carried.
        let stripped = Command::new("strip")
            .arg("-o")
            .arg(&file)
            .arg(programs::program("next-agent")?)
            .status()
            .await?;
        ensure!(stripped.success(), "strip: {stripped}");
        self.sign(&file, NEXT, "release.key").await?;
        Ok(file)
    }

    /// A program that says it is this version, and otherwise does what the shell is told; signed.
    pub async fn broken(&self, version: &str, what: &str) -> anyhow::Result<PathBuf> {
        self.signed(&self.script(version, what)?, version).await
    }

    /// A file as an agent of this version, signed.
    pub async fn signed(&self, file: &Path, version: &str) -> anyhow::Result<PathBuf> {
        self.sign(file, version, "release.key").await?;
        Ok(file.to_owned())
    }

    /// The same as a broken one, signed by somebody else.
    pub async fn forged(&self, version: &str) -> anyhow::Result<PathBuf> {
        let file = self.script(version, "exit 1")?;
        let key = format!("forger-{version}.key");
        keygen(&self.dir.join(&key)).await?;
        self.sign(&file, version, &key).await?;
        Ok(file)
    }

    /// A program that says it is this version, and otherwise does what the shell is told.
    pub fn script(&self, version: &str, what: &str) -> anyhow::Result<PathBuf> {
        let file = self.dir.join(format!("agent-{version}"));
        let text = format!(
            "#!/bin/sh\n[ \"$1\" != --version ] || {{ echo tidepool-agent {version}; exit; }}\n{what}\n"
        );
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        Ok(file)
    }

    /// A version of OpenClaw, which is the stub as a process with these switches, signed; its file.
    pub async fn stub(&self, version: &str, switches: &[String]) -> anyhow::Result<PathBuf> {
        let file = self.dir.join(format!("openclaw-{version}"));
        let program = programs::program("stub-gateway")?.display().to_string();
        let own = [
            program,
            "gateway".to_owned(),
            format!("STUB_VERSION={version}"),
        ];
        let schema = programs::stub_schema().display().to_string();
        let name = file.to_str().context("a name")?;
        let mut words = vec!["artefact", "pack-openclaw", name, "--version", version];
        words.extend(["--config-schema", &schema, "--restart-signal", "SIGUSR2"]);
        for word in own.iter().chain(switches) {
            words.extend(["--gateway", word]);
        }
        tidepool(&words).await?;
        self.sign_as("openclaw-image", &file, version, "release.key")
            .await?;
        Ok(file)
    }

    async fn sign(&self, file: &Path, version: &str, key: &str) -> anyhow::Result<()> {
        self.sign_as("agent", file, version, key).await
    }

    async fn sign_as(
        &self,
        kind: &str,
        file: &Path,
        version: &str,
        key: &str,
    ) -> anyhow::Result<()> {
        let key = self.dir.join(key);
        let file = file.to_str().context("a name")?;
        let key = key.to_str().context("a name")?;
        let words = [
            "artefact",
            "sign",
            file,
            "--kind",
            kind,
            "--version",
            version,
            "--key",
            key,
        ];
        tidepool(&words).await.map(drop)
    }
}

async fn keygen(key: &Path) -> anyhow::Result<String> {
    let said = tidepool(&["artefact", "keygen", key.to_str().context("a name")?]).await?;
    Ok(said.trim().to_owned())
}

async fn tidepool(words: &[&str]) -> anyhow::Result<String> {
    let done = Command::new(programs::program("tidepool")?)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .await?;
    ensure!(done.status.success(), "{words:?}: {done:?}");
    Ok(String::from_utf8(done.stdout)?)
}

/// What a list of agents says of one server's.
pub fn ending_of<'a>(agents: &'a Value, server_name: &str) -> Option<&'a str> {
    let all = agents["agents"].as_array()?;
    let agent = all
        .iter()
        .find(|agent| agent["server_name"] == server_name)?;
    agent["ending"].as_str()
}
