//! A Redis of this test's own, which it may kill or let hang.

use std::process::{Child, Command, Stdio};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

pub(crate) struct Redis {
    folder: TempDir,
    process: Child,
}

impl Redis {
    /// `None` where there is no Redis.
    pub(crate) fn start() -> anyhow::Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let Ok(process) = run(&folder) else {
            eprintln!("SKIPPED: there is no redis-server; run `./tidepool test`");
            return Ok(None);
        };
        Ok(Some(Self { folder, process }))
    }

    pub(crate) fn url(&self) -> String {
        format!("unix:{}", self.folder.path().join("redis.sock").display())
    }

    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    pub(crate) fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = run(&self.folder)?;
        Ok(())
    }

    pub(crate) fn hang(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub(crate) fn go_on(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.process.id())?);
        Ok(kill(pid, signal)?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.kill());
    }
}

fn run(folder: &TempDir) -> std::io::Result<Child> {
    Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(folder.path().join("redis.sock"))
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()
}
