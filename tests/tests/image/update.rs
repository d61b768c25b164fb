//! The agent updates itself under systemd, with all that the image's unit forbids it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;
use serde_json::{Value, json};
use tidepool_tests::{
    customer::{self, Customer},
    programs,
    rack::Rack,
    release::{NEXT, Releases},
};

const PATIENCE: Duration = Duration::from_mins(2);

async fn roll_out(rack: &Rack, file: &Path, version: &str) -> anyhow::Result<()> {
    rack.add_artefact(file).await?;
    let body = json!({ "version": version });
    let (status, answer) = rack
        .api
        .send(Method::POST, "/agents/rollouts", &[], Some(&body))
        .await?;
    ensure!(status.is_success(), "{status} {answer}");
    Ok(())
}

/// What became of a version on the only server.
async fn ended(rack: &Rack, version: &str) -> anyhow::Result<Value> {
    let over = |agents: &Value| {
        let agent = &agents["agents"][0];
        agents["rollout"]["version"] == version
            && agent["rollout"] == agents["rollout"]["id"]
            && agent["ending"].is_string()
            && agent["linked"] == true
    };
    let agents = rack.api.until("/agents", PATIENCE, over).await;
    Ok(agents.with_context(|| version.to_owned())?["agents"][0].take())
}

#[tokio::test]
async fn an_agent_updates_itself_and_goes_back_while_a_customer_is_connected() -> anyhow::Result<()>
{
    let dir = tempfile::tempdir()?;
    let releases = Releases::new(dir.path()).await?;
    let rack = Rack::trusting(&releases, "update", 1).await?;
    rack.warm(1).await?;
    let server = rack.server()?;
    let instance = rack.api.create("alice", 60).await?;
    let owner = Customer::owner_of(&rack.api, &instance).await?;
    let (mut socket, _) = owner.hello().await?;
    let gateway = "pgrep -f '[s]tub-gateway gateway'";
    let before = server.run(gateway).await?;

    roll_out(&rack, &releases.forged("97.0.0").await?, "97.0.0").await?;
    let refused = ended(&rack, "97.0.0").await?;
    ensure!(refused["ending"] == "refused", "{refused}");

    roll_out(&rack, &releases.next().await?, NEXT).await?;
    let kept = ended(&rack, NEXT).await?;
    ensure!(
        kept["ending"] == "kept" && kept["version"] == NEXT,
        "{kept}"
    );
    let main = "readlink /proc/$(systemctl show -P MainPID tidepool-agent)/exe";
    let runs = server.run(main).await?;
    ensure!(runs == "/var/lib/tidepool/agent/a/tidepool-agent", "{runs}");

    let broken = releases.broken("100.0.0", "exit 1").await?;
    roll_out(&rack, &broken, "100.0.0").await?;
    let back = ended(&rack, "100.0.0").await?;
    ensure!(
        back["ending"] == "rolled_back" && back["version"] == NEXT,
        "{back}"
    );
    ensure!(server.run(main).await? == runs);

    // The very connection of before, to the very gateway.
    customer::call(&mut socket, "sessions.list", json!({})).await?;
    ensure!(server.run(gateway).await? == before, "another gateway");
    let watchdog = "systemctl show -P WatchdogTimestampMonotonic tidepool-agent";
    ensure!(server.run(watchdog).await? != "0", "the watchdog is fed");
    rack.end().await
}

/// The next agent's program, put on the disk from outside; and what its first start leaves.
const NEXT_AGENT: &str = "/opt/next-agent";
const TRIED: &str = "/var/lib/tidepool/tried";

#[tokio::test]
async fn a_power_cut_in_the_middle_of_a_trial_is_not_held_against_the_new_agent()
-> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let releases = Releases::new(dir.path()).await?;
    let rack = Rack::trusting(&releases, "update-cut", 1).await?;
    rack.warm(1).await?;
    let server = rack.server()?;
    // Hangs when it is first tried, so that the cut comes in the middle of it, and is the next agent from then on.
    let inside = server
        .dir
        .join("disk/root")
        .join(NEXT_AGENT.trim_start_matches('/'));
    fs::copy(programs::program("next-agent")?, inside)?;
    let hangs_once = format!(
        "[ -e {TRIED} ] || {{ touch {TRIED}; exec sleep 1000; }}\nexec {NEXT_AGENT} \"$@\""
    );
    let file = releases.broken(NEXT, &hangs_once).await?;
    roll_out(&rack, &file, NEXT).await?;
    server
        .until(&format!("ls {TRIED}"), |found| found == TRIED)
        .await?;
    let leader = server.leader().context("it is on")?;
    kill(Pid::from_raw(leader.try_into()?), Signal::SIGKILL)?;

    let kept = ended(&rack, NEXT).await?;
    ensure!(
        kept["ending"] == "kept" && kept["version"] == NEXT,
        "{kept}"
    );
    let agents = rack.api.get("/agents").await?;
    ensure!(agents["rollout"]["halted"].is_null(), "{agents}");
    rack.end().await
}
