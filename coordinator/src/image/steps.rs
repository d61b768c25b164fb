//! The steps from nothing to an image, each a program of others.
//!
//! The provisioning script runs in systemd-nspawn, not booted: whatever it starts ends with it, and no mount
//! of it stays behind. Its root is a directory of its own beside the image, removed at the end, also of a
//! build that failed; what all programs printed is in `build.log`.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::sys::statvfs::statvfs;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::{Instant, timeout},
};

use super::{BuildFailed, MANIFEST, OpenClaw, Recipe, read};

const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";

/// For one step; a slow mirror takes minutes.
const STEP_DEADLINE: Duration = Duration::from_mins(30);

/// A build takes so much at its largest.
const WORKSHOP_BYTES: u64 = 6 << 30;

/// How long a bare Debian is good for.
const KEPT_FOR: Duration = Duration::from_hours(7 * 24);

/// Where the scripts and the agent are while the image is made, in its own eyes.
const INSIDE: &str = "/run/tidepool-build";

/// Lines of the log that an error quotes.
const QUOTED_LINES: usize = 15;

/// Why a step did not end well.
#[derive(Debug, thiserror::Error)]
pub enum StepFailed {
    #[error("prepare `{path}`")]
    Prepare {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("run `{program}`")]
    Run {
        program: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{step}: not done after {} min", STEP_DEADLINE.as_secs() / 60)]
    TooSlow { step: &'static str },
    #[error("{step}: {status}\n{said}")]
    Failed {
        step: &'static str,
        status: std::process::ExitStatus,
        /// The end of what it printed.
        said: String,
    },
}

/// A build under way; dropping it removes all but its log.
pub(super) struct Steps<'a> {
    recipe: &'a Recipe,
    name: &'a str,
    work: PathBuf,
    log: PathBuf,
    began: Instant,
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.work) {
            tracing::warn!(%error, path = %self.work.display(), "what a build left behind stays");
        }
    }
}

