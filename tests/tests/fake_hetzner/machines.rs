//! Servers with machines behind them: real agents, from `running` to the end.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::Rng as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidepool_certs::authority::Authority;
use tidepool_shared::{id::ServerId, user_data::UserData};
use tidepool_tests::{
    fake_hetzner::{self, FakeHetzner, Fault, LocalMachines, LocalMachinesSettings, Settings},
    programs,
};
use tokio::{
    net::UdpSocket,
    time::{Instant, sleep, timeout},
};

use crate::world::{PATIENCE, World};

/// A fake with machines, and user data that leads to a coordinator that never answers.
struct Machinery {
    world: World,
    machines: Arc<LocalMachines>,
    user_data: String,
    /// Hears, and never answers.
    coordinator: UdpSocket,
    _dir: TempDir,
}

impl Machinery {
    async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidepool-").tempdir()?;
        let mut network = [127, 0, 0];
        rand::rng().fill(&mut network[1..]);
        let machines = Arc::new(LocalMachines::start(LocalMachinesSettings {
            directory: dir.path().join("machines"),
            agent: programs::program("tidepool-agent")?,
            manifest: programs::stub_image(dir.path(), &[], None)?,
            image: "stub".to_owned(),
            // Not 127.0.0, where everybody is.
            network: [127, network[1] | 64, network[2]],
            http_port: 8080,
            gateway_ports: 1,
        })?);
        let settings = Settings::quick().with_room("cx23", "nbg1", 5);
        let fake = FakeHetzner::start_with(settings, machines.clone()).await?;
        let coordinator = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let authority =
            Authority::open_or_create(&dir.path().join("ca"), time::OffsetDateTime::UNIX_EPOCH)?;
        let user_data = UserData {
            server: ServerId::new(uuid::Uuid::from_u128(7)),
            enrolment_token: "7".repeat(64),
            coordinators: coordinator.local_addr()?.into(),
            ca: authority.root_pem().to_owned(),
            proxy: "http://127.0.0.1:1".to_owned(),
            admission: None,
        };
        Ok(Self {
            world: World::around(fake)?,
            machines,
            user_data: serde_json::to_string(&user_data)?,
            coordinator,
            _dir: dir,
        })
    }

    async fn order(&self, name: &str) -> anyhow::Result<(fake_hetzner::ServerId, Value)> {
        let more = json!({ "user_data": self.user_data });
        let ordered = self.world.order(name, &more).await?;
        ensure!(ordered.status == 201, "{ordered:?}");
        let id = fake_hetzner::ServerId(ordered.id("/server/id"));
        Ok((id, ordered.body))
    }

    /// The agent of a server, once there is one, or none any more.
    async fn agent(&self, server: fake_hetzner::ServerId, wanted: bool) -> anyhow::Result<i32> {
        let file = self.machines.directory(server).join("agent.pid");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pid = running(&file);
            match pid {
                Some(pid) if wanted => return Ok(pid),
                None if !wanted => return Ok(0),
                _ if Instant::now() > deadline => bail!("the agent of {server} is {pid:?}"),
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn act(&self, server: fake_hetzner::ServerId, what: &str) -> anyhow::Result<()> {
        let path = format!("/servers/{server}/actions/{what}");
        let accepted = self.world.post(&path, &json!({})).await?;
        self.world.success(accepted.id("/action/id")).await
    }
}

/// The process of a mark, if it runs and is no zombie.
fn running(mark: &Path) -> Option<i32> {
    let mark = std::fs::read_to_string(mark).ok()?;
    let pid = mark.split(' ').next()?.parse().ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    (!status.contains(") Z ")).then_some(pid)
}

#[tokio::test]
async fn a_server_is_a_real_agent_that_lives_and_dies_with_it() -> anyhow::Result<()> {
    let machinery = Machinery::start().await?;
    let (server, ordered) = machinery.order("a").await?;
    let address = ordered["server"]["public_net"]["ipv4"]["ip"].as_str();
    let address: Ipv4Addr = address.context("an address")?.parse()?;
    ensure!(
        address.is_loopback() && address.octets()[1] >= 64,
        "{address}"
    );
    let start = ordered["next_actions"][0]["id"].as_u64().unwrap_or(0);
    machinery.world.success(start).await?;
    let first = machinery.agent(server, true).await?;
    let command = std::fs::read_to_string(format!("/proc/{first}/cmdline"))?;
    ensure!(command.contains(&address.to_string()), "{command}");

    // It knocks at the coordinator's, from its own address, and again when nobody opens.
    let mut packet = [0; 2048];
    for _ in 0..2 {
        let heard = timeout(PATIENCE, machinery.coordinator.recv_from(&mut packet));
        let (_, from) = heard.await.context("the agent does not call home")??;
        assert_eq!(from.ip(), IpAddr::V4(address));
    }

    // It is started again when it dies, as systemd would, …
    kill(Pid::from_raw(first), Signal::SIGKILL)?;
    let deadline = Instant::now() + PATIENCE;
    while machinery.agent(server, true).await? == first {
        ensure!(Instant::now() < deadline, "it was not started again");
        sleep(Duration::from_millis(50)).await;
    }
    // … but not while the server is off, …
    machinery.act(server, "poweroff").await?;
    machinery.agent(server, false).await?;
    machinery.act(server, "poweron").await?;
    let second = machinery.agent(server, true).await?;
    // … anew after a reset, …
    machinery.act(server, "reset").await?;
    let deadline = Instant::now() + PATIENCE;
    while machinery.agent(server, true).await? == second {
        ensure!(
            Instant::now() < deadline,
            "a reset left the agent as it was"
        );
        sleep(Duration::from_millis(50)).await;
    }
    // … and never after its deletion.
    let deleted = machinery
        .world
        .delete(&format!("/servers/{server}"))
        .await?;
    machinery.world.success(deleted.id("/action/id")).await?;
    let deadline = Instant::now() + PATIENCE;
    while machinery.machines.directory(server).exists() {
        ensure!(Instant::now() < deadline, "its disk is still there");
        sleep(Duration::from_millis(50)).await;
    }
    machinery.world.end().await
}

#[tokio::test]
async fn a_server_that_never_calls_home_runs_nothing_and_one_refused_leaves_nothing()
-> anyhow::Result<()> {
    let machinery = Machinery::start().await?;
    let faults = machinery.world.fake.faults();
    faults.next(1, Fault::NeverCallsHome, "POST /servers");
    let (silent, ordered) = machinery.order("silent").await?;
    let (loud, _) = machinery.order("loud").await?;
    machinery.agent(loud, true).await?;
    let start = ordered["next_actions"][0]["id"].as_u64().unwrap_or(0);
    machinery.world.success(start).await?;
    assert_eq!(
        running(&machinery.machines.directory(silent).join("agent.pid")),
        None
    );

    let taken = machinery.world.order("loud", &json!({})).await?;
    assert_eq!(taken.status, 409);
    machinery.world.fake.set_room("cx23", "nbg1", 0);
    let full = machinery.world.order("full", &json!({})).await?;
    assert_eq!(full.status, 412);
    assert!(!machinery.machines.processes().is_empty());
    let machines = machinery.machines.clone();
    machinery.world.end().await?;
    ensure!(
        machines.processes().is_empty(),
        "left running: {:?}",
        machines.processes()
    );
    Ok(())
}
