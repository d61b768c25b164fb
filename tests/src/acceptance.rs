//! `./tidepool acceptance`: the image as whole machines, in QEMU, from the first boot to the deletion.
//!
//! Here is what machines of systemd-nspawn cannot show: Debian's own kernel with AppArmor and control groups of
//! version 2, cloud-init's first boot as on Hetzner (its metadata, its DHCP with a router on no network of the
//! server's), a disk that grows, a power button. The provider is the fake of Hetzner's API, whose servers are
//! these machines; the main server is this one. The gateway is the stub, in a container that is made and judged as
//! OpenClaw's is: a real one does not come up on an emulated processor, and one of its own is seldom lent.
//!
//! Everything is in one directory in memory and in namespaces named by it, so that one run at a time is possible
//! and the next one removes what a killed one left. Processes end with this one, however it ends.

use std::{
    fs,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use nix::unistd::geteuid;
use tidepool_coordinator::{
    cloud::nspawn::NspawnSettings,
    image::{self, Built, OpenClaw, Recipe},
};
use tokio::{
    process::Command,
    time::{Instant, timeout},
};

mod container;
mod disk;
mod machines;
mod network;
mod packer;
mod scenario;
mod vm;

use self::{disk::Disk, machines::Vms, network::Network};
use crate::{
    evidence,
    fake_hetzner::{FakeHetzner, NewSnapshot, Settings},
    programs,
    rack::{
        SERVER_PORT,
        main_server::{MainServer, Plan},
    },
};

/// One for all runs: see above.
const DIRECTORY: &str = "/dev/shm/tidepool-acceptance";
/// Addresses that the world has (RFC 5737).
const NETWORK: &str = "198.51.100";
/// For a server on an emulated processor of a busy machine, from its creation until it is warm.
const BOOT_DEADLINE: Duration = Duration::from_mins(45);
/// For one program of others. Packer, the longest, took eight minutes on a machine with six times the work it can do.
const PROGRAM_DEADLINE: Duration = Duration::from_mins(45);
/// How often a step that goes on is told of.
const WORD: Duration = Duration::from_secs(30);

/// How to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where images and disks are kept
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// The repository's `snapshot-image`
    #[arg(long, value_name = "DIR", default_value = "snapshot-image")]
    scripts: PathBuf,
}

/// Whose processor a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    /// An emulated one, ten times slower.
    Tcg,
}

impl Accelerator {
    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

/// What is told while it goes on: a step, and when.
pub struct Steps<'a> {
    began: Instant,
    say: &'a (dyn Fn(&str) + Sync),
}

impl Steps<'_> {
    fn tell(&self, text: &str) {
        (self.say)(&format!("{:4} s  {text}", self.began.elapsed().as_secs()));
    }

    /// Does one thing that has a name.
    async fn step<T>(
        &self,
        name: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let began = Instant::now();
        let mut work = pin!(work);
        let done = loop {
            // Between two words of its own.
            let Ok(done) = timeout(WORD, &mut work).await else {
                self.tell(&format!("{name} ... ({} s)", began.elapsed().as_secs()));
                continue;
            };
            break done.with_context(|| name.to_owned())?;
        };
        self.tell(&format!("{name} ({} s)", began.elapsed().as_secs()));
        Ok(done)
    }
}

/// What a run is made of.
struct Ground {
    network: Arc<Network>,
    vms: Arc<Vms>,
    fake: FakeHetzner,
    main: MainServer,
}

/// Runs until the end, or until `interrupted`; what failed is in the error. Nothing is left in either case.
pub async fn run(
    options: &Options,
    say: &(dyn Fn(&str) + Sync),
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    ensure!(geteuid().is_root(), "whole machines need root");
    fs::create_dir_all(DIRECTORY)?;
    let lock = fs::File::create("/dev/shm/tidepool-acceptance.lock")?;
    lock.try_lock().context("another run is under way")?;
    let steps = Steps {
        began: Instant::now(),
        say,
    };
    clear().await.context("remove what an earlier run left")?;
    let ran = tokio::select! {
        ran = whole(options, &steps) => ran,
        () = interrupted => Err(anyhow::anyhow!("interrupted")),
    };
    let cleared = clear().await.context("clean up");
    ran.and(cleared)
}

async fn whole(options: &Options, steps: &Steps<'_>) -> anyhow::Result<()> {
    let scripts = options.scripts.canonicalize()?;
    let (disk, built) = prepare(options, &scripts, steps).await?;
    let accelerator = if vm::can_lend(&disk).await {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    };
    steps.tell(match accelerator {
        Accelerator::Kvm => "this machine lends its processor (KVM)",
        Accelerator::Tcg => "this machine does not lend its processor: emulated ones (TCG)",
    });
    let ground = Ground::lay(&disk, &built, accelerator).await?;
    let ran = scenario::run(&ground, steps).await;
    let words = match &ran {
        Ok(()) => String::new(),
        Err(_) => ground.last_words(),
    };
    let ended = ground.end().await;
    ran.with_context(|| words)?;
    ended?;
    let provisioning = packer::provision(&scripts, Path::new(DIRECTORY));
    steps
        .step("the image's scripts, run by Packer", provisioning)
        .await
}

