//! A whole Tidepool of one's own: the real programs in a temporary directory, on free ports.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::Rng as _;
use tempfile::TempDir;
use tidepool_shared::manifest::ContainerManifest;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{api::Api, evidence, programs, release::Releases};

/// How long the programs may take to start or stop on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// How a deployment is started.
#[derive(Debug, Clone)]
pub struct Options {
    pub pool_size: u32,
    pub max_servers: u32,
    pub starting_at_once: u32,
    /// The image; the stub when `None`.
    pub manifest: Option<PathBuf>,
    /// Switches of the stub, `NAME=value`.
    pub stub: Vec<String>,
    /// What the stub's container is made from; a process when `None`.
    pub container: Option<ContainerManifest>,
    /// Further versions of the stub, with their switches, which servers can fetch.
    pub releases: Vec<(String, Vec<String>)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pool_size: 2,
            max_servers: 64,
            starting_at_once: 8,
            manifest: None,
            stub: Vec::new(),
            container: None,
            releases: Vec::new(),
        }
    }
}

/// A running deployment. Dropping it kills everything it started.
#[derive(Debug)]
pub struct Deployment {
    name: String,
    dir: TempDir,
    options: Options,
    manifest: PathBuf,
    /// Of API and edge; the same after every start, as a person's are.
    ports: [u16; 2],
    coordinator: Option<Child>,
}

impl Deployment {
    /// Starts one; `name` names its kept logs.
    pub async fn start(name: &str, options: Options) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidepool-").tempdir()?;
        let manifest = if let Some(manifest) = &options.manifest {
            manifest.clone()
        } else {
            let container = options.container.clone();
            programs::stub_image(dir.path(), &options.stub, container)?
        };
        let mut deployment = Self {
            name: name.to_owned(),
            dir,
            options,
            manifest,
            ports: [free_port()?, free_port()?],
            coordinator: None,
        };
        if deployment.options.releases.is_empty() {
            deployment.up().await?;
            return Ok(deployment);
        }
        let desk = Releases::new(&deployment.dir.path().join("releases")).await?;
        desk.trusted_in(&deployment.manifest)?;
        deployment.up().await?;
        for (version, switches) in &deployment.options.releases {
            let file = desk.stub(version, switches).await?;
            let file = file.to_str().context("a name")?;
            let added = deployment.tidepool(&["artefact", "add", file]).await?;
            ensure!(added.status.success(), "{added:?}");
        }
        Ok(deployment)
    }

    /// Starts `tidepool up` and waits until its API answers.
    pub async fn up(&mut self) -> anyhow::Result<()> {
        let output = fs::File::create(self.dir.path().join("up.out"))?;
        let child = Command::new(programs::program("tidepool")?)
            .arg("up")
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--manifest")
            .arg(&self.manifest)
            .args(["--api-port", &self.ports[0].to_string()])
            .args(["--edge-port", &self.ports[1].to_string()])
            .args(["--pool-size", &self.options.pool_size.to_string()])
            .args(["--max-servers", &self.options.max_servers.to_string()])
            .args([
                "--starting-at-once",
                &self.options.starting_at_once.to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(false)
            .spawn()
            .context("start `tidepool up`")?;
        self.coordinator = Some(child);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(api) = self.api()
                && api.is_up().await
            {
                return Ok(());
            }
            let child = self.coordinator.as_mut().context("started above")?;
            if child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("`tidepool up` did not come up: {}", self.output());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("var")
    }

    /// What `up` printed.
    pub fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("up.out")).unwrap_or_default()
    }

    /// A client of this deployment's API.
    pub fn api(&self) -> anyhow::Result<Api> {
        Api::from_file(&self.data_dir().join("client.json"))
    }

    /// The command line, pointed at this deployment.
    pub async fn tidepool(&self, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
        Command::new(programs::program("tidepool")?)
            .args(arguments)
            .arg("--data-dir")
            .arg(self.data_dir())
            .stdin(Stdio::null())
            .output()
            .await
            .context("run `tidepool`")
    }

    /// The coordinator dies without a word; servers go on.
    pub async fn kill_coordinator(&mut self) -> anyhow::Result<()> {
        let mut child = self.coordinator.take().context("the coordinator runs")?;
        child.kill().await.context("kill the coordinator")
    }

    /// Ctrl-C, and the wait for its end.
    pub async fn stop(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        self.stop_by(Signal::SIGINT).await
    }

    /// A signal that ends it, and the wait for its end.
    pub async fn stop_by(&mut self, signal: Signal) -> anyhow::Result<std::process::ExitStatus> {
        let mut child = self.coordinator.take().context("the coordinator runs")?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .context("it has a pid")?;
        kill(Pid::from_raw(pid), signal).context("signal the coordinator")?;
        timeout(PATIENCE, child.wait())
            .await
            .context("the coordinator did not stop")?
            .map_err(Into::into)
    }

    /// The directories of this deployment's servers.
    pub fn servers(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.data_dir().join("servers")) else {
            return Vec::new();
        };
        entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|dir| dir.is_dir())
            .collect()
    }

    /// Ids of the processes that have this deployment's directory on their command line, in their
    /// environment or as their working directory.
    pub fn processes(&self) -> Vec<i32> {
        processes_of(self.dir.path())
    }

    /// Those of [`Self::processes`] whose program has this name.
    pub fn programs(&self, name: &str) -> BTreeSet<i32> {
        let is = |pid: &i32| {
            fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| exe.file_name().is_some_and(|file| file == name))
        };
        self.processes().into_iter().filter(is).collect()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // Everything is killed, the coordinator first so that it restarts nothing.
        if let Some(child) = &mut self.coordinator {
            drop(child.start_kill());
        }
        end_processes_of(self.dir.path());
        evidence::collect(self.dir.path(), &self.name);
    }
}

/// Kills the processes that have this directory on their command line, in their environment or as
/// their working directory, and those that these start meanwhile.
pub(crate) fn end_processes_of(dir: &Path) {
    for _ in 0..50 {
        let left = processes_of(dir);
        if left.is_empty() {
            break;
        }
        for pid in left {
            // It may have ended meanwhile, which is as good.
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that is free now: below the range that the kernel hands out to clients, and above the last
/// one that browsers refuse (10080).
pub fn free_port() -> anyhow::Result<u16> {
    std::iter::repeat_with(|| rand::rng().random_range(11_000..20_000))
        .take(1000)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free port")
}

/// Ids of the processes that have this directory on their command line, in their environment or as
/// their working directory.
pub(crate) fn processes_of(dir: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let wanted = dir.as_os_str().as_encoded_bytes();
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid).is_ok_and(|pid| pid != std::process::id()))
        .filter(|pid| {
            let here = |bytes: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            here(&command) || here(&environment) || cwd.starts_with(dir)
        })
        .collect()
}
