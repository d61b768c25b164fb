//! `tidepool pool`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    CommandFailed,
    client::{Client, segment},
    output::{Output, table},
};
use crate::api::{
    pool::{PoolView, PoolsView},
    servers::{StepView, Steps},
};

/// What to do with pools; shows them when nothing is said.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Order and remove nothing until resumed
    Pause(Named),
    /// End a pause, a halt or a hold
    Resume(Named),
    /// Show how a server was made and unmade, step by step
    Steps { server: String },
}

/// Which pool.
#[derive(Debug, Args)]
pub struct Named {
    tier: String,
    /// The tier's first region if not given
    #[arg(long)]
    region: Option<String>,
}

pub(super) async fn run(
    command: Option<Command>,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    match command {
        None => {
            let pools: PoolsView = client.get("/v1/pool").await?;
            output.show(&pools, lines)
        }
        Some(Command::Pause(named)) => switch(&named, "pause", client, output).await,
        Some(Command::Resume(named)) => switch(&named, "resume", client, output).await,
        Some(Command::Steps { server }) => {
            let path = format!("/v1/servers/{}/steps", segment(&server));
            let steps: Steps = client.get(&path).await?;
            output.show(&steps, |steps| table(&rows_of(&steps.data)))
        }
    }
}

async fn switch(
    named: &Named,
    verb: &str,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let region = named
        .region
        .as_deref()
        .map(|region| format!("?region={}", segment(region)));
    let path = format!(
        "/v1/pools/{}/{verb}{}",
        segment(&named.tier),
        region.unwrap_or_default()
    );
    let pool: PoolView = client.post(&path, &json!({})).await?;
    output.show(&pool, |pool| vec![line(pool)])
}

fn line(pool: &PoolView) -> String {
    let states = pool
        .by_state
        .iter()
        .map(|(state, count)| format!("{count} {state}"));
    let states = states.collect::<Vec<_>>().join(", ");
    let held = pool
        .held_until
        .as_ref()
        .map(|until| format!("; held until {until}"));
    format!(
        "{}/{}: {} of {} warm, {} waiting ({states}){}{}{}",
        pool.tier,
        pool.region,
        pool.warm,
        pool.target,
        pool.pending,
        if pool.paused { "; paused" } else { "" },
        if pool.halted {
            "; halted after failures"
        } else {
            ""
        },
        held.unwrap_or_default(),
    )
}

fn lines(pools: &PoolsView) -> Vec<String> {
    let mut lines: Vec<String> = pools.pools.iter().map(line).collect();
    let mut rows = vec![
        ["SERVER", "STATE", "HEALTH", "ADDRESS", "INSTANCE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(pools.servers.iter().map(|server| {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            server.name.clone(),
            server.state.word().to_owned(),
            server.health.word().to_owned(),
            or_dash(&server.address),
            or_dash(&server.instance_id),
        ]
    }));
    lines.extend(table(&rows));
    lines
}

fn rows_of(steps: &[StepView]) -> Vec<Vec<String>> {
    let header = ["AT", "SAGA", "STEP", "STATE", "ERROR"]
        .map(str::to_owned)
        .to_vec();
    let rows = steps.iter().map(|step| {
        vec![
            step.at.clone(),
            step.saga.word().to_owned(),
            step.step.clone(),
            step.state.word().to_owned(),
            step.error.clone().unwrap_or_default(),
        ]
    });
    std::iter::once(header).chain(rows).collect()
}
