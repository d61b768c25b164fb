//! `tidepool agent`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    CommandFailed,
    client::Client,
    output::{Output, table},
};
use crate::api::agents::{AgentRolloutView, AgentView, AgentsView, BeginAgentRollout};

/// What to do with agents.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List agents with their versions, and the newest rollout
    List,
    /// Bring a version to all servers, which was added by `tidepool artefact add`; halts at the first failure
    Rollout(Rollout),
    /// Halt the newest rollout
    Halt,
}

/// Which version, and how.
#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub struct Rollout {
    version: String,
    /// So many servers must keep it before others get it
    #[arg(long, default_value_t = 1)]
    canary: u32,
    /// After that, how many percent of all servers are updated at a time
    #[arg(long, default_value_t = 10)]
    percent: u32,
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    match command {
        Command::List => {
            let agents: AgentsView = client.get("/v1/agents").await?;
            output.show(&agents, lines)
        }
        Command::Rollout(options) => {
            let body = BeginAgentRollout {
                version: options.version,
                canary: options.canary,
                percent: options.percent,
            };
            let begun: AgentRolloutView = client.post("/v1/agents/rollouts", &body).await?;
            output.show(&begun, |begun| vec![line(begun)])
        }
        Command::Halt => {
            let halted: AgentRolloutView =
                client.post("/v1/agents/rollouts/halt", &json!({})).await?;
            output.show(&halted, |halted| vec![line(halted)])
        }
    }
}

fn line(rollout: &AgentRolloutView) -> String {
    let AgentRolloutView {
        id,
        version,
        canary,
        percent,
        ..
    } = rollout;
    match &rollout.halted {
        Some(why) => format!("rollout {id} of {version}: halted: {why}"),
        None => format!("rollout {id} of {version}: {canary} first, then {percent} % at a time"),
    }
}

fn lines(all: &AgentsView) -> Vec<String> {
    let head = ["SERVER", "VERSION", "LINK", "ROLLOUT", "ENDING", "REASON"].map(str::to_owned);
    let row = |agent: &AgentView| {
        let link = if agent.linked { "up" } else { "down" };
        let ending = match (agent.rollout, agent.ending) {
            (None, _) => "-",
            (Some(_), None) => "under way",
            (Some(_), Some(ending)) => ending.word(),
        };
        let rollout = agent.rollout.map(|rollout| rollout.to_string());
        vec![
            agent.server_name.clone(),
            agent.version.clone(),
            link.to_owned(),
            rollout.unwrap_or_else(|| "-".to_owned()),
            ending.to_owned(),
            agent.reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(head.into())
        .chain(all.agents.iter().map(row))
        .collect();
    all.rollout.iter().map(line).chain(table(&rows)).collect()
}
