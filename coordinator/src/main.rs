//! The program `tidepool`: logging, arguments, runtime; everything else is in the library.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tidepool_coordinator::{
    cli::{self, Cli, Command},
    serve, up,
};
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<ExitCode> {
    let Cli { common, command } = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    match command {
        // It keeps a log of its own, in the data directory.
        Command::Up(options) => runtime
            .block_on(up::run(options, &common.data_dir))
            .map(|()| ExitCode::SUCCESS),
        Command::Serve(options) => {
            log_to_stderr_as_json();
            runtime.block_on(serve::run(options))
        }
        command @ (Command::Instance(_)
        | Command::Pool { .. }
        | Command::Agent(_)
        | Command::Artefact(_)
        | Command::Upgrade(_)
        | Command::Costs
        | Command::Provider(_)
        | Command::Model(_)
        | Command::Key(_)
        | Command::Limit(_)
        | Command::Usage(_)
        | Command::UsageRecords(_)
        | Command::Init(_)
        | Command::Doctor(_)
        | Command::Image(_)
        | Command::Secrets(_)
        | Command::Events(_)
        | Command::Token(_)
        | Command::Openapi) => {
            log_to_stderr();
            Ok(runtime.block_on(cli::run(&common, command)))
        }
    }
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("TIDEPOOL_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// A service's log is read by programs.
fn log_to_stderr_as_json() {
    let filter = EnvFilter::try_from_env("TIDEPOOL_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
