//! A client that others wrote, driven by a script that tells one line of JSON a check.

use std::{
    ffi::OsString,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::{PATIENCE, REFUSED, expect::Errors};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

#[derive(Debug, Clone, Copy)]
pub(crate) enum Runtime {
    Python,
    Node,
}

/// A client, and what it is to be asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) runtime: Runtime,
    pub(crate) script: &'static str,
    /// One of Vercel's.
    pub(crate) provider: &'static str,
    /// Of the provider behind the proxy.
    pub(crate) kind: &'static str,
    pub(crate) model: &'static str,
    /// Checks beside those that all clients have.
    pub(crate) more: &'static [&'static [&'static str]],
    pub(crate) errors: Errors,
}

impl Client {
    /// Says so if it is not installed.
    pub(crate) fn is_missing(&self) -> bool {
        let name = self.runtime.variable();
        let is_missing = std::env::var_os(name).is_none();
        if is_missing {
            eprintln!("SKIPPED: {name} is not set; run `./tidepool test`");
        }
        is_missing
    }

    /// Names of all its checks.
    pub(crate) fn checks(&self) -> Vec<&'static str> {
        let common = ["plain", "stream", "tool", "broken", "stumbled", "left"];
        let more = self.more.iter().copied().flatten().copied();
        common.into_iter().chain(REFUSED).chain(more).collect()
    }

    /// Runs the script; what it told.
    pub(crate) async fn run(&self, url: &str, key: &str) -> anyhow::Result<Vec<Value>> {
        let home = tempfile::tempdir()?;
        let mut command = self.runtime.command(self.script, home.path())?;
        command
            .env("HOME", home.path())
            .env("NO_PROXY", "127.0.0.1")
            .env("LLM_URL", url)
            .env("LLM_KEY", key)
            .env("LLM_MODEL", self.model)
            .env("LLM_PROVIDER", self.provider)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(PATIENCE, command.output())
            .await
            .context("the client did not end")??;
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{said}\n{complained}");
        said.lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect()
    }
}

impl Runtime {
    const fn variable(self) -> &'static str {
        match self {
            Self::Python => "TIDEPOOL_LLM_PYTHON",
            Self::Node => "TIDEPOOL_LLM_NODE_MODULES",
        }
    }

    fn installed(self) -> anyhow::Result<OsString> {
        std::env::var_os(self.variable()).context("looked for before")
    }

    fn command(self, script: &str, home: &Path) -> anyhow::Result<Command> {
        Ok(match self {
            Self::Python => {
                let mut command = Command::new(self.installed()?);
                // No compiled files among the sources.
                command.arg("-B").arg(Path::new(SCRIPTS).join(script));
                command
            }
            Self::Node => {
                // Modules are looked for beside the script and above it, and nowhere else.
                symlink(self.installed()?, home.join("node_modules"))?;
                for name in ["checks.mjs", script] {
                    std::fs::copy(Path::new(SCRIPTS).join(name), home.join(name))?;
                }
                let mut command = Command::new("node");
                command.arg::<PathBuf>(home.join(script));
                command
            }
        })
    }
}
