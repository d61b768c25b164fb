//! `tidepool instance config`.

use std::{fs, io::Read as _};

use clap::Subcommand;
use reqwest::Method;
use serde_json::Value;

use super::{
    CommandFailed,
    client::{Client, segment},
    output::Output,
    spinner,
};
use crate::{api::instances::config::ConfigView, config::ceiling::MAX_BYTES};

/// What to do with a configuration.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print it
    Get { name: String },
    /// Change it by a JSON merge patch
    Patch {
        name: String,
        /// File with the patch, or - for standard input
        file: String,
        /// Only check it, and print what would be
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let view: ConfigView = match command {
        Command::Get { name } => client.get(&path(&name)).await?,
        Command::Patch {
            name,
            file,
            dry_run,
        } => {
            let query = if dry_run { "?dry_run=true" } else { "" };
            let request = client
                .request(Method::PATCH, &format!("{}{query}", path(&name)))
                .header("prefer", "wait=30")
                .json(&read_json(&file)?);
            spinner::during("applying", client.send(request)).await?
        }
    };
    if let Some(error) = view
        .operation
        .as_ref()
        .and_then(|operation| operation.error.as_ref())
    {
        output.line(&format!("not applied: {error}"))?;
    }
    if output.wants_json() {
        output.json(&view)
    } else {
        output.json(&view.config)
    }
}

fn path(name: &str) -> String {
    format!("/v1/instances/{}/config", segment(name))
}

/// Reads JSON from a file, or from standard input for `-`.
pub(super) fn read_json(file: &str) -> Result<Value, CommandFailed> {
    let ceiling = u64::try_from(MAX_BYTES.saturating_mul(4)).unwrap_or(u64::MAX);
    let mut text = Vec::new();
    let read = if file == "-" {
        std::io::stdin().lock().take(ceiling).read_to_end(&mut text)
    } else {
        fs::File::open(file).and_then(|opened| opened.take(ceiling).read_to_end(&mut text))
    };
    let unusable =
        |error: &dyn std::error::Error| CommandFailed::Usage(format!("`{file}`: {error}"));
    read.map_err(|error| unusable(&error))?;
    serde_json::from_slice(&text).map_err(|error| unusable(&error))
}
