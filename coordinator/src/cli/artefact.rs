//! `tidepool artefact`: what is brought to servers after they were made. Signing needs the release key and no
//! coordinator; adding needs the coordinator's directory and no key.

pub mod pack;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use tidepool_certs::{release::ReleaseKey, secret_file};
use tidepool_shared::artefact::{Kind, Statement, Version};

use super::{
    CommandFailed, Common,
    output::{Output, table},
};
use crate::{
    artefacts::{self, Artefact, Artefacts},
    serve::config::Config,
    up,
};

/// What to do with artefacts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a release key; keep the file away from coordinators, and put what is printed into images
    Keygen {
        /// Where to write it; a file that is there is left alone
        #[arg(value_name = "FILE")]
        key: PathBuf,
    },
    /// Sign a file; what was signed is written beside it, as FILE.signed.json
    Sign(Sign),
    /// Make the file that brings a version of OpenClaw to servers, to be signed as `openclaw-image`
    PackOpenclaw(pack::Pack),
    /// Put a signed file where servers fetch it, on this coordinator
    Add {
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// List what servers can fetch from this coordinator
    List {
        #[command(flatten)]
        place: Place,
    },
}

/// What to sign, and as what.
#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub struct Sign {
    file: PathBuf,
    /// `agent` (the agent's program) or `openclaw-image`
    #[arg(long)]
    kind: Kind,
    /// What it calls itself, such as 1.2.3
    #[arg(long)]
    version: Version,
    /// The release key's file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// It may replace newer versions up to this one, to take a release back
    #[arg(long, value_name = "VERSION")]
    replaces_up_to: Option<Version>,
}

/// Which coordinator's directory.
#[derive(Debug, Args)]
pub struct Place {
    /// The configuration of `serve` [default: what `up` uses in the data directory]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    fn open(&self, common: &Common) -> anyhow::Result<Artefacts> {
        Ok(match &self.config {
            Some(file) => Artefacts::new(Config::read(file)?.artefacts()),
            None => Artefacts::new(common.data_dir.join(up::ARTEFACTS)),
        })
    }
}

pub(super) fn run(
    command: &Command,
    common: &Common,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let failed = |error: anyhow::Error| CommandFailed::Artefact(error.into());
    match command {
        Command::Keygen { key } => {
            let key = ReleaseKey::create(key)
                .with_context(|| format!("make a release key in `{}`", key.display()))
                .map_err(failed)?;
            let answer = json!({ "public_key": key.id() });
            output.show(&answer, |_| vec![key.id().to_string()])
        }
        Command::Sign(options) => {
            let statement = sign(options).map_err(failed)?;
            let beside = artefacts::signed_beside(&options.file);
            output.show(&statement, |_| vec![beside.display().to_string()])
        }
        Command::PackOpenclaw(options) => {
            let packed = pack::pack(options).map_err(failed)?;
            output.show(&packed, |_| vec![options.file.display().to_string()])
        }
        Command::Add { file, place } => {
            let added = add(file, place, common).map_err(failed)?;
            output.show(&added.statement, |it| {
                vec![format!("{} {} can be fetched", it.kind, it.version)]
            })
        }
        Command::List { place } => {
            let all = list(place, common).map_err(failed)?;
            output.show(&all, |all| table(&rows(all)))
        }
    }
}

fn sign(options: &Sign) -> anyhow::Result<Statement> {
    let key = ReleaseKey::read(&options.key)
        .with_context(|| format!("read the release key `{}`", options.key.display()))?;
    let (sha256, size) = artefacts::measure(&options.file)
        .with_context(|| format!("read `{}`", options.file.display()))?;
    let (kind, ceiling) = (options.kind, options.kind.max_size());
    anyhow::ensure!(
        size <= ceiling,
        "it has {size} bytes, and an artefact of the kind {kind} at most {ceiling}"
    );
    let statement = Statement {
        kind,
        version: options.version.clone(),
        sha256,
        size,
        replaces_up_to: options.replaces_up_to.clone(),
    };
    let signed = serde_json::to_vec_pretty(&key.sign(&statement))?;
    let beside = artefacts::signed_beside(&options.file);
    secret_file::write(&beside, &signed)
        .with_context(|| format!("write `{}`", beside.display()))?;
    Ok(statement)
}

fn add(file: &Path, place: &Place, common: &Common) -> anyhow::Result<Artefact> {
    Ok(place.open(common)?.add(file)?)
}

fn list(place: &Place, common: &Common) -> anyhow::Result<Vec<Statement>> {
    let all = place.open(common)?.list()?;
    Ok(all.into_iter().map(|it| it.statement).collect())
}

fn rows(all: &[Statement]) -> Vec<Vec<String>> {
    let head = ["KIND", "VERSION", "BYTES", "SHA-256"].map(str::to_owned);
    let row = |it: &Statement| {
        vec![
            it.kind.to_string(),
            it.version.to_string(),
            it.size.to_string(),
            it.sha256.to_string(),
        ]
    };
    std::iter::once(head.into())
        .chain(all.iter().map(row))
        .collect()
}
