//! From the create call until the customer's own host name answers as the owner, through the edge.
//!
//! Measured as a customer would: the create call, a login link, the page and the WebSocket's hello.
//! Sequential, then many at once. With the stub gateway for volume, with the real one as memory allows.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

use super::Sample;
use crate::{
    api::Api,
    customer::Customer,
    deployment::{Deployment, Options},
};

const BENCH: &str = "claim";
const WARMING: Duration = Duration::from_mins(20);

/// Claims of real gateways unless told otherwise.
const REAL: u32 = 8;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Claims with the stub gateway; 0 for none
    #[arg(long, default_value_t = 200)]
    pub stub: u32,
    /// Claims with the real OpenClaw; 0 for none [default: as many as memory allows, at most 8]
    #[arg(long)]
    pub real: Option<u32>,
    /// The real OpenClaw's image
    #[arg(long, env = "TIDEPOOL_MANIFEST")]
    pub manifest: Option<PathBuf>,
}

/// Measures and prints.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.stub > 0 {
        measure("stub_claim_to_ready", arguments.stub, None, [None, None]).await?;
    }
    if let Some(manifest) = arguments.manifest
        && arguments.real != Some(0)
    {
        let real = match arguments.real {
            Some(real) => real,
            None => super::real_gateways_that_fit(REAL)?,
        };
        let budgets = [Some(150.0), Some(1000.0)];
        measure("claim_to_ready", real, Some(manifest), budgets).await?;
    }
    Ok(())
}

async fn measure(
    name: &str,
    count: u32,
    manifest: Option<PathBuf>,
    budgets: [Option<f64>; 2],
) -> anyhow::Result<()> {
    let starting_at_once = if manifest.is_some() { 2 } else { 16 };
    let options = Options {
        pool_size: count,
        max_servers: count,
        starting_at_once,
        manifest,
        ..Options::default()
    };
    let tidepool = Deployment::start(&format!("bench-{name}"), options).await?;
    let api = tidepool.api()?;
    eprintln!("{name}: warming {count} servers");
    let all_warm = |pool: &Value| in_state(pool, "warm") >= count as usize;
    api.until("/pool", WARMING, all_warm).await?;
    let (sequential, at_once) = split(count);
    let mut steps = Steps::default();
    let mut totals = Sample::default();
    for number in 0..sequential {
        let (total, instance) = claim(api.clone(), format!("one-{number}")).await?;
        totals.add(total);
        steps.add(&instance);
    }
    totals.print(BENCH, name, "ms", budgets)?;
    steps.print(name)?;
    if at_once == 0 {
        eprintln!("{name}: one claim only, none at once with others");
        return Ok(());
    }
    let mut burst = Sample::default();
    let mut claims = JoinSet::new();
    for number in sequential..count {
        claims.spawn(claim(api.clone(), format!("many-{number}")));
    }
    while let Some(done) = claims.join_next().await {
        burst.add(done??.0);
    }
    burst.print(
        BENCH,
        &format!("{name}_{at_once}_at_once"),
        "ms",
        [None, None],
    )?;
    Ok(())
}

/// How many are claimed one after another, whose figures are promised, and how many then at once.
fn split(count: u32) -> (u32, u32) {
    let sequential = count.div_ceil(2);
    (sequential, count - sequential)
}

/// One customer's claim: milliseconds until page and WebSocket answered them as the owner.
pub(super) async fn claim(api: Api, name: String) -> anyhow::Result<(f64, Value)> {
    let begun = Instant::now();
    let instance = api.create(&name, 60).await?;
    let status = instance.get("status").and_then(Value::as_str);
    ensure!(status == Some("running"), "not running: {instance}");
    let owner = Customer::owner_of(&api, &instance).await?;
    ensure!(
        owner.status("/").await?.is_success(),
        "the page did not answer"
    );
    let (socket, _) = owner.hello().await?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    drop(socket);
    Ok((took, instance))
}

/// The coordinator's own account of each step.
#[derive(Debug, Default)]
struct Steps(std::collections::BTreeMap<String, Sample>);

impl Steps {
    fn add(&mut self, instance: &Value) {
        for (step, ms) in instance
            .get("timings_ms")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if let Some(ms) = ms.as_f64() {
                self.0.entry(step.clone()).or_default().add(ms);
            }
        }
    }

    fn print(&self, name: &str) -> anyhow::Result<()> {
        for (step, sample) in &self.0 {
            sample
                .print(BENCH, &format!("{name}_step_{step}"), "ms", [None, None])
                .context("print a step")?;
        }
        Ok(())
    }
}

pub(super) fn in_state(pool: &Value, state: &str) -> usize {
    let servers = pool.get("servers").and_then(Value::as_array);
    let is = |server: &&Value| server.get("state").and_then(Value::as_str) == Some(state);
    servers.map_or(0, |servers| servers.iter().filter(is).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_claim_is_one_of_those_whose_figures_are_promised() {
        assert_eq!([1, 2, 5, 8].map(split), [(1, 0), (1, 1), (3, 2), (4, 4)]);
    }
}
