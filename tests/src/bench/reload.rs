//! From a configuration patch until the gateway has applied it, with the real OpenClaw.

use std::{path::PathBuf, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Sample;
use crate::deployment::{Deployment, Options};

const WARMING: Duration = Duration::from_mins(5);

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Patches, one after another
    #[arg(long, default_value_t = 20)]
    pub patches: u32,
    /// The real OpenClaw's image
    #[arg(long, env = "TIDEPOOL_MANIFEST")]
    pub manifest: PathBuf,
}

/// Measures and prints.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let manifest = Some(arguments.manifest);
    let options = Options {
        pool_size: 1,
        max_servers: 1,
        starting_at_once: 1,
        manifest,
        ..Options::default()
    };
    let tidepool = Deployment::start("bench-reload", options).await?;
    let api = tidepool.api()?;
    eprintln!("reload: warming one server");
    api.until("/pool", WARMING, |pool| {
        super::claim::in_state(pool, "warm") == 1
    })
    .await?;
    api.create("reload", 60).await?;
    let mut sample = Sample::default();
    for number in 0..arguments.patches {
        let begun = Instant::now();
        let patch = json!({ "agents": { "entries": { "main": { "identity": { "name": format!("Name {number}") } } } } });
        let path = "/instances/reload/config";
        let (status, answer) = api.send(Method::PATCH, path, &[], Some(&patch)).await?;
        anyhow::ensure!(status.is_success(), "{status} {answer}");
        let applied = |instance: &Value| {
            instance.get("generation") == instance.get("observed_generation")
                && instance.get("generation") == Some(&json!(number + 2))
        };
        api.until("/instances/reload", WARMING, applied).await?;
        sample.add(begun.elapsed().as_secs_f64() * 1000.0);
    }
    sample.print("reload", "hot_reload", "ms", [None, Some(2000.0)])?;
    Ok(())
}
