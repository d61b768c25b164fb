//! The agent updates itself on this machine's servers: what was signed is taken and kept, and whatever is wrong
//! with it, the one before comes back, and customers notice nothing.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tidepool_agent::slots::{Slots, Terms};
use tidepool_coordinator::artefacts;
use tidepool_shared::artefact::{Kind, Statement};
use tidepool_tests::{
    api::Api,
    customer::{self, Customer},
    deployment::{Deployment, Options},
    programs,
    release::{NEXT, Releases, ending_of},
};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_mins(2);

/// A deployment whose servers believe this release key.
struct Fleet {
    tidepool: Deployment,
    releases: Releases,
    api: Api,
    _dir: tempfile::TempDir,
}

impl Fleet {
    async fn start(name: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let releases = Releases::new(dir.path()).await?;
        let manifest = programs::stub_image(dir.path(), &[], None)?;
        releases.trusted_in(&manifest)?;
        let options = Options {
            pool_size: 1,
            manifest: Some(manifest),
            ..Options::default()
        };
        let tidepool = Deployment::start(name, options).await?;
        let api = tidepool.api()?;
        Ok(Self {
            tidepool,
            releases,
            api,
            _dir: dir,
        })
    }

    async fn tidepool(&self, words: &[&str]) -> anyhow::Result<()> {
        let done = self.tidepool.tidepool(words).await?;
        ensure!(done.status.success(), "{words:?}: {done:?}");
        Ok(())
    }

    async fn roll_out(&self, file: &Path, version: &str) -> anyhow::Result<()> {
        let file = file.to_str().context("a name")?;
        self.tidepool(&["artefact", "add", file]).await?;
        let words = ["agent", "rollout", version, "--percent", "100"];
        self.tidepool(&words).await
    }

    async fn agents(&self, are: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        self.api.until("/agents", PATIENCE, are).await
    }

    async fn warm(&self, servers: u64) -> anyhow::Result<()> {
        let warm = |pool: &Value| {
            let warm = pool.pointer("/pools/0/warm").and_then(Value::as_u64);
            warm.unwrap_or_default() >= servers
        };
        self.api.until("/pool", PATIENCE, warm).await.map(drop)
    }
}

fn all(agents: &Value, is: impl Fn(&Value) -> bool) -> bool {
    let agents = agents["agents"].as_array();
    agents.is_some_and(|agents| !agents.is_empty() && agents.iter().all(is))
}

fn is_halted(agents: &Value) -> bool {
    agents
        .pointer("/rollout/halted")
        .is_some_and(Value::is_string)
}

#[tokio::test]
async fn a_release_reaches_every_server_and_a_customer_notices_nothing() -> anyhow::Result<()> {
    let fleet = Fleet::start("agent-update").await?;
    let alice = fleet.api.create("alice", 60).await?;
    let owner = Customer::owner_of(&fleet.api, &alice).await?;
    let (mut socket, _) = owner.hello().await?;
    fleet.warm(1).await?;
    let gateways = fleet.tidepool.programs("stub-gateway");

    fleet.roll_out(&fleet.releases.next().await?, NEXT).await?;
    let updated = fleet
        .agents(|agents| {
            all(agents, |agent| {
                agent["version"] == NEXT && agent["ending"] == "kept" && agent["linked"] == true
            })
        })
        .await?;
    ensure!(!is_halted(&updated), "{updated}");
    // The very connection of before.
    customer::call(&mut socket, "sessions.list", json!({})).await?;
    ensure!(
        gateways.is_subset(&fleet.tidepool.programs("stub-gateway")),
        "a gateway was restarted"
    );

    // It is what runs after a power cut as well.
    for agent in fleet.tidepool.programs("tidepool-agent") {
        kill(Pid::from_raw(agent), Signal::SIGKILL).context("kill the agent")?;
    }
    let back = |agents: &Value| all(agents, |agent| agent["version"] == NEXT);
    fleet.agents(back).await?;
    let slots = |dir: &PathBuf| dir.join("state/agent/a/tidepool-agent");
    for dir in fleet.tidepool.servers() {
        ensure!(slots(&dir).is_file(), "{}", dir.display());
    }
    Ok(())
}

