//! The local cloud: servers that are directories and processes on this machine.
//!
//! Each has a loopback address of its own and runs the real agent, which runs the real nginx and
//! OpenClaw. What a real cloud and its systemd do for a server is done here by [`LocalCloud::supervise`]:
//! an agent that died is started again. Servers outlive the coordinator, as in a real cloud: only
//! [`LocalCloud::power_off`] stops them, and a new coordinator finds them by their directories.
//!
//! ```text
//! servers/NAME/server.json      what the cloud knows of it
//! servers/NAME/user-data.json   what its agent is told (0600)
//! servers/NAME/agent.pid        process id and start time of its agent, as noted when it was started
//! servers/NAME/agent.log        the agent's log
//! servers/NAME/state/           the agent's own directory: the server's disk
//! servers/NAME/state/agent.lock the same as agent.pid, by the agent itself: a coordinator can die
//!                               between starting an agent and noting it
//! ```

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use tidepool_certs::secret_file;
use tidepool_shared::{database_url, manifest::ImageManifest};
use tokio::{
    process::{Child, Command},
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Cloud, CloudError, CloudImage, CloudObject, CloudServer, Fault, Labels, ObjectKind, Order, disk,
};
use crate::process::ProcessMark;

#[cfg(test)]
mod tests;

/// How often dead agents are looked for.
const SUPERVISION_INTERVAL: Duration = Duration::from_millis(500);

/// An agent that dies again is not started before this long after its last start.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// How long an agent may take to stop its gateway and nginx and itself.
const POWER_OFF_DEADLINE: Duration = Duration::from_secs(30);

/// What the local cloud needs to know.
#[derive(Debug, Clone)]
pub struct LocalSettings {
    /// Where servers live.
    pub directory: PathBuf,
    /// The agent's program.
    pub agent: PathBuf,
    /// The image that servers are made from.
    pub manifest: PathBuf,
    /// What the image is called: servers of another one are replaced.
    pub image: String,
    /// The first three octets of the servers' addresses, within 127.0.0.0/8.
    pub network: [u8; 3],
    /// Where nginx listens on each server.
    pub http_port: u16,
    /// How many consecutive ports of 127.0.0.1, which all local servers share, a gateway takes.
    pub gateway_ports: u16,
}

/// Gateways' ports come from here: below the range that the kernel hands out to clients.
const GATEWAY_PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Free ports are looked for at this many random places before giving up.
const PORT_TRIES: usize = 1000;

/// A local server's own record.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ServerRecord {
    name: String,
    address: Ipv4Addr,
    /// The first of the gateway's ports.
    gateway_port: u16,
    /// Servers of before images had names have none.
    #[serde(default)]
    image: Option<String>,
    /// What its owner wants; records of before there was a choice are of servers that are on.
    #[serde(default)]
    power: Power,
}

/// Whether a server is to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Power {
    #[default]
    On,
    Off,
}

impl ServerRecord {
    fn seen(&self) -> CloudServer {
        CloudServer {
            image: self.image.clone(),
            id: self.name.clone(),
            name: self.name.clone(),
            address: IpAddr::V4(self.address),
        }
    }
}

/// An agent that was started by this process.
#[derive(Debug)]
struct Started {
    child: Child,
    at: Instant,
}

/// The local cloud. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalCloud {
    settings: Arc<LocalSettings>,
    /// Agents of ours, to be reaped; also the lock under which servers come and go.
    started: Arc<Mutex<HashMap<String, Started>>>,
}

impl LocalCloud {
    /// Opens the cloud in its directory. Starts nothing.
    pub fn open(settings: LocalSettings) -> io::Result<Self> {
        secret_file::create_dir(&settings.directory)?;
        Ok(Self {
            settings: Arc::new(settings),
            started: Arc::default(),
        })
    }

    /// Starts every server that is to run and whose agent does not; returns the names of those that were off.
    pub async fn power_on(&self) -> io::Result<Vec<String>> {
        let mut started = self.started.lock().await;
        let mut were_off = Vec::new();
        for record in disk::servers::<ServerRecord>(&self.settings.directory)? {
            if record.power == Power::On && !self.is_running(&record.name) {
                self.start(&mut started, &record)?;
                were_off.push(record.name);
            }
        }
        Ok(were_off)
    }

