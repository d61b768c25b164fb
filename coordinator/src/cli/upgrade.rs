//! `tidepool upgrade`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    CommandFailed,
    client::{Client, segment},
    output::{Output, table},
};
use crate::api::rollouts::{RolloutView, RolloutsView, StartRollout};

/// What to do with rollouts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring the instances of a tier to a version, canaries first
    Start(StartOptions),
    /// Show the last rollout of each tier
    Show,
    /// Begin with no more instances
    Halt {
        #[arg(long)]
        tier: String,
    },
    /// Go on after a halt; who failed is left as it is
    Resume {
        #[arg(long)]
        tier: String,
    },
}

/// How to roll out.
#[derive(Debug, Args)]
pub struct StartOptions {
    /// Such as 2026.9.6; it must be on the servers
    #[arg(value_name = "VERSION")]
    openclaw: String,
    #[arg(long)]
    tier: String,
    /// How many instances are the first
    #[arg(long, value_name = "N", default_value_t = 1)]
    canary: u32,
    /// How many of the rest at once
    #[arg(long, value_name = "PERCENT", default_value_t = 10)]
    wave: u32,
    /// More failures than this halt it
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_failures: u32,
    /// How long a wave must stay well before the next one begins
    #[arg(long, value_name = "SECS", default_value_t = 600)]
    soak: u32,
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    output: &mut Output,
) -> Result<(), CommandFailed> {
    let rollout: RolloutView = match command {
        Command::Show => {
            let all: RolloutsView = client.get("/v1/rollouts").await?;
            return output.show(&all, |all| all.data.iter().flat_map(lines).collect());
        }
        Command::Start(options) => {
            let body = StartRollout {
                tier: options.tier,
                version: options.openclaw,
                canaries: Some(options.canary),
                wave_percent: Some(options.wave),
                max_failures: Some(options.max_failures),
                soak_s: Some(options.soak),
            };
            client.post("/v1/rollouts", &json!(body)).await?
        }
        Command::Halt { tier } => client.post(&path(&tier, "halt"), &json!({})).await?,
        Command::Resume { tier } => client.post(&path(&tier, "resume"), &json!({})).await?,
    };
    output.show(&rollout, lines)
}

fn path(tier: &str, what: &str) -> String {
    format!("/v1/rollouts/{}/{what}", segment(tier))
}

fn lines(rollout: &RolloutView) -> Vec<String> {
    let mut lines = vec![format!(
        "OpenClaw {} for {}: {}, {} reached, {} left{}{}",
        rollout.version,
        rollout.tier,
        rollout.state.word(),
        rollout.reached,
        rollout.left,
        match (rollout.left, rollout.ready) {
            (0, _) => String::new(),
            (_, 0) => ", none of them ready now".to_owned(),
            (_, ready) => format!(", {ready} of them ready now"),
        },
        rollout
            .reason
            .as_ref()
            .map(|reason| format!(" ({reason})"))
            .unwrap_or_default(),
    )];
    if !rollout.members.is_empty() {
        let header = ["INSTANCE", "STATE", "ERROR"].map(str::to_owned).to_vec();
        let rows = rollout.members.iter().map(|member| {
            vec![
                member.name.clone(),
                member.state.word().to_owned(),
                member.error.clone().unwrap_or_default(),
            ]
        });
        lines.extend(table(
            &std::iter::once(header).chain(rows).collect::<Vec<_>>(),
        ));
    }
    lines
}
