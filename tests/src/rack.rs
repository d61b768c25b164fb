//! A Tidepool of one's own whose servers are machines of the real image: coordinator and proxy on this
//! machine, which is the main server, and a switch in between.
//!
//! The gateway is the stub, in place of the image's container; everything else is as it was built. Needs root
//! and an image (`TIDEPOOL_IMAGE`, which `./tidepool test` builds), and fails without.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use nix::unistd::geteuid;
use rand::Rng as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidepool_coordinator::cloud::nspawn::{NspawnCloud, NspawnSettings, switch::Switch, unpack};
use tidepool_shared::database_url;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{api::Api, deployment::free_port, evidence, programs};

mod server;

pub use self::server::{Server, servers};

/// How long programs and machines may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// Where nginx listens on the machines.
pub const SERVER_PORT: u16 = 8080;

const GATEWAY: &str = "usr/local/lib/tidepool/stub-gateway";
const MANIFEST: &str = "usr/share/tidepool/manifest.json";

/// A rack. Dropping it ends and removes everything in it.
#[derive(Debug)]
pub struct Rack {
    name: String,
    dir: TempDir,
    settings: NspawnSettings,
    ports: [u16; 3],
    coordinator: Option<Child>,
    _proxy: Child,
    pub api: Api,
}

/// What answers on the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Gateway {
    /// What is in the image
    Own,
    /// The stub, in its place
    Stub,
}

impl Rack {
    /// Puts one up, with `pool_size` servers in the making; `name` names its kept logs.
    pub async fn start(name: &str, pool_size: u32) -> anyhow::Result<Self> {
        Self::of(&image()?, name, pool_size, Gateway::Stub).await
    }

    /// The same of this image.
    pub async fn of(
        image: &Path,
        name: &str,
        pool_size: u32,
        gateway: Gateway,
    ) -> anyhow::Result<Self> {
        let (dir, settings) = place(image, name)?;
        let (_, root) = unpack(&settings).await.context("unpack the image")?;
        match gateway {
            Gateway::Own => {}
            Gateway::Stub => dress(&root)?,
        }
        // Before the proxy, which listens on this machine's end of it.
        Switch::put_up(&settings)
            .await
            .context("put up the switch")?;
        let ports = [free_port()?, free_port()?, free_port()?];
        let main = dir.path().join("main");
        fs::create_dir(&main)?;
        let text = configuration(&main, &settings, ports, &root, pool_size);
        fs::write(main.join("tidepool.toml"), text)?;
        let token = token(&main).await?;
        let mut rack = Self {
            name: name.to_owned(),
            coordinator: None,
            _proxy: proxy(&main, &settings, ports[2])?,
            api: Api::new(&format!("http://127.0.0.1:{}", ports[0]), &token)?,
            dir,
            settings,
            ports,
        };
        rack.up().await?;
        Ok(rack)
    }

    async fn up(&mut self) -> anyhow::Result<()> {
        let log = fs::File::create(self.main_dir().join("coordinator.log"))?;
        let child = Command::new(programs::program("tidepool")?)
            .args(["serve", "--config"])
            .arg(self.main_dir().join("tidepool.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start the coordinator")?;
        let child = self.coordinator.insert(child);
        let deadline = Instant::now() + PATIENCE;
        while !self.api.is_up().await {
            if child.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.main_dir().join("coordinator.log"))?;
                bail!("the coordinator did not come up: {log}");
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// What the cloud of this rack is made of.
    pub fn settings(&self) -> &NspawnSettings {
        &self.settings
    }

    /// The port of the edge on this machine.
    pub fn edge_port(&self) -> u16 {
        self.ports[1]
    }

    /// Waits until so many servers are warm.
    pub async fn warm(&self, servers: u64) -> anyhow::Result<()> {
        let warm = |pool: &Value| {
            let warm = pool.pointer("/pools/0/warm").and_then(Value::as_u64);
            warm.unwrap_or_default() >= servers
        };
        let waited = self.api.until("/pool", PATIENCE, warm).await;
        waited.map(drop).with_context(|| self.journals())
    }

    /// All servers, in the order of their names.
    pub fn servers(&self) -> anyhow::Result<Vec<Server>> {
        servers(&self.settings.directory)
    }

    /// The only server.
    pub fn server(&self) -> anyhow::Result<Server> {
        let mut all = self.servers()?;
        ensure!(all.len() == 1, "{} servers", all.len());
        all.pop().context("the only server")
    }

    /// A host on the switch that is nobody's; the name of its namespace. `number` is above 200.
    pub async fn stranger(&self, number: u8) -> anyhow::Result<String> {
        let switch = Switch::put_up(&self.settings).await?;
        Ok(switch.plug(number).await?)
    }

    /// The logs of this machine and of the servers; the image itself holds nothing of anybody's.
    fn keep_evidence(&self) {
        evidence::collect(&self.main_dir(), &self.name);
        for server in self.servers().unwrap_or_default() {
            let own = self.main_dir().join(&server.name);
            let disk = server.dir.join("disk/upper");
            let user_data = fs::read(server.dir.join("user-data.json")).unwrap_or_default();
            let user_data: Value = serde_json::from_slice(&user_data).unwrap_or_default();
            evidence::note_secret(user_data["enrolment_token"].as_str().unwrap_or_default());
            let journal = std::process::Command::new("journalctl")
                .args(["--output=cat", "--no-pager", "--directory"])
                .arg(disk.join("var/log/journal"))
                .output();
            if fs::create_dir_all(&own).is_ok()
                && let Ok(journal) = journal
            {
                drop(fs::write(own.join("journal.log"), journal.stdout));
            }
            let kept = format!("{}/{}", self.name, server.name);
            evidence::collect(&own, &kept);
            evidence::collect(&disk.join("var/lib/tidepool"), &kept);
        }
    }

    /// Where everything of this machine's is: the main server.
    fn main_dir(&self) -> PathBuf {
        self.dir.path().join("main")
    }

    fn journals(&self) -> String {
        let servers = self.servers().unwrap_or_default();
        let ends = servers.iter().map(|server| {
            let console = fs::read_to_string(server.dir.join("console.log")).unwrap_or_default();
            let from = console.len().saturating_sub(2000);
            console.get(from..).unwrap_or_default().to_owned()
        });
        ends.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        // The coordinator first, so that it boots nothing again.
        if let Some(child) = &mut self.coordinator {
            drop(child.start_kill());
        }
        self.keep_evidence();
        tear_down(&self.settings);
    }
}

/// Ends and removes a cloud's machines, from wherever.
pub fn tear_down(settings: &NspawnSettings) {
    let settings = settings.clone();
    let work = move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let cloud = NspawnCloud::open(settings.clone()).await?;
            for number in 201..=253 {
                let switch = Switch::put_up(&settings).await?;
                switch.unplug(number).await?;
            }
            cloud.tear_down().await?;
            Ok(())
        })
    };
    // A runtime cannot be begun inside another one's thread.
    let ended = std::thread::spawn(work).join();
    if !matches!(ended, Ok(Ok(()))) {
        tracing::error!(?ended, "machines of a test are left");
    }
}

