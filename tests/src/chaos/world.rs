//! The world of a chaos run, and of whatever else needs several coordinators: the fake cloud with real agents as its servers, a database, coordinators.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::Rng as _;
use tempfile::TempDir;
use tidepool_coordinator::{
    ambient::{Chance, Clock as _, SystemClock},
    api::auth,
    store::{self, throwaway::Throwaway},
};
use tidepool_shared::{
    database_url::{self, GivenUrl},
    manifest::ImageManifest,
};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{
    api::Api,
    deployment::{end_processes_of, free_port},
    evidence,
    fake_hetzner::{FakeHetzner, LocalMachines, LocalMachinesSettings, NewSnapshot, Settings},
    programs,
};

/// Something that ends TLS, on this machine.
#[derive(Debug, Clone)]
pub struct Front {
    pub https_port: u16,
    /// Traefik's routes are in this Redis, and its API is here.
    pub redis: Option<(String, String)>,
    /// The part of an edge's configuration about customers' own names.
    pub domains: Option<String>,
}

/// What servers run.
#[derive(Debug, Clone)]
pub enum Gateway {
    Stub,
    /// The OpenClaw of this manifest, on one server in all.
    Real(PathBuf),
}

/// How long a coordinator may take to answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// A coordinator that runs, or will again.
struct Coordinator {
    dir: PathBuf,
    api: Api,
    child: Option<Child>,
    /// When it comes back.
    back_at: Option<Instant>,
}

/// The world. Dropping it kills everything in it: coordinators first, so that they restart nothing.
pub struct World {
    coordinators: Vec<Coordinator>,
    pub fake: FakeHetzner,
    machines: Arc<LocalMachines>,
    /// Every warm-up asks it for one turn of the demo model.
    proxy: Option<Child>,
    proxy_port: u16,
    url: String,
    _leftovers: Leftovers,
    dir: TempDir,
    /// What will stand in front of the edge.
    front: Option<Front>,
    gateway: Gateway,
    /// Outlives the coordinators.
    _database: Option<Throwaway>,
}

impl World {
    /// Builds it; nothing runs yet but the cloud. Two coordinators if the database is shared.
    pub async fn start(database: Option<Throwaway>, seed: u64) -> anyhow::Result<Self> {
        Self::start_behind(None, database, seed).await
    }

    /// The same, where browsers come by https.
    pub async fn start_behind(
        front: Option<Front>,
        database: Option<Throwaway>,
        seed: u64,
    ) -> anyhow::Result<Self> {
        Self::start_with(Gateway::Stub, front, database, seed).await
    }

    /// The same with a gateway of one's choice.
    pub async fn start_with(
        gateway: Gateway,
        front: Option<Front>,
        database: Option<Throwaway>,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("tidepool-chaos-")
            .tempdir()?;
        let manifest = match &gateway {
            Gateway::Stub => programs::stub_image(dir.path(), &[], None)?,
            Gateway::Real(manifest) => manifest.clone(),
        };
        let image: ImageManifest = serde_json::from_slice(&fs::read(&manifest)?)?;
        let mut network = [127, 0, 0];
        rand::rng().fill(&mut network[1..]);
        let machines = Arc::new(LocalMachines::start(LocalMachinesSettings {
            directory: dir.path().join("machines"),
            agent: programs::program("tidepool-agent")?,
            manifest: manifest.clone(),
            image: "stub".to_owned(),
            network: [127, network[1] | 64, network[2]],
            http_port: SERVER_PORT,
            gateway_ports: image.gateway_ports,
        })?);
        let settings = Settings {
            seed,
            ..Settings::quick()
                .with_room("cx23", "nbg1", 1000)
                .with_room("cpx22", "fsn1", 1000)
        };
        let fake = FakeHetzner::start_with(settings, machines.clone()).await?;
        let url = match &database {
            Some(database) => database.url(),
            None => format!("sqlite:{}", dir.path().join("tidepool.db").display()),
        };
        let count = if database.is_some() { 2 } else { 1 };
        let mut world = Self {
            coordinators: Vec::new(),
            fake,
            machines,
            proxy: None,
            proxy_port: free_port()?,
            url,
            _leftovers: Leftovers(dir.path().to_owned()),
            dir,
            front,
            gateway,
            _database: database,
        };
        world.new_snapshot()?;
        world.configure(count, &manifest).await?;
        world.start_proxy()?;
        Ok(world)
    }

