//! From boot to a customer, through a power cut and a reboot.

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;
use serde_json::{Value, json};
use tidepool_coordinator::cloud::nspawn::{NspawnCloud, server_dir};
use tidepool_tests::{
    customer::Customer,
    rack::{self, Gateway, Rack, Server},
};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_mins(2);
const IDENTITY: &str = "/var/lib/tidepool/identity/identity.json";
const OWNERS_OF_WORKERS: &str = "
    read -r master </var/lib/tidepool/nginx/nginx.pid
    for worker in $(cat /proc/$master/task/$master/children); do
      id -nu $(awk '/^Uid:/ { print $2 }' /proc/$worker/status)
    done | sort -u";

/// A private network, and what the packet filter allows.
const NETWORK: &str = "10.20.0.0/16";
const ALLOWED: &str = "nft list set inet tidepool allowed4";

fn serves(instance: &Value) -> bool {
    instance["status"] == "running" && instance["health"] == "ok"
}

/// That all is well may still be the word of the boot before.
async fn looks_in(owner: &Customer) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = owner.request("/").send().await?.status();
        if status.is_success() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{status}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_server_of_the_image_enrols_serves_and_stays_itself_when_its_power_is_cut()
-> anyhow::Result<()> {
    // With the gateway in its container, as customers have it.
    let rack = Rack::of(&rack::image()?, "life", 1, Gateway::Own).await?;
    rack.warm(1).await?;
    let server = rack.server()?;
    // Every unit of the image, and not only those that the claim needs.
    server
        .until(
            "systemctl is-system-running || systemctl --failed",
            |state| state == "running",
        )
        .await?;
    let watchdog = "systemctl show -P WatchdogTimestampMonotonic tidepool-agent";
    ensure!(server.run(watchdog).await? != "0", "the watchdog is fed");
    // nginx's workers are nobody's who could do something to the server.
    let workers = server.run(OWNERS_OF_WORKERS).await?;
    ensure!(workers == "www-data", "{workers}");

    let instance = rack.api.create("alice", 60).await?;
    let owner = Customer::owner_of(&rack.api, &instance).await?;
    looks_in(&owner).await?;
    // What its container may reach is of the packet filter, which a boot begins without.
    let networks = json!({ "networks": [NETWORK] });
    let path = "/instances/alice/networks";
    let put = rack.api.send(Method::PUT, path, &[], Some(&networks));
    let (status, said) = put.await?;
    ensure!(status.is_success(), "{status} {said}");
    let allowed = |set: &str| set.contains(NETWORK);
    server.until(ALLOWED, allowed).await?;
    let identity = server.run(&format!("sha256sum {IDENTITY}")).await?;
    let enrolled = server.run("cat /etc/machine-id").await?;

    for how in ["power cut", "reboot"] {
        let before = server.leader().context("it is on")?;
        if how == "reboot" {
            // The command may be cut off by what it asks for.
            drop(server.run("systemctl reboot").await);
        } else {
            kill(Pid::from_raw(before.try_into()?), Signal::SIGKILL)?;
        }
        // On a busy machine it is still the boot before that answers.
        let deadline = Instant::now() + PATIENCE;
        while server.leader() == Some(before) {
            ensure!(Instant::now() < deadline, "{how}: it stays on");
            sleep(Duration::from_millis(100)).await;
        }
        let boot = |text: &str| text == "active";
        server
            .until("systemctl is-active tidepool-agent", boot)
            .await
            .context(how)?;
        let found = rack.api.until("/instances/alice", PATIENCE, serves).await?;
        ensure!(found["id"] == instance["id"], "{how}: {found}");
        ensure!(
            server.run(&format!("sha256sum {IDENTITY}")).await? == identity,
            "{how}"
        );
        ensure!(
            server.run("cat /etc/machine-id").await? == enrolled,
            "{how}"
        );
        looks_in(&owner).await.context(how)?;
        server.until(ALLOWED, allowed).await.context(how)?;
    }
    // What a deletion has begun by then is cut off by the end.
    rack.api.delete("/instances/alice").await?;
    rack.end().await
}

/// What a coordinator leaves that dies in the middle of a deletion: a machine that runs, of a server that is none
/// any more.
#[tokio::test]
async fn a_server_whose_deletion_was_cut_off_is_torn_down_with_the_rest() -> anyhow::Result<()> {
    let (_dir, settings) = rack::place(&rack::image()?, "half-deleted")?;
    let cloud = NspawnCloud::open(settings.clone()).await?;
    cloud.reserve("half", b"{}").await?;
    cloud.boot("half").await?;
    let dir = server_dir(&settings.directory, "half");
    let server = Server::read(&dir)?;
    server.until("echo on", |said| said == "on").await?;
    fs::rename(dir.join("server.json"), dir.join("condemned.json"))?;
    rack::tear_down(&settings)?;
    ensure!(server.leader().is_none(), "it runs");
    Ok(())
}