#[tokio::test]
async fn a_release_that_ends_at_once_is_taken_back_and_goes_nowhere_else() -> anyhow::Result<()> {
    let fleet = Fleet::start("agent-broken").await?;
    let alice = fleet.api.create("alice", 60).await?;
    let owner = Customer::owner_of(&fleet.api, &alice).await?;
    fleet.warm(1).await?;
    let before = fleet.agents(|agents| all(agents, |_| true)).await?;
    let version = before["agents"][0]["version"].clone();

    let broken = fleet.releases.broken("98.0.0", "exit 1").await?;
    fleet.roll_out(&broken, "98.0.0").await?;
    let after = fleet.agents(is_halted).await?;
    let back = |agents: &Value| {
        all(agents, |agent| {
            agent["version"] == version && agent["linked"] == true
        })
    };
    let after_all = fleet.agents(back).await?;
    let touched = after["agents"].as_array().context("agents")?.iter();
    let touched = touched.filter(|agent| !agent["rollout"].is_null()).count();
    ensure!(touched == 1, "one canary: {after}");
    ensure!(
        after["agents"]
            .as_array()
            .is_some_and(|agents| agents.iter().any(|agent| agent["ending"] == "rolled_back")),
        "{after_all}"
    );
    ensure!(owner.is_owner().await?, "the customer was locked out");
    let told = fleet.api.events().await?;
    for kind in ["agent.rolled_back", "agent.rollout_halted"] {
        let times = told.iter().filter(|event| event["type"] == kind).count();
        ensure!(times == 1, "{kind}: {times} times");
    }
    Ok(())
}

#[tokio::test]
async fn what_another_key_signed_and_what_is_not_what_it_says_are_refused() -> anyhow::Result<()> {
    let fleet = Fleet::start("agent-forged").await?;
    fleet.warm(1).await?;
    let lies = fleet.releases.script("1.0.0", "exit 1")?;
    for (file, version, why) in [
        (
            fleet.releases.forged("97.0.0").await?,
            "97.0.0",
            "no release key",
        ),
        (
            fleet.releases.signed(&lies, "96.0.0").await?,
            "96.0.0",
            "signed as 96.0.0",
        ),
    ] {
        fleet.roll_out(&file, version).await?;
        let refused = fleet
            .agents(|agents| {
                is_halted(agents)
                    && agents["rollout"]["version"] == version
                    && all(agents, |agent| agent["ending"] == "refused")
            })
            .await?;
        let reason = refused["agents"][0]["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains(why), "{version}: {reason}");
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_that_hangs_is_ended_by_the_kernel_and_the_one_before_comes_back()
-> anyhow::Result<()> {
    let fleet = Fleet::start("agent-hangs").await?;
    fleet.warm(1).await?;
    let gateways = fleet.tidepool.programs("stub-gateway");
    let servers = fleet.tidepool.servers();
    let dir = servers.first().context("a server")?;
    let slots = Slots::of(&dir.join("state"));
    let hangs = fleet.releases.broken("95.0.0", "exec sleep 1000").await?;
    let (sha256, size) = artefacts::measure(&hangs)?;
    slots.install(&hangs)?;
    let statement = Statement {
        kind: Kind::Agent,
        version: "95.0.0".parse()?,
        sha256,
        size,
        replaces_up_to: None,
    };
    let terms = Terms {
        rollout: 1,
        trial_s: 10,
        was_well: true,
    };
    slots.try_next(&statement, terms)?;
    for agent in fleet.tidepool.programs("tidepool-agent") {
        kill(Pid::from_raw(agent), Signal::SIGKILL).context("kill the agent")?;
    }
    let deadline = Instant::now() + PATIENCE;
    while slots.failed()?.is_none() {
        ensure!(Instant::now() < deadline, "it hangs for ever");
        sleep(Duration::from_millis(100)).await;
    }
    fleet.warm(1).await?;
    let name = dir.file_name().context("a name")?.to_string_lossy();
    let linked = |agents: &Value| all(agents, |agent| agent["linked"] == true);
    let agents = fleet.agents(linked).await?;
    ensure!(ending_of(&agents, &name).is_none(), "no rollout was begun");
    ensure!(
        gateways == fleet.tidepool.programs("stub-gateway"),
        "the gateway was restarted"
    );
    Ok(())
}
