//! `./tidepool acceptance`: each step with its time, and an exit status that says whether all went well.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use tidepool_tests::acceptance::{self, Options};
use tokio::signal::unix::{SignalKind, signal};

/// Boots the image as whole machines in QEMU and takes one through a server's life: first boot with cloud-init, a
/// customer, reboot, power cut, cut cable, deletion; and tries from inside the customer's container what must
/// not be reached. The last line is `acceptance: ok` (exit status 0) or what failed (1). Needs root.
#[derive(Debug, Parser)]
#[command(name = "tidepool acceptance", version)]
struct Arguments {
    #[command(flatten)]
    run: Options,
    /// Only make the archive of the gateway's container in this directory, and print its path
    #[arg(long, value_name = "DIRECTORY")]
    container: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    if let Some(directory) = &arguments.container {
        say(&acceptance::container(directory)
            .await?
            .display()
            .to_string());
        return Ok(ExitCode::SUCCESS);
    }
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    let interrupted = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    Ok(
        match acceptance::run(&arguments.run, &say, interrupted).await {
            Ok(()) => {
                say("acceptance: ok");
                ExitCode::SUCCESS
            }
            Err(error) => {
                say(&format!("acceptance: failed: {error:#}"));
                ExitCode::FAILURE
            }
        },
    )
}

#[expect(clippy::print_stdout, reason = "what it is for")]
fn say(text: &str) {
    println!("{text}");
}