    fn start_proxy(&mut self) -> anyhow::Result<()> {
        let log = fs::File::create(self.dir.path().join("proxy.log"))?;
        let child = Command::new(programs::program("tidepool-proxy")?)
            .args(["--listen", &format!("127.0.0.1:{}", self.proxy_port)])
            .arg("--journal")
            .arg(self.dir.path().join("usage"))
            .env(database_url::VARIABLE, &self.url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start the proxy")?;
        self.proxy = Some(child);
        Ok(())
    }

    /// Writes the coordinators' files, and the token with which the run calls them.
    async fn configure(&mut self, count: usize, manifest: &Path) -> anyhow::Result<()> {
        let token = self.token().await?;
        fs::write(self.dir.path().join("cloud-token"), self.fake.token())?;
        let ports: Vec<[u16; 3]> = (0..count)
            .map(|_| Ok([free_port()?, free_port()?, free_port()?]))
            .collect::<anyhow::Result<_>>()?;
        for (number, [api, _, _]) in ports.iter().enumerate() {
            let dir = self.dir.path().join(format!("coordinator-{number}"));
            fs::create_dir(&dir)?;
            let config = configuration(self, &dir, manifest, &ports, number);
            fs::write(dir.join("tidepool.toml"), config)?;
            self.coordinators.push(Coordinator {
                api: Api::new(&format!("http://127.0.0.1:{api}"), &token)?,
                dir,
                child: None,
                back_at: None,
            });
        }
        Ok(())
    }

    /// The first coordinator's configuration.
    pub fn configuration(&self) -> PathBuf {
        self.dir.path().join("coordinator-0/tidepool.toml")
    }

    /// The first coordinator's own files.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("coordinator-0/state")
    }

    /// Of the coordinators' store.
    pub fn database_url(&self) -> &str {
        &self.url
    }

    /// Straight in the store, as `tidepool token create --config` does it.
    async fn token(&self) -> anyhow::Result<String> {
        let chance = Arc::new(Chance::from_os());
        let url = GivenUrl::from(self.url.as_str()).read()?;
        let store = store::open(&url, chance.clone()).await?;
        let (token, text) = auth::issue("chaos".to_owned(), None, SystemClock.now(), &chance);
        store.create_api_token(&token).await?;
        evidence::note_secret(&text);
        Ok(text)
    }

