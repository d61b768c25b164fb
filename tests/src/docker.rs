//! A Docker Engine of one's own: its own socket, images and containers, gone with the test.
//!
//! It needs root. It changes no rule of the machine's firewall, so that several live beside each other
//! and beside the machine's own; containers reach the machine and are reached by the published ports,
//! and the internet is not there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;
use tidepool_shared::manifest::PinnedImage;
use tokio::time::{Instant, sleep};

use crate::programs;

/// For the daemon to answer on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// What a program may need beside the libraries that it names.
const SHELL: &str = "/bin/dash";

/// A running Docker Engine. Dropping it ends every container of its.
#[derive(Debug)]
pub struct Engine {
    dir: TempDir,
    daemon: Child,
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
            .tempdir()?;
        let at = |name: &str| dir.path().join(name);
        fs::write(at("daemon.json"), "{}")?;
        let log = fs::File::create(at("dockerd.log"))?;
        // The kernel ends it if this test is killed, and it ends its containers.
        let daemon = Command::new("setpriv")
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
            .context("start dockerd")?;
        let mut engine = Self { dir, daemon };
        engine.until_it_answers().await?;
        Ok(Some(engine))
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

    /// An image with the stub gateway and a shell, at the paths that they have here.
    pub fn stub_image(&self) -> anyhow::Result<PinnedImage> {
        let root = self.dir.path().join("stub-image");
        for directory in ["bin", "tmp", "home/node", "var/log"] {
            fs::create_dir_all(root.join(directory))?;
        }
        let stub = root.join("stub-gateway");
        let program = programs::program("stub-gateway")?;
        // Its line tables are twenty times its code.
        run(Command::new("strip").arg("-o").arg(&stub).arg(&program))?;
        fs::copy(SHELL, root.join("bin/sh"))?;
        for file in [program.as_path(), Path::new(SHELL)] {
            for library in libraries(file)? {
                let inside = root.join(library.strip_prefix("/")?);
                fs::create_dir_all(inside.parent().context("a library lies in a directory")?)?;
                fs::copy(&library, inside)?;
            }
        }
        let archive = self.dir.path().join("stub-image.tar");
        run(Command::new("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&root)
            .arg("."))?;
        self.import(&archive)
    }

    /// Makes an image from an archive of a root file system.
    pub fn import(&self, archive: &Path) -> anyhow::Result<PinnedImage> {
        let archive = archive.to_str().context("a path in UTF-8")?;
        Ok(self.docker(&["import", archive])?.try_into()?)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
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
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.daemon.id()).unwrap_or(0));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        drop(self.daemon.wait());
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

/// What the dynamic linker loads for this program, itself included.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = run(Command::new("ldd").arg(program))?;
    let paths = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}
