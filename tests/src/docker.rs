//! A Docker Engine of one's own: its own socket, images and containers, gone with the test.
//!
//! It needs root. It changes no rule of the machine's firewall, so that several live beside each other
//! and beside the machine's own; containers reach the machine and are reached by the published ports,
//! and the internet is not there.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tidepool_shared::manifest::{ContainerManifest, PinnedImage};
use tokio::time::{Instant, sleep};

use crate::programs;

/// For the daemon to answer on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// For the real OpenClaw's image, as it is unpacked and as it is used.
const ROOM_BYTES: u64 = 3 << 30;
/// Enough for the real one: its first turn takes 1.3 GB.
pub const MEMORY_MIB: u32 = 2048;
/// A shell, for the image of the stub.
const SHELL: &str = "/bin/dash";
/// What every container of Debian's has, and programs that are put into it rely on.
const C_LIBRARY: [&str; 5] = [
    "libdl.so.2",
    "libm.so.6",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
];

/// A running Docker Engine. Dropping it ends every container of its.
#[derive(Debug)]
pub struct Engine {
    dir: TempDir,
    daemon: Child,
}

/// Whether the daemon is to hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hang {
    Begin,
    End,
}

impl Engine {
    /// Starts one; `None`, with a loud word, where there cannot be one.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/usr/sbin/dockerd").is_file() {
            eprintln!("SKIPPED: no Docker was tried (it needs root and Debian's docker.io)");
            return Ok(None);
        }
        let dir = tempfile::Builder::new()
            .prefix("tidepool-docker-")
            .tempdir_in(home())?;
        let daemon = start_daemon(dir.path())?;
        let mut engine = Self { dir, daemon };
        engine.until_it_answers().await?;
        Ok(Some(engine))
    }

    /// Lets the daemon answer nobody any more, or again; its containers run on.
    pub fn hang(&self, hang: Hang) {
        let signal = match hang {
            Hang::Begin => Signal::SIGSTOP,
            Hang::End => Signal::SIGCONT,
        };
        self.signal(signal);
    }

    fn signal(&self, signal: Signal) {
        let daemon = i32::try_from(self.daemon.id()).expect("a pid is an i32");
        // It may have ended, which the wait for it tells.
        kill(Pid::from_raw(daemon), signal).ok();
    }

    async fn until_it_answers(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.docker(&["version"]).is_err() {
            let ended = self.daemon.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(self.dir.path().join("dockerd.log"))?;
                bail!("dockerd does not answer ({ended:?}): {said}");
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Runs Docker's own command line and answers what it printed.
    pub fn docker(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments).output().context("run docker")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "docker {arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .env_remove("DOCKER_HOST")
            .arg("--host")
            .arg(host(&self.socket()))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// An image with the stub gateway and a shell; another one each time, for its time is in it.
    pub fn stub_image(&self) -> anyhow::Result<PinnedImage> {
        let root = self.dir.path().join("stub-image");
        stub_root(&root, &[(SHELL, "bin/sh")])?;
        let archive = self.dir.path().join("stub-image.tar");
        run(Command::new("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&root)
            .arg("."))?;
        self.import(&archive)
    }

    /// Makes an image from an archive of a root file system, packed by zstd or not.
    pub fn import(&self, archive: &Path) -> anyhow::Result<PinnedImage> {
        let mut unpacker = Command::new("zstd")
            .args(["--decompress", "--stdout", "--quiet", "--force"])
            .arg(archive)
            .stdout(Stdio::piped())
            .spawn()
            .context("run zstd")?;
        let unpacked = unpacker.stdout.take().context("a pipe")?;
        let output = self.command(&["import", "-"]).stdin(unpacked).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            unpacker.wait()?.success() && output.status.success(),
            "docker import: {said}"
        );
        let image = String::from_utf8(output.stdout)?;
        Ok(image.trim().to_owned().try_into()?)
    }

    /// Makes a volume of a directory as it is.
    pub fn volume(&self, name: &str, of: &Path) -> anyhow::Result<()> {
        let device = format!("device={}", of.display());
        let options = ["--opt", "type=none", "--opt", "o=bind", "--opt", &device];
        self.docker(&[&["volume", "create"], &options[..], &[name]].concat())?;
        Ok(())
    }

    /// What a container of this image is made from on this Docker.
    pub fn manifest(&self, image: PinnedImage) -> ContainerManifest {
        ContainerManifest {
            image,
            socket: self.socket(),
            browsers: None,
            memory_mib: Some(MEMORY_MIB),
        }
    }

    /// Ids of the containers that bear a label of ours, running or not.
    pub fn ours(&self) -> anyhow::Result<Vec<String>> {
        let list = ["ps", "--all", "--quiet", "--no-trunc"];
        let listed = self.docker(&[&list[..], &["--filter", "label=tidepool.server"]].concat())?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// What Docker knows of a container, by one of its own templates.
    pub fn inspect(&self, container: &str, template: &str) -> anyhow::Result<String> {
        self.docker(&["inspect", "--format", template, container])
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.hang(Hang::End);
        // What cannot be removed now is told by the next assertion on this machine, not by this one.
        for (list, remove) in [
            (
                &["ps", "--all", "--quiet"][..],
                &["rm", "--force", "--volumes"][..],
            ),
            (
                &["network", "ls", "--quiet", "--filter", "type=custom"],
                &["network", "rm"],
            ),
        ] {
            let listed = self.docker(list).unwrap_or_default();
            let all: Vec<_> = remove
                .iter()
                .copied()
                .chain(listed.split_whitespace())
                .collect();
            if all.len() > remove.len()
                && let Err(error) = self.docker(&all)
            {
                eprintln!("left behind by Docker: {error:#}");
            }
        }
        self.signal(Signal::SIGTERM);
        drop(self.daemon.wait());
    }
}

/// Starts a daemon whose files are all in this directory.
fn start_daemon(dir: &Path) -> anyhow::Result<Child> {
    let at = |name: &str| dir.join(name);
    fs::write(at("daemon.json"), "{}")?;
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(at("dockerd.log"))?;
    // The kernel ends it if this test is killed, and it ends its containers.
    Command::new("setpriv")
        .args([
            "--pdeathsig",
            "TERM",
            "/usr/sbin/dockerd",
            "--log-level",
            "warn",
        ])
        .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
        .args(["--ip-masq=false", "--ip-forward=false", "--group=root"])
        .arg("--config-file")
        .arg(at("daemon.json"))
        .arg("--data-root")
        .arg(at("data"))
        .arg("--exec-root")
        .arg(at("exec"))
        .arg("--pidfile")
        .arg(at("pid"))
        .arg("--host")
        .arg(host(&at("docker.sock")))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start dockerd")
}

/// An image has 45,000 small files: minutes on a disk, seconds in memory.
fn home() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let room = nix::sys::statvfs::statvfs(memory);
    let is_roomy =
        room.is_ok_and(|room| room.blocks_available() * room.fragment_size() > ROOM_BYTES);
    if is_roomy {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

fn host(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Lays out a root file system with the stub gateway in it, and these programs of this machine, each where the
/// second path says.
pub fn stub_root(root: &Path, others: &[(&str, &str)]) -> anyhow::Result<()> {
    for directory in ["tmp", "home/node", "var/log"] {
        fs::create_dir_all(root.join(directory))?;
    }
    // What is mounted there in a container has the mode that the image's directory has.
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    let program = programs::program("stub-gateway")?;
    // Its line tables are twenty times its code.
    run(Command::new("strip")
        .arg("-o")
        .arg(root.join("stub-gateway"))
        .arg(&program))?;
    bring(root, &libraries(&program)?)?;
    for (program, at) in others {
        let inside = root.join(at);
        fs::create_dir_all(inside.parent().context("a program lies in a directory")?)?;
        fs::copy(program, inside)?;
        bring(root, &libraries(Path::new(program))?)?;
    }
    let folder = Path::new("/lib/x86_64-linux-gnu");
    bring(root, &C_LIBRARY.map(|library| folder.join(library)))
}

/// Copies libraries to where they are on this machine.
fn bring(root: &Path, libraries: &[PathBuf]) -> anyhow::Result<()> {
    for library in libraries {
        let inside = root.join(library.strip_prefix("/")?);
        fs::create_dir_all(inside.parent().context("a library lies in a directory")?)?;
        fs::copy(library, inside)?;
    }
    Ok(())
}

/// What the dynamic linker loads for this program, itself included.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = run(Command::new("ldd").arg(program))?;
    let paths = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}