    /// Servers are made from a new one, and idle ones of before are replaced.
    pub fn new_snapshot(&self) -> anyhow::Result<()> {
        self.fake.add_snapshot(NewSnapshot {
            labels: [
                ("role", "tidepool-image"),
                ("promoted", "true"),
                ("managed-by", "tidepool"),
                ("env", ENV),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            ..NewSnapshot::default()
        })?;
        Ok(())
    }

    /// A coordinator's API, in turn; `None` when that one is away.
    pub fn api(&self, turn: usize) -> Option<&Api> {
        let coordinator = self
            .coordinators
            .get(turn % self.coordinators.len().max(1))?;
        coordinator.child.is_some().then_some(&coordinator.api)
    }

    /// kill -9; it comes back a while later.
    pub async fn kill_coordinator(&mut self, number: usize, away: Duration) -> anyhow::Result<()> {
        let number = number % self.coordinators.len().max(1);
        if let Some(coordinator) = self.coordinators.get_mut(number)
            && let Some(mut child) = coordinator.child.take()
        {
            child.kill().await.context("kill a coordinator")?;
            coordinator.back_at = Some(Instant::now() + away);
        }
        Ok(())
    }

    /// Starts those whose time away is over.
    pub async fn bring_back(&mut self) -> anyhow::Result<()> {
        for number in 0..self.coordinators.len() {
            let is_due = self.coordinators.get(number).is_some_and(|coordinator| {
                coordinator.back_at.is_some_and(|at| at <= Instant::now())
            });
            if is_due {
                self.up(number).await?;
            }
        }
        Ok(())
    }

    /// Starts all that do not run, and waits until they answer. The first makes the certificates that
    /// all have.
    pub async fn up_all(&mut self) -> anyhow::Result<()> {
        for number in 0..self.coordinators.len() {
            if self
                .coordinators
                .get(number)
                .is_some_and(|one| one.child.is_none())
            {
                self.up(number).await?;
            }
        }
        Ok(())
    }

    async fn up(&mut self, number: usize) -> anyhow::Result<()> {
        let first = self.state_dir();
        let url = self.url.clone();
        let coordinator = self
            .coordinators
            .get_mut(number)
            .context("no such coordinator")?;
        let state = coordinator.dir.join("state");
        if number > 0 && !state.exists() {
            copy(&first, &state)?;
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(coordinator.dir.join("coordinator.log"))?;
        let child = Command::new(programs::program("tidepool")?)
            .args(["serve", "--config"])
            .arg(coordinator.dir.join("tidepool.toml"))
            .env(database_url::VARIABLE, url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start a coordinator")?;
        coordinator.back_at = None;
        let mut child = child;
        let deadline = Instant::now() + PATIENCE;
        while !coordinator.api.is_up().await {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "coordinator {number} ended: {status}\n{}",
                    tail(&coordinator.dir)
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "coordinator {number} does not answer\n{}",
                    tail(&coordinator.dir)
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
        coordinator.child = Some(child);
        Ok(())
    }

    /// kill -9 of one of the machines' programs.
    pub fn kill(&self, program: &str, number: usize) {
        let running: Vec<_> = self.programs(program).into_iter().collect();
        if let Some(pid) = running.get(number % running.len().max(1)) {
            // It may have ended by itself meanwhile.
            kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
        }
    }

    /// Running programs of this name on the cloud's machines.
    pub fn programs(&self, name: &str) -> BTreeSet<i32> {
        let is = |pid: &i32| {
            fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| exe.file_name().is_some_and(|file| file == name))
        };
        self.machines.processes().into_iter().filter(is).collect()
    }

    /// What the agent of a server holds, as text; `None` if it holds nothing.
    pub fn ledger(&self, server: &str) -> Option<String> {
        let books = self.fake.books();
        let entry = books.entries.iter().find(|entry| entry.name == server)?;
        let id = crate::fake_hetzner::ServerId(entry.id);
        let ledger = self
            .machines
            .directory(id)
            .join("state/ledger/document.ledger");
        fs::read(ledger)
            .ok()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The ends of the coordinators' logs.
    pub fn logs(&self) -> String {
        let logs = self
            .coordinators
            .iter()
            .map(|coordinator| tail(&coordinator.dir));
        logs.collect::<Vec<_>>().join("\n")
    }

    /// Ends everything in order; an error if the cloud gave an answer that no cloud would give.
    pub async fn end(mut self) -> anyhow::Result<()> {
        for coordinator in &mut self.coordinators {
            if let Some(child) = coordinator.child.take() {
                stop(child).await?;
            }
        }
        if let Some(proxy) = self.proxy.take() {
            stop(proxy).await?;
        }
        evidence::collect(self.dir.path(), "chaos");
        self.fake.end().await?;
        Ok(())
    }
}

async fn stop(mut child: Child) -> anyhow::Result<()> {
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .context("it has a pid")?;
    kill(Pid::from_raw(pid), Signal::SIGTERM).context("stop a program")?;
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    let status = ended.context("a program did not stop")??;
    anyhow::ensure!(status.success(), "a program ended badly: {status}");
    Ok(())
}

fn tail(dir: &Path) -> String {
    let log = fs::read_to_string(dir.join("coordinator.log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    let from = lines.len().saturating_sub(30);
    lines.get(from..).unwrap_or_default().join("\n")
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

const ENV: &str = "chaos";

/// Where nginx listens on the machines.
const SERVER_PORT: u16 = 8080;

fn configuration(
    world: &World,
    dir: &Path,
    manifest: &Path,
    ports: &[[u16; 3]],
    own: usize,
) -> String {
    let [api, link, edge] = ports.get(own).copied().unwrap_or_default();
    let coordinators: Vec<_> = ports
        .iter()
        .map(|[_, link, _]| format!("\"127.0.0.1:{link}\""))
        .collect();
    let front = match &world.front {
        Some(front) => {
            let port = front.https_port;
            format!(
                r#"scheme = "https", port = {port}, trusted_hops = ["127.0.0.1"]{}"#,
                routes(front)
            )
        }
        None => format!(r#"scheme = "http", port = {edge}"#),
    };
    let (idle, most_idle, servers, boot_s) = match world.gateway {
        Gateway::Stub => (2, 3, 40, 30),
        Gateway::Real(_) => (1, 1, 1, 300),
    };
    format!(
        r#"state_dir = "{state}"
manifest = "{manifest}"
proxy_url = "http://127.0.0.1:{proxy}"
deletion_grace_s = 3600
api = {{ listen = "127.0.0.1:{api}", advertise = "http://127.0.0.1:{api}" }}
link = {{ listen = "127.0.0.1:{link}", coordinators = [{coordinators}], reconnect_spread_s = 1 }}
edge = {{ listen = "127.0.0.1:{edge}", domain = "chaos.localhost", {front}, server_port = {SERVER_PORT} }}
sweep = {{ interval_s = 3, minimum_age_s = 40, most_removals = 5 }}

[cloud.hetzner]
endpoint = "{endpoint}"
token_file = "{token}"
env = "{ENV}"
admitted = ["192.0.2.7/32"]
edge_port = {SERVER_PORT}
settle_deadline_s = 20

[[pool]]
tier = "basic"
region = "eu"
placements = [
    {{ server_type = "cx23", location = "nbg1" }},
    {{ server_type = "cpx22", location = "fsn1" }},
]
floor = {idle}
most_idle = {most_idle}
max_servers = {servers}
minimum_idle_s = 3
boot_deadline_s = {boot_s}
address_rest_s = 1
failure_pause_s = 1
halt_after = 1000
"#,
        state = dir.join("state").display(),
        manifest = manifest.display(),
        proxy = world.proxy_port,
        coordinators = coordinators.join(", "),
        endpoint = world.fake.url(),
        token = world.dir.path().join("cloud-token").display(),
    )
}

fn routes(front: &Front) -> String {
    let redis = front
        .redis
        .as_ref()
        .map(|(url, traefik)| format!(r#", redis = {{ url = "{url}", traefik = ["{traefik}"] }}"#));
    let domains = front.domains.as_ref();
    let domains = domains.map(|domains| format!(", {domains}"));
    redis.unwrap_or_default() + &domains.unwrap_or_default()
}

/// Ends what a failed run leaves in a directory.
struct Leftovers(PathBuf);

impl Drop for Leftovers {
    fn drop(&mut self) {
        end_processes_of(&self.0);
    }
}
