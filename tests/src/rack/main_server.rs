//! This machine as the main server: coordinator and proxy, at an address that its servers reach.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidepool_shared::database_url;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{PATIENCE, SERVER_PORT};
use crate::{api::Api, deployment::free_port, evidence, programs};

/// On the switch nobody else listens.
const LINK_PORT: u16 = 7718;

/// What a main server is made of.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Empty, and its own.
    pub dir: PathBuf,
    /// As servers reach it.
    pub address: Ipv4Addr,
    /// Of the image, as this machine sees its files.
    pub manifest: &'a Path,
    /// The part of the configuration that is about the cloud, TOML.
    pub cloud: String,
    /// A server type and a location of that cloud.
    pub placement: [&'a str; 2],
    /// So many idle servers, and so many in all.
    pub room: [u32; 2],
    pub boot_deadline: Duration,
}

/// For a coordinator that is told to stop; it gives itself ten seconds.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Coordinator and proxy. Dropping it kills both.
#[derive(Debug)]
pub struct MainServer {
    dir: PathBuf,
    ports: [u16; 3],
    coordinator: Child,
    proxy: Child,
    pub api: Api,
}

impl MainServer {
    /// Starts both, and waits for the API. The address must be this machine's already.
    pub async fn start(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let ports = [free_port()?, free_port()?, free_port()?];
        fs::create_dir(&plan.dir)?;
        let text = configuration(plan, ports);
        fs::write(plan.dir.join("tidepool.toml"), text)?;
        let token = token(&plan.dir).await?;
        let mut main = Self {
            dir: plan.dir.clone(),
            proxy: proxy(&plan.dir, plan.address, ports[2])?,
            coordinator: coordinator(&plan.dir)?,
            api: Api::new(&format!("http://127.0.0.1:{}", ports[0]), &token)?,
            ports,
        };
        let deadline = Instant::now() + PATIENCE;
        while !main.api.is_up().await {
            if main.coordinator.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(main.dir.join("coordinator.log"))?;
                bail!("the coordinator did not come up: {log}");
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(main)
    }

    /// Where everything of its own is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its store, of which no others than it may be the writer.
    pub fn database(&self) -> String {
        database_of(&self.dir)
    }

    /// The edge's port, on this machine.
    pub fn edge_port(&self) -> u16 {
        self.ports[1]
    }

    /// The proxy's port, for servers.
    pub fn proxy_port(&self) -> u16 {
        self.ports[2]
    }

    /// Kills the coordinator: from then on it asks nothing of its cloud.
    pub fn kill_coordinator(&mut self) {
        // It may have ended.
        drop(self.coordinator.start_kill());
    }

    /// Ends both, and waits until they have: then nothing is begun any more in the cloud, nor by what they started.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.coordinator.id() {
            kill(Pid::from_raw(pid.try_into()?), Signal::SIGTERM)?;
            let stopped = timeout(STOP_DEADLINE, self.coordinator.wait()).await;
            if stopped.is_err() {
                self.coordinator.kill().await?;
                bail!("the coordinator did not stop");
            }
        }
        self.proxy.kill().await.context("end the proxy")
    }

    /// The same at once and by force.
    pub fn kill(&mut self) {
        for child in [&mut self.coordinator, &mut self.proxy] {
            // It may have ended.
            drop(child.start_kill());
            while let Ok(None) = child.try_wait() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn coordinator(dir: &Path) -> anyhow::Result<Child> {
    Command::new(programs::program("tidepool")?)
        .args(["serve", "--config"])
        .arg(dir.join("tidepool.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("coordinator.log"))?)
        .kill_on_drop(true)
        .spawn()
        .context("start the coordinator")
}

fn proxy(dir: &Path, address: Ipv4Addr, port: u16) -> anyhow::Result<Child> {
    Command::new(programs::program("tidepool-proxy")?)
        .args(["--listen", &format!("{address}:{port}")])
        .arg("--journal")
        .arg(dir.join("usage"))
        .env(database_url::VARIABLE, database_of(dir))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("proxy.log"))?)
        .kill_on_drop(true)
        .spawn()
        .context("start the proxy")
}

async fn token(dir: &Path) -> anyhow::Result<String> {
    let made = Command::new(programs::program("tidepool")?)
        .args(["token", "create", "tests", "--config"])
        .arg(dir.join("tidepool.toml"))
        .stdin(Stdio::null())
        .output()
        .await?;
    ensure!(made.status.success(), "{made:?}");
    let token = String::from_utf8(made.stdout)?.trim().to_owned();
    evidence::note_secret(&token);
    Ok(token)
}

fn database_of(dir: &Path) -> String {
    format!("sqlite:{}", dir.join("tidepool.db").display())
}

fn configuration(plan: &Plan<'_>, [api, edge, proxy]: [u16; 3]) -> String {
    let (dir, main) = (&plan.dir, IpAddr::V4(plan.address));
    format!(
        r#"state_dir = "{state}"
database_url = "{database}"
manifest = "{manifest}"
proxy_url = "http://{main}:{proxy}"
deletion_grace_s = 0
api = {{ listen = "127.0.0.1:{api}" }}
link = {{ listen = "{main}:{LINK_PORT}", coordinators = ["{main}:{LINK_PORT}"], reconnect_spread_s = 1 }}

[edge]
listen = "127.0.0.1:{edge}"
domain = "rack.localhost"
scheme = "http"
port = {edge}
server_port = {SERVER_PORT}
trusted_hops = ["127.0.0.1"]

{cloud}
[[pool]]
tier = "basic"
region = "here"
placements = [{{ server_type = "{server_type}", location = "{location}" }}]
floor = {pool_size}
most_idle = {pool_size}
max_servers = {max_servers}
creating_at_once = 2
boot_deadline_s = {boot_deadline}
address_rest_s = 0
"#,
        state = dir.join("state").display(),
        database = database_of(dir),
        manifest = plan.manifest.display(),
        cloud = plan.cloud,
        server_type = plan.placement[0],
        location = plan.placement[1],
        pool_size = plan.room[0],
        max_servers = plan.room[1],
        boot_deadline = plan.boot_deadline.as_secs(),
    )
}
