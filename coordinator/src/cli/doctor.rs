//! `tidepool doctor`. Exit code 1 if something is wrong.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use clap::Args;
use reqwest::Certificate;
use serde_json::json;

use super::{
    CommandFailed,
    output::{Output, table},
};
use crate::{
    ambient::Chance,
    doctor::{Examination, Finding, Verdict, examine},
    serve::config::Config,
    store,
};

/// What to look at, and from where.
#[derive(Debug, Args)]
pub struct Options {
    /// The configuration of `serve`
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where visitors come to, whatever DNS says
    #[arg(long, value_name = "ADDRESS")]
    at: Option<IpAddr>,
    /// Where plain http is answered, as `init traefik` was told
    #[arg(long, default_value_t = 80)]
    http_port: u16,
    /// An authority whose certificates are good, though this machine does not know it; PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

pub(super) async fn run(options: &Options, output: &mut Output) -> Result<(), CommandFailed> {
    let findings = look(options)
        .await
        .map_err(|error| CommandFailed::Doctor(error.into()))?;
    output.show(&json!({ "findings": findings }), |_| lines(&findings))?;
    let is_wrong = |finding: &&Finding| finding.verdict == Verdict::Wrong;
    match findings.iter().filter(is_wrong).count() {
        0 => Ok(()),
        wrong => Err(CommandFailed::Unwell(wrong)),
    }
}

async fn look(options: &Options) -> anyhow::Result<Vec<Finding>> {
    let config = Config::read(&options.config)?;
    let authority = options.ca.as_ref().map(|path| {
        let text = std::fs::read(path).with_context(|| format!("read `{}`", path.display()))?;
        Certificate::from_pem(&text).context("read the authority's certificate")
    });
    let examination = Examination {
        at: options.at,
        http_port: options.http_port,
        authority: authority.transpose()?,
    };
    let chance = Arc::new(Chance::from_os());
    let store = store::open(&config.database(None)?, Arc::clone(&chance)).await?;
    Ok(examine(&config, &*store, &examination, &chance).await)
}

fn lines(findings: &[Finding]) -> Vec<String> {
    let rows = findings.iter().map(|finding| {
        let word = match finding.verdict {
            Verdict::Fine => "fine",
            Verdict::Doubtful => "doubtful",
            Verdict::Wrong => "WRONG",
        };
        vec![
            word.to_owned(),
            finding.check.clone(),
            finding.detail.clone(),
        ]
    });
    table(&rows.collect::<Vec<_>>())
}
