//! The link server's process, as the bench holds it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::bench::resources;

/// Between two words on progress.
const TELL: Duration = Duration::from_secs(5);

/// A running link server.
pub(super) struct Process {
    child: Child,
    address: SocketAddr,
    links: watch::Receiver<usize>,
    _reading: JoinSet<()>,
}

impl Process {
    /// Starts it and waits until it listens; on a free port unless told.
    pub(super) async fn start(data: &Path, listen: Option<SocketAddr>) -> anyhow::Result<Self> {
        let listen = listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        let mut child = Command::new(std::env::current_exe()?)
            .args(["links-server", "--listen", &listen.to_string(), "--data"])
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the link server")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = lines.next_line().await?;
        let address = first.context("the link server did not start")?.parse()?;
        let (told, number) = watch::channel(0);
        let mut reading = JoinSet::new();
        reading.spawn(read(lines, told));
        Ok(Self {
            child,
            address,
            links: number,
            _reading: reading,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it without a word to anybody, and starts it again in the same place.
    pub(super) async fn killed_and_restarted(mut self, data: &Path) -> anyhow::Result<Self> {
        eprintln!("links: killing the link server and starting it again");
        self.child.kill().await?;
        Self::start(data, Some(self.address)).await
    }

    /// How many links it holds.
    pub(super) fn links(&self) -> usize {
        *self.links.borrow()
    }

    /// Waits until it holds so many links, telling how many there are.
    pub(super) async fn until_links(
        &mut self,
        wanted: usize,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let waiting = async {
            let mut tell_at = Instant::now() + TELL;
            while self.links() < wanted {
                tokio::select! {
                    changed = self.links.changed() => changed.context("the link server ended")?,
                    () = sleep_until(tell_at) => {
                        eprintln!("links: {} of {wanted} are up", self.links());
                        tell_at += TELL;
                    }
                }
            }
            Ok(())
        };
        timeout(patience, waiting)
            .await
            .with_context(|| format!("fewer than {wanted} links after {patience:?}"))?
    }

    pub(super) fn rss_kib(&self) -> anyhow::Result<u32> {
        resources::rss_kib(self.pid()?)
    }

    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        resources::cpu(self.pid()?)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the link server ended")
    }
}

/// Keeps the number of links until the process ends.
async fn read(mut lines: Lines<BufReader<ChildStdout>>, told: watch::Sender<usize>) {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(links) = line.parse() {
            told.send_replace(links);
        }
    }
}
