//! A Tidepool of one's own whose servers are machines of the real image: coordinator and proxy on this
//! machine, which is the main server, and a switch in between.
//!
//! The gateway is the stub, in place of the image's container; everything else is as it was built. Needs root
//! and an image (`TIDEPOOL_IMAGE`, which `./tidepool test` builds), and fails without.

use std::{
    fs,
    net::Ipv4Addr,
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
use tokio::process::Command;

use crate::{
    api::Api, deployment::processes_of, doors::Doors, evidence, inside::World, programs,
    release::Releases,
};

pub mod main_server;
mod server;

use self::main_server::{MainServer, Plan};
pub use self::server::{Server, servers};

/// How long programs and machines may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// Where nginx listens on the machines.
pub const SERVER_PORT: u16 = 8080;

/// An address of the world's, for documentation (RFC 5737): in nobody's private network.
const WORLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

const GATEWAY: &str = "usr/local/lib/tidepool/stub-gateway";
const MANIFEST: &str = "usr/share/tidepool/manifest.json";

/// A rack. Dropping it ends and removes everything in it; [`Rack::end`] also says whether anything is left.
#[derive(Debug)]
pub struct Rack {
    name: String,
    has_ended: bool,
    dir: TempDir,
    settings: NspawnSettings,
    pub main: MainServer,
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
        Self::with_room(image, name, [pool_size, pool_size], gateway).await
    }

    /// The same, with so many idle servers and so many in all.
    pub async fn with_room(
        image: &Path,
        name: &str,
        room: [u32; 2],
        gateway: Gateway,
    ) -> anyhow::Result<Self> {
        let (dir, settings) = place(image, name)?;
        let (_, root) = unpack(&settings).await.context("unpack the image")?;
        match gateway {
            Gateway::Own => {}
            Gateway::Stub => dress(&root)?,
        }
        Self::put_up((dir, settings), &root, name, room).await
    }

    /// One with the stub whose servers take what these releases' key has signed.
    pub async fn trusting(releases: &Releases, name: &str, pool_size: u32) -> anyhow::Result<Self> {
        let place = place(&image()?, name)?;
        let (_, root) = unpack(&place.1).await.context("unpack the image")?;
        dress(&root)?;
        releases.trusted_in(&root.join(MANIFEST))?;
        Self::put_up(place, &root, name, [pool_size, pool_size]).await
    }

    async fn put_up(
        (dir, settings): (TempDir, NspawnSettings),
        root: &Path,
        name: &str,
        room: [u32; 2],
    ) -> anyhow::Result<Self> {
        // Before the proxy, which listens on this machine's end of it.
        Switch::put_up(&settings)
            .await
            .context("put up the switch")?;
        let manifest = manifest_seen(dir.path(), root)?;
        let main = MainServer::start(&Plan {
            dir: dir.path().join("main"),
            address: settings.main(),
            manifest: &manifest,
            cloud: cloud(&settings),
            placement: ["machine", "here"],
            room,
            boot_deadline: PATIENCE,
        })
        .await;
        let main = match main {
            Ok(main) => main,
            Err(error) => {
                told(tear_down(&settings));
                return Err(error);
            }
        };
        Ok(Self {
            name: name.to_owned(),
            api: main.api.clone(),
            main,
            has_ended: false,
            dir,
            settings,
        })
    }

    /// Ends and removes everything in it; an error if any of it is left. The last thing of every test.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let stopped = self.main.stop().await;
        self.keep_evidence();
        tear_down(&self.settings)?;
        self.has_ended = true;
        stopped?;
        let dir = self.dir.path();
        fs::remove_dir_all(dir).with_context(|| format!("remove `{}`", dir.display()))
    }

    /// Puts a signed file where the servers fetch it.
    pub async fn add_artefact(&self, file: &Path) -> anyhow::Result<()> {
        let added = Command::new(programs::program("tidepool")?)
            .args(["artefact", "add"])
            .arg(file)
            .arg("--config")
            .arg(self.configuration())
            .stdin(Stdio::null())
            .output()
            .await?;
        ensure!(added.status.success(), "{added:?}");
        Ok(())
    }

    /// What the cloud of this rack is made of.
    pub fn settings(&self) -> &NspawnSettings {
        &self.settings
    }

    /// The port of the edge on this machine.
    pub fn edge_port(&self) -> u16 {
        self.main.edge_port()
    }

    /// What its edge and its servers show each other.
    pub fn doors(&self) -> anyhow::Result<Doors> {
        Doors::of(&self.main.dir().join("state"))
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

    /// A host out in the world, to which the switch leads as a provider's router does.
    pub async fn world(&self) -> anyhow::Result<World> {
        let host = self.stranger(250).await?;
        let space = Switch::put_up(&self.settings).await?.namespace();
        let at_switch = self.settings.address(250);
        for command in [
            format!("ip -n {host} addr add {WORLD}/32 dev eth0"),
            format!("ip -n {space} route add {WORLD}/32 via {at_switch}"),
            format!("ip netns exec {space} sysctl -q -w net.ipv4.ip_forward=1"),
        ] {
            let mut words = command.split(' ');
            let mut program = Command::new(words.next().unwrap_or_default());
            ensure!(program.args(words).status().await?.success(), "{command}");
        }
        World::listen(&host, WORLD)
    }

    /// The logs of this machine and of the servers; the image itself holds nothing of anybody's.
    fn keep_evidence(&self) {
        evidence::collect(self.main.dir(), &self.name);
        for server in self.servers().unwrap_or_default() {
            let own = self.main.dir().join(&server.name);
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

    /// The coordinator's configuration.
    pub fn configuration(&self) -> PathBuf {
        self.main.dir().join("tidepool.toml")
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
        if self.has_ended {
            return;
        }
        // First, so that nothing is booted again.
        self.main.kill();
        self.keep_evidence();
        told(tear_down(&self.settings));
    }
}

/// Where there is nobody to fail any more.
fn told(torn_down: anyhow::Result<()>) {
    if let Err(error) = torn_down {
        eprintln!("{error:#}");
    }
}

/// Ends and removes a cloud's machines, from wherever; an error if any of it is left. Nobody else may be at work there
/// any more.
pub fn tear_down(settings: &NspawnSettings) -> anyhow::Result<()> {
    let of_thread = settings.clone();
    let work = move || -> anyhow::Result<()> {
        let settings = of_thread;
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
    ended
        .unwrap_or_else(|_| bail!("it panicked"))
        .context("tear machines down")?;
    nothing_is_left(settings)
}

/// Neither files nor mounts, nor processes outside of a machine, which end with it, nor networks.
fn nothing_is_left(settings: &NspawnSettings) -> anyhow::Result<()> {
    let directory = settings.directory.display().to_string();
    ensure!(!settings.directory.exists(), "`{directory}` is left");
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    ensure!(!mounts.contains(&directory), "mounts are left: {mounts}");
    let processes = processes_of(&settings.directory);
    ensure!(processes.is_empty(), "processes are left: {processes:?}");
    let networks = fs::read_dir("/run/netns")?;
    let prefix = settings.prefix();
    for network in networks {
        let name = network?.file_name();
        let name = name.to_string_lossy();
        ensure!(!name.starts_with(&prefix), "network `{name}` is left");
    }
    Ok(())
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

/// The image's manifest, with its files as this machine sees them.
fn manifest_seen(dir: &Path, root: &Path) -> anyhow::Result<PathBuf> {
    let text = fs::read_to_string(root.join(MANIFEST))?;
    let seen = text.replace("/usr/share", &root.join("usr/share").display().to_string());
    let path = dir.join("manifest.json");
    fs::write(&path, seen)?;
    Ok(path)
}

fn cloud(settings: &NspawnSettings) -> String {
    format!(
        r#"[cloud.nspawn]
directory = "{}"
image = "{}"
network = "{}"
edge_port = {SERVER_PORT}
"#,
        settings.directory.display(),
        settings.image.display(),
        settings.network,
    )
}