    /// Restarts agents that died, until cancelled.
    pub async fn supervise(&self, cancel: CancellationToken) {
        while cancel
            .run_until_cancelled(sleep(SUPERVISION_INTERVAL))
            .await
            .is_some()
        {
            if let Err(error) = self.restart_dead().await {
                tracing::error!(%error, "local servers could not be supervised");
            }
        }
    }

    async fn restart_dead(&self) -> io::Result<()> {
        let mut started = self.started.lock().await;
        for record in disk::servers::<ServerRecord>(&self.settings.directory)? {
            if record.power == Power::Off || self.is_running(&record.name) {
                reap(&mut started, &record.name);
                continue;
            }
            let recently = started
                .get(&record.name)
                .is_some_and(|agent| agent.at.elapsed() < RESTART_PAUSE);
            if !recently {
                tracing::warn!(server.name = %record.name, "agent is not running, starting it");
                self.start(&mut started, &record)?;
            }
        }
        Ok(())
    }

    /// Stops every server, all at once; their disks stay. Supervision must have ended. One that cannot be
    /// stopped keeps no other running.
    pub async fn power_off(&self) -> io::Result<()> {
        let servers = disk::servers::<ServerRecord>(&self.settings.directory)?;
        let halted = join_all(servers.iter().map(|record| self.halt(record))).await;
        self.started.lock().await.clear();
        let mut failed = Vec::new();
        for (record, halted) in servers.iter().zip(halted) {
            if let Err(error) = halted {
                tracing::error!(server.name = %record.name, %error, "a server was not stopped");
                failed.push(record.name.as_str());
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "not stopped: {}",
            failed.join(", ")
        )))
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.settings.directory.join(name)
    }

    /// The living agents of a server: one, but for the moment in which a second finds the lock held.
    fn agents(&self, name: &str) -> Vec<ProcessMark> {
        ["agent.pid", "state/agent.lock"]
            .iter()
            .filter_map(|file| ProcessMark::read(&self.dir(name).join(file)))
            .filter(|mark| mark.is_alive())
            .collect()
    }

    fn is_running(&self, name: &str) -> bool {
        !self.agents(name).is_empty()
    }

    fn start(
        &self,
        started: &mut HashMap<String, Started>,
        record: &ServerRecord,
    ) -> io::Result<()> {
        reap(started, &record.name);
        let dir = self.dir(&record.name);
        let log = disk::open_log(&dir.join("agent.log"))?;
        let child = self.agent_command("run", record).stderr(log).spawn()?;
        if let Some(mark) = child.id().and_then(ProcessMark::of) {
            mark.write(&dir.join("agent.pid"))?;
        }
        started.insert(
            record.name.clone(),
            Started {
                child,
                at: Instant::now(),
            },
        );
        Ok(())
    }

    fn agent_command(&self, verb: &str, record: &ServerRecord) -> Command {
        let dir = self.dir(&record.name);
        let mut command = Command::new(&self.settings.agent);
        command
            .arg(verb)
            // The database is for this program and the proxy; a server never gets near it.
            .env_remove(database_url::VARIABLE)
            .arg("--state-dir")
            .arg(dir.join("state"))
            .arg("--user-data")
            .arg(dir.join("user-data.json"))
            .arg("--manifest")
            .arg(&self.settings.manifest)
            .args(["--address", &record.address.to_string()])
            .args(["--http-port", &self.settings.http_port.to_string()])
            .args(["--gateway-port", &record.gateway_port.to_string()])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Out of the terminal's process group: Ctrl-C is for the coordinator alone.
            .process_group(0)
            .kill_on_drop(false);
        command
    }

    /// Ends a server's agent, and through it all that the agent runs; then makes sure of it.
    async fn halt(&self, record: &ServerRecord) -> io::Result<()> {
        let deadline = Instant::now() + POWER_OFF_DEADLINE;
        let name = &record.name;
        let agents = self.agents(name);
        for agent in &agents {
            agent.signal(Signal::SIGTERM);
        }
        while agents.iter().any(|agent| agent.is_alive()) && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        for agent in agents.iter().filter(|agent| agent.is_alive()) {
            tracing::warn!(server.name = %name, "agent did not stop in time, killing it");
            agent.signal(Signal::SIGKILL);
        }
        // An agent that was killed, now or before, left its gateway and nginx running.
        let mut cleaner = self
            .agent_command("stop-all", record)
            .stderr(Stdio::null())
            .spawn()?;
        match timeout(POWER_OFF_DEADLINE, cleaner.wait()).await {
            Ok(status) => drop(status?),
            Err(_) => cleaner.kill().await?,
        }
        Ok(())
    }

    fn free_address(&self, others: &[ServerRecord]) -> io::Result<Ipv4Addr> {
        let [a, b, c] = self.settings.network;
        (1..=254)
            .map(|host| Ipv4Addr::new(a, b, c, host))
            .filter(|address| others.iter().all(|other| other.address != *address))
            .find(|address| is_free(*address, self.settings.http_port))
            .ok_or_else(|| io::Error::other("all 254 addresses of the local network are taken"))
    }

    /// Ports that no server of this cloud has and nobody else uses now. At random, so that two local
    /// clouds that look at the same moment do not find the same.
    fn free_gateway_port(&self, others: &[ServerRecord]) -> io::Result<u16> {
        let width = self.settings.gateway_ports.max(1);
        let apart = |a: u16, b: u16| a.abs_diff(b) >= width;
        std::iter::repeat_with(|| rand::rng().random_range(GATEWAY_PORTS))
            .take(PORT_TRIES)
            .filter(|port| others.iter().all(|other| apart(other.gateway_port, *port)))
            .find(|port| {
                (*port..port.saturating_add(width)).all(|p| is_free(Ipv4Addr::LOCALHOST, p))
            })
            .ok_or_else(|| io::Error::other("no free ports for one more gateway on this machine"))
    }

    async fn make(&self, order: &Order) -> io::Result<CloudServer> {
        let user_data = serde_json::to_vec(&order.user_data).map_err(io::Error::other)?;
        let mut started = self.started.lock().await;
        if let Some(record) = disk::server::<ServerRecord>(&self.dir(&order.name))? {
            return Ok(record.seen());
        }
        let record = self.write_server(&order.name, &user_data, Power::On)?;
        self.start(&mut started, &record)?;
        Ok(record.seen())
    }

    /// Makes a server that is off, for who wants to decide when it boots. Its user data is the
    /// agent's to understand.
    pub async fn reserve(&self, name: &str, user_data: &[u8]) -> io::Result<CloudServer> {
        let _coming_and_going = self.started.lock().await;
        if let Some(record) = disk::server::<ServerRecord>(&self.dir(name))? {
            return Ok(record.seen());
        }
        let record = self.write_server(name, user_data, Power::Off)?;
        Ok(record.seen())
    }

    /// Boots one server, from now on kept running by [`LocalCloud::supervise`].
    pub async fn boot(&self, name: &str) -> io::Result<()> {
        let mut started = self.started.lock().await;
        let record = self.switch(name, Power::On)?;
        if self.is_running(name) {
            return Ok(());
        }
        self.start(&mut started, &record)
    }

    /// Stops one server; its disk stays, and it is not started again before [`LocalCloud::boot`].
    pub async fn shut_down(&self, name: &str) -> io::Result<()> {
        let record = {
            let _coming_and_going = self.started.lock().await;
            self.switch(name, Power::Off)?
        };
        self.halt(&record).await?;
        reap(&mut *self.started.lock().await, name);
        Ok(())
    }

    fn switch(&self, name: &str, power: Power) -> io::Result<ServerRecord> {
        let dir = self.dir(name);
        let record: ServerRecord = disk::server(&dir)?.ok_or(io::ErrorKind::NotFound)?;
        let record = ServerRecord { power, ..record };
        disk::write_record(&dir, &record)?;
        Ok(record)
    }

    /// Writes the directory of a new server. Under the lock, so that no two get the same address.
    fn write_server(&self, name: &str, user_data: &[u8], power: Power) -> io::Result<ServerRecord> {
        let dir = self.dir(name);
        let others = disk::servers::<ServerRecord>(&self.settings.directory)?;
        let record = ServerRecord {
            name: name.to_owned(),
            address: self.free_address(&others)?,
            gateway_port: self.free_gateway_port(&others)?,
            image: Some(self.settings.image.clone()),
            power,
        };
        secret_file::create_dir(&dir)?;
        secret_file::write(&dir.join("user-data.json"), user_data)?;
        // The record is what makes the directory a server, so it is written last.
        disk::write_record(&dir, &record)?;
        Ok(record)
    }

    async fn unmake(&self, name: &str) -> io::Result<()> {
        let dir = self.dir(name);
        let record = {
            let mut started = self.started.lock().await;
            // First it is marked, so that nothing starts its agent again, now or after a crash here.
            let record: Option<ServerRecord> = disk::condemn(&dir)?;
            started.remove(name);
            record
        };
        // Without a record nothing was ever started in it, but there may be a directory, with a token: a
        // crash came between the two, or in the middle of its removal.
        if let Some(record) = record {
            self.halt(&record).await?;
        }
        disk::remove(&dir).await
    }
}

