//! `tidepool-agent`: one server's agent.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidepool_agent::{
    agent::{self, Agent},
    lock::{Lock, NotLocked},
    settings::{RunArguments, Settings},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The command line or a file that it names is wrong: `EX_USAGE`.
const EXIT_SETTINGS: u8 = 64;

/// Another agent runs with this state directory: `EX_TEMPFAIL`, it may be over soon.
const EXIT_HELD: u8 = 75;

/// Keeps one server: enrols it, holds the link, and makes the document true.
#[derive(Debug, Parser)]
#[command(name = "tidepool-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM, which also ends gateway and nginx; after SIGKILL both run on
    Run(RunArguments),
    /// End gateway and nginx of a server whose agent does not run
    StopAll(RunArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(
            EnvFilter::try_from_env("TIDEPOOL_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .init();
    let (Command::Run(given) | Command::StopAll(given)) = &arguments.command;
    let settings = match Settings::read(given) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "settings"
            );
            return ExitCode::from(EXIT_SETTINGS);
        }
    };
    // Until the end of the program. `stop-all` needs none: it comes after an agent that was ended.
    let lock =
        matches!(arguments.command, Command::Run(_)).then(|| Lock::take(&settings.state_dir));
    let _lock = match lock.transpose() {
        Ok(lock) => lock,
        Err(error) => {
            let code = match &error {
                NotLocked::Held(_) => ExitCode::from(EXIT_HELD),
                NotLocked::File { .. } => ExitCode::FAILURE,
            };
            tracing::error!(error = format!("{:#}", anyhow::Error::new(error)), "lock");
            return code;
        }
    };
    // One thread: everything here waits, and an idle thread's stack and arena are memory too.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "runtime");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match arguments.command {
            Command::Run(_) => run(settings).await,
            Command::StopAll(_) => agent::stop_all(&settings).await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "agent ends");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tracing::info!(
        server.id = %settings.user_data.server,
        address = %settings.address,
        gateway = %settings.gateway(),
        image = settings.manifest.image,
        "agent starts"
    );
    let stop = CancellationToken::new();
    let agent = Agent::new(settings)?.run(stop.clone());
    tokio::pin!(agent);
    tokio::select! {
        ended = &mut agent => return ended,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("agent stops");
    stop.cancel();
    agent.await
}