impl<'a> Steps<'a> {
    pub(super) fn begin(recipe: &'a Recipe, name: &'a str) -> Result<Self, StepFailed> {
        let work = workshop(&recipe.directory).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&work).map_err(|source| StepFailed::Prepare {
            path: work.clone(),
            source,
        })?;
        Ok(Self {
            recipe,
            name,
            work,
            log: recipe.directory.join("build.log"),
            began: Instant::now(),
        })
    }

    /// Does all of it; the manifest of the image that is then at `path`.
    pub(super) async fn run(
        &self,
        path: &Path,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Vec<u8>, BuildFailed> {
        File::create(&self.log).map_err(|source| StepFailed::Prepare {
            path: self.log.clone(),
            source,
        })?;
        self.debian(tell).await?;
        self.provision(tell).await?;
        for (step, script) in [("clean-up", "cleanup.sh"), ("verification", "verify.sh")] {
            let mut command = Command::new(self.recipe.scripts.join(script));
            command.arg(self.root());
            self.step(step, script, command, tell).await?;
        }
        let manifest = read(&self.root().join(MANIFEST))?;
        self.archive("packing", path, tell).await?;
        Ok(manifest)
    }

    fn root(&self) -> PathBuf {
        self.work.join("root")
    }

    /// A bare Debian, unpacked from one that was made lately. What came out since, provisioning installs.
    async fn debian(&self, tell: &mut dyn FnMut(&str)) -> Result<(), StepFailed> {
        let kept = self
            .recipe
            .directory
            .join(format!("debian-{SUITE}.tar.zst"));
        let failed = |source| StepFailed::Prepare {
            path: self.root(),
            source,
        };
        if is_fresh(&kept) {
            fs::create_dir(self.root()).map_err(failed)?;
            let mut command = Command::new("tar");
            command
                .args([
                    "--extract",
                    "--numeric-owner",
                    "--xattrs",
                    "--xattrs-include=*",
                ])
                .arg("--zstd")
                .arg("--file")
                .arg(&kept)
                .arg("--directory")
                .arg(self.root());
            return self
                .step("Debian, from a week ago or less", "tar", command, tell)
                .await;
        }
        self.debootstrap(tell).await?;
        self.archive("keeping Debian", &kept, tell).await
    }

    async fn debootstrap(&self, tell: &mut dyn FnMut(&str)) -> Result<(), StepFailed> {
        let mut command = Command::new("debootstrap");
        command
            .args([
                "--variant=minbase",
                "--include=ca-certificates,dbus,systemd-sysv",
            ])
            .args([SUITE])
            .arg(self.root())
            .arg(MIRROR);
        self.step("Debian", "debootstrap", command, tell).await?;
        let sources = format!(
            "deb {MIRROR} {SUITE} main\ndeb {MIRROR} {SUITE}-updates main\n\
             deb {SECURITY_MIRROR} {SUITE}-security main\n"
        );
        let path = self.root().join("etc/apt/sources.list");
        fs::write(&path, sources).map_err(|source| StepFailed::Prepare { path, source })
    }

    async fn provision(&self, tell: &mut dyn FnMut(&str)) -> Result<(), StepFailed> {
        let command = provisioning(self.recipe, self.name, &self.root());
        self.step("provisioning", "systemd-nspawn", command, tell)
            .await
    }

    /// Puts the root as it is now into an archive.
    async fn archive(
        &self,
        step: &'static str,
        path: &Path,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), StepFailed> {
        let partial = path.with_extension("partial");
        let mut command = Command::new("tar");
        command
            .args([
                "--create",
                "--numeric-owner",
                "--xattrs",
                "--xattrs-include=*",
            ])
            .args(["--sparse", "--use-compress-program=zstd -3 -T0"])
            .arg("--file")
            .arg(&partial)
            .arg("--directory")
            .arg(self.root())
            .arg(".");
        self.step(step, "tar", command, tell).await?;
        fs::rename(&partial, path).map_err(|source| StepFailed::Prepare {
            path: path.to_owned(),
            source,
        })
    }

    /// Runs a program to its end. Lines of our own scripts, `[script] ...`, are told as they come.
    async fn step(
        &self,
        step: &'static str,
        program: &'static str,
        mut command: Command,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), StepFailed> {
        tell(&format!("{:4} s  {step}", self.began.elapsed().as_secs()));
        let failed = |source| StepFailed::Run { program, source };
        let mut log = File::options()
            .append(true)
            .open(&self.log)
            .map_err(failed)?;
        let mut child = command
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().map_err(failed)?)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let output = child.stdout.take();
        let work = async {
            if let Some(output) = output {
                let mut lines = BufReader::new(output).lines();
                while let Some(line) = lines.next_line().await? {
                    writeln!(log, "{line}")?;
                    if line.starts_with('[') {
                        tell(&format!("{:4} s  {line}", self.began.elapsed().as_secs()));
                    }
                }
            }
            child.wait().await
        };
        let status = timeout(STEP_DEADLINE, work)
            .await
            .map_err(|_| StepFailed::TooSlow { step })?
            .map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        let said = self.end_of_log();
        Err(StepFailed::Failed { step, status, said })
    }

    fn end_of_log(&self) -> String {
        // Quoted for a person; the log itself may be what cannot be read.
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(QUOTED_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

/// What makes a Debian in this directory into an image of this name, or goes over it again.
pub fn provisioning(recipe: &Recipe, name: &str, root: &Path) -> Command {
    let mut command = Command::new("systemd-nspawn");
    command
        .args(["--quiet", "--register=no", "--keep-unit", "--as-pid2"])
        .args(["--resolv-conf=copy-host", "--capability=all"])
        .arg("--system-call-filter=@keyring bpf")
        .arg(format!("--machine={name}-build"))
        .arg(format!("--directory={}", root.display()))
        .arg(bind(&recipe.scripts, "snapshot-image"))
        .arg(bind(&recipe.agent, "tidepool-agent"))
        .arg(format!("--setenv=TIDEPOOL_INPUTS={name}"))
        .arg(format!("--setenv=TIDEPOOL_AGENT={INSIDE}/tidepool-agent"));
    match &recipe.openclaw {
        OpenClaw::Archive(archive) => command.arg(bind(archive, "openclaw.tar.zst")).arg(format!(
            "--setenv=TIDEPOOL_OPENCLAW_ARCHIVE={INSIDE}/openclaw.tar.zst"
        )),
        OpenClaw::Reference(reference) => {
            command.arg(format!("--setenv=TIDEPOOL_OPENCLAW_REFERENCE={reference}"))
        }
        OpenClaw::Absent => command.arg("--setenv=TIDEPOOL_OPENCLAW=none"),
    };
    let keys = recipe.release_keys.iter().map(ToString::to_string);
    let keys = keys.collect::<Vec<_>>().join(" ");
    command
        .arg(format!("--setenv=TIDEPOOL_RELEASE_KEYS={keys}"))
        .arg(format!("{INSIDE}/snapshot-image/provision.sh"))
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Where a build is done: in memory if there is room, for a hundred thousand small files are slow on a disk.
fn workshop(directory: &Path) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let room = statvfs(memory).map_or(0, |found| {
        found
            .blocks_available()
            .saturating_mul(found.fragment_size())
    });
    if room >= WORKSHOP_BYTES {
        memory.to_owned()
    } else {
        directory.to_owned()
    }
}

fn is_fresh(path: &Path) -> bool {
    let age = fs::metadata(path)
        .and_then(|found| found.modified())
        .ok()
        .and_then(|made| made.elapsed().ok());
    age.is_some_and(|age| age < KEPT_FOR)
}

fn bind(from: &Path, name: &str) -> String {
    format!("--bind-ro={}:{INSIDE}/{name}", from.display())
}
