//! One machine: an overlay over the image, and systemd-nspawn that boots it.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::Signal,
};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use super::{run::run, switch::Switch};
use crate::process::ProcessMark;

/// For an orderly power-off: services have 25 s, and a little more is theirs.
const SHUT_DOWN_DEADLINE: Duration = Duration::from_mins(1);

/// For a kernel to take a killed process away.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(20);

/// What is bound into a machine for itself, as Docker cannot keep its layers on an overlay.
const DOCKER: &str = "var/lib/docker";

/// A server's machine, on or off.
#[derive(Debug)]
pub struct Machine {
    dir: PathBuf,
    name: String,
    number: u8,
}

impl Machine {
    /// The machine of a server's directory; `number` is its place at the switch.
    pub fn new(dir: PathBuf, name: String, number: u8) -> Self {
        Self { dir, name, number }
    }

    /// Whether it is on.
    pub fn is_running(&self) -> bool {
        self.nspawn().is_some()
    }

    /// The first process of the machine, as this one numbers it.
    pub fn leader(&self) -> Option<u32> {
        let pid = self.nspawn()?.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// A command that runs inside, as root; `None` while it is off.
    pub fn command(&self, program: &str) -> Option<Command> {
        let leader = self.leader()?.to_string();
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target", &leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
            ])
            .args(["--root", "--wd=/", "--", program])
            // What is set here (DOCKER_HOST, say) is not the machine's business.
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Some(command)
    }

    /// Switches it on. `root` is the unpacked image.
    pub(super) async fn boot(&self, root: &Path, switch: &Switch) -> io::Result<()> {
        let namespace = switch.plug(self.number).await?;
        let own = self.mounted(root).await?;
        let layers = self.docker(root)?;
        let console = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.dir.join("console.log"))?;
        // A session of its own: Ctrl-C is for the coordinator alone.
        let mut command = Command::new("setsid");
        command
            .args([
                "systemd-nspawn",
                "--quiet",
                "--register=no",
                "--keep-unit",
                "--boot",
            ])
            .args([
                "--resolv-conf=off",
                "--link-journal=no",
                "--capability=all",
                "--console=pipe",
            ])
            .arg("--system-call-filter=@keyring bpf")
            .arg(format!("--directory={}", own.display()))
            .arg(format!("--machine={}", self.name))
            .arg(format!("--network-namespace-path=/run/netns/{namespace}"))
            .arg(format!(
                "--bind={}:/{DOCKER}",
                self.dir.join("docker").display()
            ))
            .args(layers.iter().map(|layer| {
                let inside = layer.strip_prefix(root).unwrap_or(layer);
                format!("--bind-ro={}:/{}", layer.display(), inside.display())
            }))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .kill_on_drop(false);
        let child = command.spawn()?;
        let mark = child.id().and_then(ProcessMark::of);
        mark.ok_or(io::ErrorKind::NotFound)?
            .write(&self.dir.join("machine.pid"))
    }

    /// Powers off in order, by force after a while.
    pub(super) async fn shut_down(&self) -> io::Result<()> {
        let Some(nspawn) = self.nspawn() else {
            return Ok(());
        };
        nspawn.signal(Signal::SIGTERM);
        if !gone(nspawn, SHUT_DOWN_DEADLINE).await {
            tracing::warn!(
                server.name = self.name,
                "not off in time, cutting its power"
            );
        }
        self.cut_power().await
    }

    /// Everything in it is dead at once; what was not written is lost.
    pub(super) async fn cut_power(&self) -> io::Result<()> {
        let Some(nspawn) = self.nspawn() else {
            return Ok(());
        };
        if let Some(leader) = self.leader().and_then(ProcessMark::of) {
            leader.signal(Signal::SIGKILL);
        }
        if gone(nspawn, KILL_DEADLINE).await {
            return Ok(());
        }
        nspawn.signal(Signal::SIGKILL);
        if gone(nspawn, KILL_DEADLINE).await {
            return Ok(());
        }
        Err(io::Error::other("a machine does not end by SIGKILL"))
    }

    /// Takes cable and disk away from a machine that is off.
    pub(super) async fn unplug(&self, switch: &Switch) -> io::Result<()> {
        switch.unplug(self.number).await?;
        self.unmount()
    }

    fn nspawn(&self) -> Option<ProcessMark> {
        ProcessMark::read(&self.dir.join("machine.pid")).filter(|mark| mark.is_alive())
    }

    /// Its root: the image below, what it has written above.
    async fn mounted(&self, root: &Path) -> io::Result<PathBuf> {
        let disk = self.dir.join("disk");
        let own = disk.join("root");
        // A mount that is left over is of a boot before this one.
        self.unmount()?;
        for part in ["upper", "work", "root"] {
            fs::create_dir_all(disk.join(part))?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            root.display(),
            disk.join("upper").display(),
            disk.join("work").display()
        );
        let target = own.display().to_string();
        run(
            "mount",
            &["-t", "overlay", "overlay", "-o", &options, &target],
        )
        .await?;
        Ok(own)
    }

    fn unmount(&self) -> io::Result<()> {
        let own = self.dir.join("disk/root");
        loop {
            match umount2(&own, MntFlags::MNT_DETACH) {
                Ok(()) => {}
                // Nothing is mounted there, or there is no such place.
                Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Its own Docker directory, with the image's layers in it by reference: those that are to be bound.
    fn docker(&self, root: &Path) -> io::Result<Vec<PathBuf>> {
        let (from, to) = (root.join(DOCKER), self.dir.join("docker"));
        let layers = layers(&from)?;
        if !to.exists() {
            let partial = self.dir.join("docker.partial");
            if partial.exists() {
                fs::remove_dir_all(&partial)?;
            }
            fs::create_dir_all(&partial)?;
            if from.is_dir() {
                copy(&from, &partial, &layers)?;
            }
            fs::rename(&partial, &to)?;
        }
        Ok(layers)
    }
}

/// What is large and never written to: the layers of images, and the volumes that came with the image.
fn layers(docker: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (all, content) in [("overlay2", "diff"), ("volumes", "_data")] {
        let all = docker.join(all);
        if !all.is_dir() {
            continue;
        }
        for entry in fs::read_dir(all)? {
            let content = entry?.path().join(content);
            // `l` has short names of layers, and no layer; beside volumes lies a list of them.
            if content.is_dir() {
                found.push(content);
            }
        }
    }
    Ok(found)
}

/// Copies a tree with its modes and links; of the directories in `bare` only themselves.
fn copy(from: &Path, to: &Path, bare: &[PathBuf]) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        let kind = fs::symlink_metadata(&path)?;
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path)?, &target)?;
        } else if kind.is_dir() {
            fs::create_dir(&target)?;
            fs::set_permissions(&target, kind.permissions())?;
            if !bare.contains(&path) {
                copy(&path, &target, bare)?;
            }
        } else if kind.is_file() {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

async fn gone(process: ProcessMark, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while process.is_alive() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(POLL).await;
    }
    true
}
