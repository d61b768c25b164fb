//! An agent that stands still is noticed by systemd, and nobody but it is restarted.

use std::time::Duration;

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};
use tidepool_tests::{
    customer::{self, Customer},
    rack::{self, Gateway, Rack},
};

const PATIENCE: Duration = Duration::from_mins(2);

const MAIN_PID: &str = "systemctl show -P MainPID tidepool-agent";

/// What the agent has below it: the container's first process and when it began, and nginx's.
const BELOW: &str = "
    docker inspect -f '{{.State.Pid}} {{.State.StartedAt}}' $(docker ps -q)
    cat /var/lib/tidepool/nginx/nginx.pid";

/// A private network, and what the packet filter allows.
const NETWORK: &str = "10.20.0.0/16";
const ALLOWED: &str = "nft list set inet tidepool allowed4";

#[tokio::test]
async fn an_agent_that_stands_still_is_restarted_and_a_customer_notices_nothing()
-> anyhow::Result<()> {
    // With the gateway in its container, as customers have it.
    let rack = Rack::of(&rack::image()?, "watchdog", 1, Gateway::Own).await?;
    rack.warm(1).await?;
    let server = rack.server()?;
    let instance = rack.api.create("alice", 60).await?;
    let served = |instance: &Value| instance["status"] == "running" && instance["health"] == "ok";
    rack.api.until("/instances/alice", PATIENCE, served).await?;
    let owner = Customer::owner_of(&rack.api, &instance).await?;
    let (mut socket, _) = owner.hello().await?;
    let below = server.run(BELOW).await?;
    ensure!(below.lines().count() == 2, "{below}");

    let stands_still = server.run(MAIN_PID).await?;
    server.run(&format!("kill -STOP {stands_still}")).await?;
    // After the unit's own WatchdogSec, which is half a minute.
    let restarts = "systemctl show -P NRestarts tidepool-agent";
    server.until(restarts, |said| said == "1").await?;
    let journal = server.run("journalctl -b -u tidepool-agent -o cat").await?;
    ensure!(journal.contains("Watchdog timeout"), "{journal}");
    let runs = "systemctl is-active tidepool-agent";
    server.until(runs, |said| said == "active").await?;
    ensure!(server.run(MAIN_PID).await? != stands_still);

    // What only comes by a link of the new one's.
    let networks = json!({ "networks": [NETWORK] });
    let path = "/instances/alice/networks";
    let put = rack.api.send(Method::PUT, path, &[], Some(&networks));
    let (status, said) = put.await?;
    ensure!(status.is_success(), "{status} {said}");
    server.until(ALLOWED, |set| set.contains(NETWORK)).await?;
    rack.api.until("/instances/alice", PATIENCE, served).await?;
    let after = server.run(BELOW).await?;
    ensure!(after == below, "before {below}, afterwards {after}");
    // The very connection of before.
    customer::call(&mut socket, "sessions.list", json!({})).await?;
    rack.end().await
}
