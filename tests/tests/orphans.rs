//! What a coordinator started and did not live to note: found again, ended in order, never doubled.

use std::{collections::BTreeSet, fs, io, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tidepool_tests::deployment::{Deployment, Options};
use tokio::{process::Command, time::sleep};

const PATIENCE: Duration = Duration::from_mins(1);

async fn with_one_warm_server(name: &str) -> anyhow::Result<Deployment> {
    let options = Options {
        pool_size: 1,
        max_servers: 1,
        ..Options::default()
    };
    let tidepool = Deployment::start(name, options).await?;
    tidepool.api()?.until("/pool", PATIENCE, is_warm).await?;
    Ok(tidepool)
}

fn is_warm(pool: &Value) -> bool {
    pool.pointer("/servers/0/state").and_then(Value::as_str) == Some("warm")
}

/// As if the coordinator had died before it wrote this mark.
fn forget(mark: &Path) -> io::Result<()> {
    match fs::remove_file(mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[tokio::test]
async fn an_agent_that_was_not_noted_is_found_not_doubled_and_ended_with_the_rest()
-> anyhow::Result<()> {
    let mut tidepool = with_one_warm_server("unnoted-agent").await?;
    let before = tidepool.programs("tidepool-agent");
    ensure!(before.len() == 1, "agents: {before:?}");
    tidepool.kill_coordinator().await?;
    let server = tidepool.servers().pop().context("the only server")?;
    forget(&server.join("agent.pid"))?;
    tidepool.up().await?;
    tidepool.api()?.until("/pool", PATIENCE, is_warm).await?;
    let after = tidepool.programs("tidepool-agent");
    ensure!(after == before, "agents {before:?}, afterwards {after:?}");
    let log = fs::read_to_string(server.join("agent.log"))?;
    let starts = log.matches("agent starts").count();
    ensure!(starts == 1, "{starts} agents were started");
    tidepool.stop().await?;
    let left = tidepool.processes();
    ensure!(left.is_empty(), "left running: {left:?}");
    Ok(())
}

#[tokio::test]
async fn a_second_agent_of_a_state_directory_ends_at_once_and_says_why() -> anyhow::Result<()> {
    let tidepool = with_one_warm_server("second-agent").await?;
    let agents = tidepool.programs("tidepool-agent");
    let first = agents.first().context("an agent")?;
    let shown = fs::read_to_string(format!("/proc/{first}/cmdline"))?;
    let mut words = shown.split_terminator('\0');
    let second = Command::new(words.next().context("a program")?)
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let second = tokio::time::timeout(PATIENCE, second)
        .await
        .context("the second agent runs on")??;
    let said = String::from_utf8_lossy(&second.stderr);
    ensure!(
        second.status.code() == Some(75),
        "{}: {said}",
        second.status
    );
    ensure!(said.contains("another agent runs"), "{said}");
    ensure!(tidepool.programs("tidepool-agent") == agents);
    ensure!(is_warm(&tidepool.api()?.get("/pool").await?));
    Ok(())
}

#[tokio::test]
async fn a_proxy_that_was_not_noted_is_ended_and_replaced() -> anyhow::Result<()> {
    let mut tidepool = with_one_warm_server("unnoted-proxy").await?;
    let before = tidepool.programs("tidepool-proxy");
    ensure!(before.len() == 1, "proxies: {before:?}");
    tidepool.kill_coordinator().await?;
    forget(&tidepool.data_dir().join("proxy.pid"))?;
    tidepool.up().await?;
    let replaced = |now: &BTreeSet<i32>| now.len() == 1 && now.is_disjoint(&before);
    let waited = tokio::time::timeout(PATIENCE, async {
        while !replaced(&tidepool.programs("tidepool-proxy")) {
            sleep(Duration::from_millis(50)).await;
        }
    });
    waited.await.context("the orphan is still there")
}
