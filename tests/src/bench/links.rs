//! Ten thousand agents on one coordinator: memory and CPU of idle links, and how long a restart takes.
//!
//! The link server runs in a process of its own, so that its memory is told apart from the agents'; the
//! agents' ends are the real ones, each with its own identity and socket, in this process. Every agent
//! starts with an empty desk and is sent its document once: that proves that the count of documents
//! counts, before a restart must leave it alone.

use std::time::Duration;

use anyhow::ensure;
use tempfile::TempDir;
use tidepool_certs::authority::Authority;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use tracing_subscriber::EnvFilter;

use super::{Figure, resources::allow_files};

mod fleet;
mod process;
mod server;
pub(super) mod stock;

use fleet::Fleet;
use process::Process;
pub use server::{Arguments as ServerArguments, serve};

/// How long something may take that has no budget of its own.
const PATIENCE: Duration = Duration::from_mins(5);

/// After the last link came up, until it is quiet enough to be measured.
const SETTLING: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(20);

/// Time for a document that should not have been sent to reach its desk.
const AFTERMATH: Duration = Duration::from_secs(5);

/// First connections under way at once. Every later one is spread by the agents themselves.
const DIALLING: usize = 300;

/// Agents started between two words on progress.
const TELL_EVERY: usize = 2_000;

/// File descriptors beyond the agents' sockets; an agent that comes back may hold two for a moment.
const SPARE_FILES: u64 = 2_000;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Agents, each with a claimed server and a link
    #[arg(long, default_value_t = 10_000)]
    pub agents: u16,
}

/// Measures and prints.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let agents = usize::from(arguments.agents);
    ensure!(agents > 0, "at least one agent is needed");
    allow_files(u64::from(arguments.agents) + SPARE_FILES)?;
    log_if_wanted();
    let data = TempDir::with_prefix("tidepool-links-")?;
    eprintln!("links: filling a store with {agents} claimed servers");
    let servers = stock::fill(data.path(), agents).await?;
    let authority = Authority::open_or_create(&server::certs(data.path()), now())?;
    eprintln!("links: issuing {agents} certificates");
    let identities = fleet::identities(&authority, servers)?;

    let mut coordinator = Process::start(data.path(), None).await?;
    let empty_kib = coordinator.rss_kib()?;
    let mut fleet = Fleet::new(authority.root().clone(), coordinator.address());
    let begun = Instant::now();
    for (number, identity) in identities.into_iter().enumerate() {
        let connected = number.saturating_sub(DIALLING);
        coordinator.until_links(connected, PATIENCE).await?;
        fleet.start(identity, stock::address(number)?, data.path());
        if (number + 1) % TELL_EVERY == 0 {
            eprintln!("links: {} agents have started", number + 1);
        }
    }
    coordinator.until_links(agents, PATIENCE).await?;
    fleet.until_taken_in(agents, PATIENCE).await?;
    print(
        "first_connect_all_s",
        begun.elapsed().as_secs_f64(),
        "s",
        None,
    )?;

    idle(&coordinator, empty_kib, arguments.agents).await?;

    let begun = Instant::now();
    coordinator = coordinator.killed_and_restarted(data.path()).await?;
    coordinator.until_links(agents, PATIENCE).await?;
    let seconds = begun.elapsed().as_secs_f64();
    print("reconnect_all_s", seconds, "s", Some(60.0))?;
    sleep(AFTERMATH).await;
    let again = u32::try_from(fleet.taken_in() - agents)?;
    print("reapplied_documents", again.into(), "documents", Some(0.0))?;
    let held = coordinator.links();
    ensure!(held == agents, "only {held} links stayed up");
    fleet.stop().await;
    Ok(())
}

/// What links cost on which nothing happens.
async fn idle(coordinator: &Process, empty_kib: u32, agents: u16) -> anyhow::Result<()> {
    eprintln!("links: all are up; measuring them idle");
    sleep(SETTLING).await;
    let (cpu, since) = (coordinator.cpu()?, Instant::now());
    sleep(IDLE).await;
    let busy = coordinator.cpu()?.saturating_sub(cpu).as_secs_f64();
    let percent = busy / since.elapsed().as_secs_f64() * 100.0;
    let rss_kib = coordinator.rss_kib()?;
    let links_kib = rss_kib.saturating_sub(empty_kib);
    let a_link = f64::from(links_kib) / f64::from(agents);
    print("link_rss_kib", a_link, "KiB", Some(50.0))?;
    print(
        "coordinator_rss_mib",
        f64::from(rss_kib) / 1024.0,
        "MiB",
        Some(1024.0),
    )?;
    print("idle_cpu_percent", percent, "% of a core", Some(200.0))?;
    let held = coordinator.links();
    ensure!(held == usize::from(agents), "only {held} links stayed up");
    Ok(())
}

fn print(name: &str, value: f64, unit: &'static str, budget: Option<f64>) -> std::io::Result<()> {
    let name = name.to_owned();
    let bench = "links";
    Figure {
        bench,
        name,
        value,
        unit,
        budget,
    }
    .print()
}

/// Logs of agents and link server, to find out why a figure is what it is: `TIDEPOOL_LOG=warn`.
fn log_if_wanted() {
    if let Ok(filter) = EnvFilter::try_from_env("TIDEPOOL_LOG") {
        let log = tracing_subscriber::fmt().with_env_filter(filter);
        log.with_writer(std::io::stderr).init();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a bench runs on the machine's own time"
)]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
