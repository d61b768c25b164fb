//! The agent's command line and its life, for a program that says which version it is.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command as Program, ExitCode},
};

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    agent::{self, Agent, Copied},
    lock::{Lock, NotLocked},
    manifest::{self, ManifestArguments},
    metadata,
    openclaw::{self, CheckArguments},
    settings::{InvalidSettings, RunArguments, Settings},
    slots::{Boot, Launch, Slots},
    update::OwnRelease,
    watchdog,
};

/// The command line or a file that it names is wrong: `EX_USAGE`.
const EXIT_SETTINGS: u8 = 64;

/// Another agent runs with this state directory: `EX_TEMPFAIL`, it may be over soon.
const EXIT_HELD: u8 = 75;

/// The disk is another server's: `EX_CONFIG`. Starting again helps nothing.
const EXIT_COPIED: u8 = 78;

/// Keeps one server: enrols it, holds the link, and makes the document true.
#[derive(Debug, Parser)]
#[command(name = "tidepool-agent")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM, which also ends gateway and nginx; after SIGKILL both run on
    Run(RunArguments),
    /// The same in a process that `run` of the image's agent has given up
    #[command(hide = true)]
    Slot(RunArguments),
    /// End gateway and nginx of a server whose agent does not run
    StopAll(RunArguments),
    /// Exit with status 78 if the disk is a copy of another server's: before Docker starts what is on it
    OwnDisk(RunArguments),
    /// Ask the cloud who this server is, until it says so, and write it down for `run`
    Metadata {
        /// Where to write it; emptied at power-off
        #[arg(long)]
        directory: PathBuf,
    },
    /// Print the manifest of the image that this program is in
    Manifest(ManifestArguments),
    /// Print what is wrong with the configuration that is read from standard input; for `run`
    #[command(hide = true)]
    CheckConfig(CheckArguments),
}

/// Runs as the agent of this version.
pub fn main(version: &'static str) -> ExitCode {
    let matches = Arguments::command().version(version).get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(
            EnvFilter::try_from_env("TIDEPOOL_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .init();
    let outcome = match arguments.command {
        Command::Run(given) => launch(&given, version),
        Command::Slot(given) => in_slot(&given, version),
        Command::StopAll(given) => {
            // It comes after an agent that was ended, so it needs no lock.
            read(&given).and_then(|settings| on_one_thread(agent::stop_all(&settings)))
        }
        Command::OwnDisk(given) => {
            read(&given).and_then(|settings| Ok(agent::own_disk(&settings)?))
        }
        Command::Metadata { directory } => {
            on_one_thread(async { Ok(metadata::learn(&directory).await?) })
        }
        Command::Manifest(given) => print_manifest(given, version),
        Command::CheckConfig(given) => check_config(&given),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "agent ends");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<InvalidSettings>() {
        EXIT_SETTINGS
    } else if matches!(error.downcast_ref(), Some(NotLocked::Held(_))) {
        EXIT_HELD
    } else if error.is::<Copied>() {
        EXIT_COPIED
    } else {
        1
    }
}

fn read(given: &RunArguments) -> anyhow::Result<Settings> {
    Ok(Settings::read(given)?)
}

/// Runs as the only agent of its state directory, or gives the process to the agent that was chosen. Whatever
/// is wrong with that one, this one is here.
fn launch(given: &RunArguments, version: &'static str) -> anyhow::Result<()> {
    let settings = read(given)?;
    // Until the end of the program, and only of this one: the next one takes it in the same process.
    let _lock = Lock::take(&settings.state_dir)?;
    let slots = Slots::of(&settings.state_dir);
    let boot = Boot::of_now();
    // A trial that does not even begin is over, and the second look finds the one before.
    for _ in 0..2 {
        match slots.launch(boot.as_ref()) {
            Launch::Image => break,
            Launch::Slot(program) => become_program(&program),
        }
    }
    let release = OwnRelease {
        version,
        trial: None,
    };
    on_one_thread(run(settings, release))
}

/// Runs as the agent that was chosen.
fn in_slot(given: &RunArguments, version: &'static str) -> anyhow::Result<()> {
    let settings = read(given)?;
    let _lock = Lock::take(&settings.state_dir)?;
    let trial = Slots::of(&settings.state_dir).trial()?;
    on_one_thread(run(settings, OwnRelease { version, trial }))
}

/// Returns only if the program cannot be run.
fn become_program(program: &Path) {
    tracing::info!(program = %program.display(), "an agent that came later runs");
    let verb = std::iter::once(OsString::from("slot"));
    let error = Program::new(program)
        .arg0("tidepool-agent")
        .args(verb.chain(std::env::args_os().skip(2)))
        .exec();
    tracing::error!(%error, program = %program.display(), "it does not run, the image's agent does");
    // Of a trial, which is over.
    nix::unistd::alarm::cancel();
}

/// One thread: everything here waits, and an idle thread's stack and arena are memory too.
fn on_one_thread(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(work)
}

#[expect(clippy::print_stdout, reason = "what it is for")]
fn print_manifest(given: ManifestArguments, version: &str) -> anyhow::Result<()> {
    let manifest = manifest::of_image(given, version)?;
    println!("{}", serde_json::to_string_pretty(&manifest)?);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what it is for")]
fn check_config(given: &CheckArguments) -> anyhow::Result<()> {
    println!("{}", openclaw::answer(&given.schema, std::io::stdin())?);
    Ok(())
}

async fn run(settings: Settings, release: OwnRelease) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tracing::info!(
        server.id = %settings.user_data.server,
        address = %settings.address,
        gateway = %settings.gateway(),
        image = settings.manifest.image,
        version = release.version,
        "agent starts"
    );
    if let Err(copied) = agent::own_disk(&settings) {
        // What the first server's customer had may have been started by others, such as Docker.
        agent::stop_all(&settings).await?;
        return Err(copied.into());
    }
    let stop = CancellationToken::new();
    let agent = Agent::new(settings, release)?.run(stop.clone());
    tokio::pin!(agent);
    tokio::select! {
        ended = &mut agent => return ended,
        never = watchdog::keep() => match never {},
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("agent stops");
    watchdog::stopping();
    stop.cancel();
    agent.await
}
