//! The coordinator's end, as the hidden subcommand of the bench: its real link server and store, and
//! nothing else of the coordinator. It tells on standard output how many links it holds.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tidepool_certs::authority::Authority;
use tidepool_coordinator::{
    ambient::{Chance, Clock as _, SystemClock},
    doorbell::Doorbell,
    link::{LinkServer, Links, Settings},
    store::sqlite::SqliteStore,
};
use tidepool_shared::id::CoordinatorId;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How often the number of links is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Where to serve.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[arg(long)]
    pub data: PathBuf,
    #[arg(long)]
    pub listen: SocketAddr,
}

/// Where the database is, below the data directory.
pub(super) fn database(data: &Path) -> PathBuf {
    data.join("tidepool.db")
}

/// Where the authority is, below the data directory.
pub(super) fn certs(data: &Path) -> PathBuf {
    data.join("certs")
}

/// Serves until standard input ends, that is until the bench does.
pub async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    super::log_if_wanted();
    let data = &arguments.data;
    let chance = Arc::new(Chance::from_os());
    let store = SqliteStore::open(&database(data), Arc::clone(&chance)).await?;
    let server = LinkServer::bind(
        Settings::new(
            CoordinatorId::new(chance.uuid(SystemClock.now())),
            arguments.listen,
            data.join("link-keys"),
        ),
        Arc::new(store),
        Doorbell::default(),
        Arc::new(SystemClock),
        chance,
        Arc::new(Authority::open_or_create(&certs(data), super::now())?),
    )?;
    let (address, links) = (server.local_addr()?, server.links());
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    tasks.spawn(server.run(cancel.clone()));
    writeln!(std::io::stdout().lock(), "{address}")?;
    tokio::select! {
        told = tell(&links) => told?,
        read = until_end_of_input() => read?,
    }
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// One line for every number of links that is seen.
async fn tell(links: &Links) -> std::io::Result<()> {
    let mut told = 0;
    loop {
        let count = links.count();
        if count != told {
            writeln!(std::io::stdout().lock(), "{count}")?;
            told = count;
        }
        sleep(LOOK).await;
    }
}

/// The bench writes nothing: its end of the pipe closes when it ends, however it does.
async fn until_end_of_input() -> anyhow::Result<()> {
    let reading = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    tokio::task::spawn_blocking(reading).await??;
    Ok(())
}
