//! `tidepool secrets`: a new master key for what is sealed in the store. Straight in the store and in the
//! file, without a coordinator: the file never leaves the main server.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use tidepool_certs::sealed::MasterKeys;
use tidepool_shared::database_url::{DatabaseUrl, GivenUrl};

use super::{CommandFailed, Common, output::Output};
use crate::{
    ambient::Chance,
    model::Sealed,
    serve::config::Config,
    store::{self, Store, Transition},
    up,
};

/// Looks at everything sealed; whoever changed something meanwhile used the new key or is caught by another.
const LOOKS: usize = 5;

/// What to do with the master keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new master key, and seal everything with it
    Rotate(Rotate),
}

/// How to rotate.
#[derive(Debug, Args)]
pub struct Rotate {
    /// The configuration of `serve` [default: what `up` uses in the data directory]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Make no new key; seal what is left with the newest, and forget the older ones. After every machine
    /// has the file with the newest key
    #[arg(long)]
    forget_old: bool,
}

pub(super) async fn run(
    command: &Command,
    common: &Common,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let Command::Rotate(options) = command;
    let resealed = rotate(options, common)
        .await
        .map_err(|error| CommandFailed::Rotate(error.into()))?;
    let report = json!({ "resealed": resealed, "forgot_old": options.forget_old });
    output.show(&report, |_| {
        let after = if options.forget_old {
            "the older keys are forgotten"
        } else {
            "give the file to all machines, then run it again with --forget-old"
        };
        vec![format!(
            "{resealed} secrets sealed with the newest key; {after}"
        )]
    })
}

async fn rotate(options: &Rotate, common: &Common) -> anyhow::Result<usize> {
    let (database, path) = places(options, common)?;
    let store = store::open(&database, Arc::new(Chance::from_os())).await?;
    let shown = path.display();
    let keys = if options.forget_old {
        MasterKeys::read(&path).with_context(|| format!("read `{shown}`"))?
    } else {
        // Everything must open before anything changes.
        let keys = MasterKeys::read(&path).with_context(|| format!("read `{shown}`"))?;
        for sealed in store.sealed().await? {
            open(&keys, &sealed)?;
        }
        MasterKeys::add(&path).with_context(|| format!("add a key to `{shown}`"))?
    };
    let resealed = reseal(&*store, &keys).await?;
    if options.forget_old {
        keys.forget_old(&path)
            .with_context(|| format!("write `{shown}`"))?;
    }
    Ok(resealed)
}

fn places(options: &Rotate, common: &Common) -> anyhow::Result<(DatabaseUrl, PathBuf)> {
    if let Some(file) = &options.config {
        let config = Config::read(file)?;
        return Ok((config.database(None)?, config.master_keys()));
    }
    let given = std::env::var(tidepool_shared::database_url::VARIABLE).ok();
    let database = match given.as_deref().map(GivenUrl::from) {
        Some(given) => given.read().context("read the database's URL")?,
        None => DatabaseUrl::Sqlite(common.data_dir.join(up::DATABASE)),
    };
    Ok((database, common.data_dir.join(up::MASTER_KEYS)))
}

async fn reseal(store: &dyn Store, keys: &MasterKeys) -> anyhow::Result<usize> {
    let mut resealed = 0;
    for _ in 0..LOOKS {
        let all = store.sealed().await?;
        let old: Vec<_> = all
            .iter()
            .filter(|sealed| !keys.is_newest(&sealed.bytes))
            .collect();
        if old.is_empty() {
            return Ok(resealed);
        }
        for sealed in old {
            let secret = open(keys, sealed)?;
            let bytes = keys.seal(secret.expose(), &sealed.place.to_string());
            if store.reseal(sealed, &bytes).await? == Transition::Done {
                resealed += 1;
            }
        }
    }
    bail!("others keep changing keys with an older master key: has every machine the new file?")
}

fn open(keys: &MasterKeys, sealed: &Sealed) -> anyhow::Result<tidepool_certs::sealed::Secret> {
    let purpose = sealed.place.to_string();
    keys.open(&sealed.bytes, &purpose)
        .with_context(|| format!("the key of `{purpose}` does not open; set or delete it first"))
}