/// The image, by the one recipe, and its disk; what is there already is found again.
async fn prepare(
    options: &Options,
    scripts: &Path,
    steps: &Steps<'_>,
) -> anyhow::Result<(Disk, Built)> {
    let work = Path::new(DIRECTORY);
    let directory = options.cache.join("images-debug");
    fs::create_dir_all(&directory)?;
    let recipe = Recipe {
        scripts: scripts.to_owned(),
        agent: programs::program("tidepool-agent")?,
        openclaw: OpenClaw::Archive(container::archive(work).await?),
        release_keys: Vec::new(),
        directory,
    };
    // The build tells its own time.
    let mut tell = |line: &str| steps.tell(line.split_once(" s  ").map_or(line, |(_, told)| told));
    let building = async { Ok(image::build(&recipe, &mut tell).await?) };
    let built = steps.step("the image", building).await?;
    let kept = options.cache.join("acceptance");
    let disk = steps
        .step("its disk", Disk::of(&built, scripts, &kept, work))
        .await?;
    Ok((disk, built))
}

impl Ground {
    async fn lay(disk: &Disk, built: &Built, accelerator: Accelerator) -> anyhow::Result<Self> {
        let dir = Path::new(DIRECTORY);
        let vms = Arc::new(Vms::new(dir.join("machines"), disk.clone(), accelerator));
        let fake_settings = Settings::quick().with_room("cx23", "nbg1", 9);
        let fake = FakeHetzner::start_with(fake_settings, vms.clone()).await?;
        fake.add_snapshot(NewSnapshot {
            labels: [("role", "tidepool-image"), ("promoted", "true")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..NewSnapshot::default()
        })?;
        let teller = fake.teller();
        let told = move |address: &str, path: &str| teller.tell(address, path);
        let network = Arc::new(Network::put_up(settings(), dir, told).await?);
        vms.plug_into(network.clone());
        let manifest = dir.join("manifest.json");
        let mut seen = built.manifest.clone();
        seen.config_schema =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stub-schema.json");
        fs::write(&manifest, serde_json::to_vec_pretty(&seen)?)?;
        let token_file = dir.join("token");
        fs::write(&token_file, fake.token())?;
        let main = MainServer::start(&Plan {
            dir: dir.join("main"),
            address: network.address(1),
            manifest: &manifest,
            cloud: format!(
                r#"[cloud.hetzner]
endpoint = "{}"
token_file = "{}"
env = "acceptance"
admitted = ["{}/32"]
edge_port = {SERVER_PORT}
"#,
                fake.url(),
                token_file.display(),
                network.address(1)
            ),
            placement: ["cx23", "nbg1"],
            room: [1, 2],
            boot_deadline: BOOT_DEADLINE,
        })
        .await?;
        Ok(Self {
            network,
            vms,
            fake,
            main,
        })
    }

    fn last_words(&self) -> String {
        let consoles = self.vms.all().into_iter().map(|vm| vm.last_words());
        consoles.collect::<Vec<_>>().join("\n")
    }

    /// Ends all of it; an error if the provider ever answered what its schemas do not allow.
    async fn end(mut self) -> anyhow::Result<()> {
        self.main.kill_coordinator();
        evidence::collect(self.main.dir(), "acceptance");
        let ended = self.fake.end().await;
        self.network.take_down().await?;
        Ok(ended?)
    }
}

fn settings() -> NspawnSettings {
    NspawnSettings {
        directory: DIRECTORY.into(),
        image: PathBuf::new(),
        network: NETWORK.to_owned(),
        edge_port: SERVER_PORT,
    }
}

/// Removes everything of a run that there may be.
async fn clear() -> anyhow::Result<()> {
    network::take_down(&settings()).await?;
    if Path::new(DIRECTORY).exists() {
        fs::remove_dir_all(DIRECTORY)?;
    }
    fs::create_dir(DIRECTORY)?;
    Ok(())
}

/// Makes the archive of the gateway's container in this directory, for other tests of an image; where it is.
pub async fn container(directory: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let work = tempfile::tempdir_in(directory)?;
    let made = container::archive(work.path()).await?;
    let kept = directory.join("stub-container.tar.zst");
    fs::rename(made, &kept)?;
    Ok(kept)
}

/// Runs a program to its end; what it said is in the error.
async fn execute(command: &mut Command) -> anyhow::Result<()> {
    let running = command
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PROGRAM_DEADLINE, running).await;
    let name = || format!("run `{}`", command.as_std().get_program().display());
    let output = output.with_context(name)?.with_context(name)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let from = said.len().saturating_sub(3000);
    bail!(
        "{:?}: {}\n{}",
        command.as_std(),
        output.status,
        said.get(from..).unwrap_or_default()
    )
}
