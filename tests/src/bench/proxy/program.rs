//! A program that lives as long as the bench holds it.

use std::{ffi::OsStr, path::Path, process::Stdio, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::bench::resources;

/// A process, killed with this.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
}

impl Program {
    /// Starts it with what it says going to a file.
    pub(super) fn logged(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start `{}`", command.as_std().get_program().display()))?;
        Ok(Self { child })
    }

    /// Starts one that says a line when it is ready, and ends with its standard input.
    pub(super) async fn told<A: AsRef<OsStr>>(
        program: &Path,
        arguments: &[A],
    ) -> anyhow::Result<(Self, String)> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start `{}`", program.display()))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let line = BufReader::new(stdout).lines().next_line().await?;
        Ok((Self { child }, line.context("it did not start")?))
    }

    pub(super) fn rss_kib(&self) -> anyhow::Result<u32> {
        resources::rss_kib(self.pid()?)
    }

    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        resources::cpu(self.pid()?)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("it has ended")
    }

    /// Kills it and waits until it is gone.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}