fn is_free(address: Ipv4Addr, port: u16) -> bool {
    std::net::TcpListener::bind(SocketAddr::from((address, port))).is_ok()
}

/// Collects an agent of ours that ended, so that it does not stay as a zombie.
fn reap(started: &mut HashMap<String, Started>, name: &str) {
    if let Some(agent) = started.get_mut(name)
        && let Ok(Some(status)) = agent.child.try_wait()
    {
        tracing::debug!(server.name = name, %status, "agent ended");
    }
}

#[async_trait]
impl Cloud for LocalCloud {
    async fn create(&self, order: &Order) -> Result<CloudServer, CloudError> {
        self.make(order)
            .await
            .map_err(|source| failed("create", &order.name, source))
    }

    /// A local server's agent is started by its creation.
    async fn settle(&self, _name: &str) -> Result<(), CloudError> {
        Ok(())
    }

    async fn find(&self, name: &str) -> Result<Option<CloudServer>, CloudError> {
        disk::server::<ServerRecord>(&self.dir(name))
            .map(|record| record.map(|record| record.seen()))
            .map_err(|source| failed("find", name, source))
    }

    /// It is made by this process or not at all.
    fn latest_appearance(&self) -> Duration {
        Duration::ZERO
    }

    async fn image(&self, _server_type: &str) -> Result<Option<String>, CloudError> {
        Ok(Some(self.settings.image.clone()))
    }