/// The image that this run has.
pub fn image() -> anyhow::Result<PathBuf> {
    std::env::var_os("TIDEPOOL_IMAGE")
        .map(PathBuf::from)
        .context("no image: run the tests by `./tidepool test`, which builds one (TIDEPOOL_IMAGE)")
}

/// A place for a cloud of machines, in memory, with a network of its own.
pub fn place(image: &Path, name: &str) -> anyhow::Result<(TempDir, NspawnSettings)> {
    ensure!(geteuid().is_root(), "machines need root");
    let dir = tempfile::Builder::new()
        .prefix(&format!("tidepool-{name}-"))
        .tempdir_in("/dev/shm")?;
    let [a, b]: [u8; 2] = rand::rng().random();
    let settings = NspawnSettings {
        directory: dir.path().join("cloud"),
        image: image.to_owned(),
        network: format!("10.{}.{b}", a | 128),
        edge_port: SERVER_PORT,
    };
    fs::create_dir(&settings.directory)?;
    Ok((dir, settings))
}

/// Puts the stub in the place of the image's gateway.
fn dress(root: &Path) -> anyhow::Result<()> {
    let gateway = root.join(GATEWAY);
    fs::create_dir_all(gateway.parent().context("a folder")?)?;
    fs::copy(programs::program("stub-gateway")?, &gateway)?;
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stub-schema.json");
    fs::copy(schema, root.join("usr/share/tidepool/config-schema.json"))?;
    let path = root.join(MANIFEST);
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let fields = manifest.as_object_mut().context("a manifest")?;
    fields.remove("container");
    fields.insert(
        "gateway".to_owned(),
        json!([format!("/{GATEWAY}"), "gateway"]),
    );
    fs::write(&path, serde_json::to_vec_pretty(&manifest)?)?;
    Ok(())
}

fn proxy(dir: &Path, settings: &NspawnSettings, port: u16) -> anyhow::Result<Child> {
    Command::new(programs::program("tidepool-proxy")?)
        .args(["--listen", &format!("{}:{port}", settings.main())])
        .arg("--journal")
        .arg(dir.join("usage"))
        .env(database_url::VARIABLE, database(dir))
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

fn database(dir: &Path) -> String {
    format!("sqlite:{}", dir.join("tidepool.db").display())
}

fn configuration(
    dir: &Path,
    settings: &NspawnSettings,
    [api, edge, proxy]: [u16; 3],
    root: &Path,
    pool_size: u32,
) -> String {
    // On the switch nobody else listens.
    let (main, link) = (IpAddr::V4(settings.main()), 7718);
    // The image's own, seen from here.
    let manifest = dir.join("manifest.json");
    let text = fs::read_to_string(root.join(MANIFEST)).unwrap_or_default();
    let seen = text.replace("/usr/share", &root.join("usr/share").display().to_string());
    fs::write(&manifest, seen).expect("a temporary directory can be written");
    format!(
        r#"state_dir = "{state}"
database_url = "{database}"
manifest = "{manifest}"
proxy_url = "http://{main}:{proxy}"
deletion_grace_s = 0
api = {{ listen = "127.0.0.1:{api}" }}
link = {{ listen = "{main}:{link}", coordinators = ["{main}:{link}"], reconnect_spread_s = 1 }}

[edge]
listen = "127.0.0.1:{edge}"
domain = "rack.localhost"
scheme = "http"
port = {edge}
server_port = {SERVER_PORT}
trusted_hops = ["127.0.0.1"]

[cloud.nspawn]
directory = "{directory}"
image = "{image}"
network = "{network}"
edge_port = {SERVER_PORT}

[[pool]]
tier = "basic"
region = "here"
placements = [{{ server_type = "machine", location = "here" }}]
floor = {pool_size}
most_idle = {pool_size}
max_servers = {pool_size}
creating_at_once = 2
boot_deadline_s = 120
address_rest_s = 0
"#,
        state = dir.join("state").display(),
        database = database(dir),
        manifest = manifest.display(),
        directory = settings.directory.display(),
        image = settings.image.display(),
        network = settings.network,
    )
}