    async fn images(&self) -> Result<Vec<CloudImage>, CloudError> {
        let image = self.only_image();
        image
            .map(|image| vec![image])
            .map_err(|source| failed("list", "images", source))
    }

    async fn fits(&self, image: &str, _server_type: &str) -> Result<bool, CloudError> {
        Ok(image == self.settings.image)
    }

    /// There is one, which every server is made from.
    async fn promote(&self, image: &str) -> Result<(), CloudError> {
        if image == self.settings.image {
            return Ok(());
        }
        let absent = io::Error::from(io::ErrorKind::NotFound);
        Err(failed("promote", image, absent))
    }

    async fn delete(&self, name: &str) -> Result<(), CloudError> {
        self.unmake(name)
            .await
            .map_err(|source| failed("delete", name, source))
    }

    async fn inventory(&self) -> Result<Vec<CloudObject>, CloudError> {
        disk::servers::<ServerRecord>(&self.settings.directory)
            .and_then(|records| records.iter().map(|record| self.object(record)).collect())
            .map_err(|source| failed("list", "servers", source))
    }

    async fn remove(&self, object: &CloudObject) -> Result<(), CloudError> {
        self.delete(&object.name).await
    }
}

impl LocalCloud {
    /// What this machine has installed.
    fn only_image(&self) -> io::Result<CloudImage> {
        let path = &self.settings.manifest;
        let manifest: ImageManifest = serde_json::from_slice(&fs::read(path)?)?;
        Ok(CloudImage {
            id: self.settings.image.clone(),
            created_at: disk::modified(&fs::metadata(path)?)?,
            size_bytes: None,
            agent_version: manifest.build.map(|build| build.agent_version),
            openclaw_version: Some(manifest.openclaw_version),
            is_promoted: true,
        })
    }

    fn object(&self, record: &ServerRecord) -> io::Result<CloudObject> {
        let made = disk::made_at(&self.dir(&record.name))?;
        Ok(CloudObject {
            kind: ObjectKind::Server,
            id: record.name.clone(),
            name: record.name.clone(),
            labels: Labels::new(),
            created_at: made,
            in_use: false,
        })
    }
}

fn failed(doing: &'static str, object: &str, source: io::Error) -> CloudError {
    CloudError {
        doing,
        object: object.to_owned(),
        fault: Fault::Busy,
        source: source.into(),
    }
}
