//! The gateway as a process of this machine: what local servers use instead of Docker.
//!
//! It runs in a process group of its own, writes to a file and not to a pipe, and is known by pid
//! and start time on disk: so it survives the agent's death and the next agent finds it. It sees a
//! cleaned environment, with a home of its own and no proxy or credential of whoever runs us.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::Child,
    sync::Mutex,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{
    EngineFailed, Log, NotLimited, Runtime, SignalFailed, StartFailed, Started, State, Stopped,
    Taken, descendants,
    identity::{Identity, Stat},
};
use tidepool_shared::{document::GatewayLimits, manifest::Release};

use crate::{
    disk, machine,
    openclaw::Place,
    reload::{RestartSignal, signal_number},
};

/// How long the kernel gets to end a killed process; more than an instant only on a stuck disk.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Between two looks at an ending process.
const POLL: Duration = Duration::from_millis(10);
/// What OpenClaw makes of its command line as soon as it runs.
const TITLE: &str = "openclaw-gateway";
/// Programs that the gateway's own tools need.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What is run, and where.
#[derive(Debug, Clone)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    pub home: PathBuf,
    pub state_dir: PathBuf,
    pub config_path: PathBuf,
    pub log: PathBuf,
    /// Where the process is recorded.
    pub record: PathBuf,
    /// More variables, for tests (the stub's switches).
    pub extra_env: BTreeMap<String, String>,
}

impl Command {
    /// The manifest's gateway at a place.
    pub fn new(argv: Vec<String>, place: &Place) -> Self {
        Self {
            argv,
            home: place.home.clone(),
            state_dir: place.state_dir(),
            config_path: place.config_path(),
            log: place.log_path(),
            record: place.process_record(),
            extra_env: BTreeMap::new(),
        }
    }

    fn prepare(&self) -> io::Result<()> {
        let folders = [
            Some(self.home.as_path()),
            Some(self.state_dir.as_path()),
            self.record.parent(),
        ];
        for folder in folders.into_iter().flatten() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        let tmp = self.tmp();
        fs::create_dir_all(&tmp)?;
        fs::set_permissions(&tmp, fs::Permissions::from_mode(0o700))
    }

    fn tmp(&self) -> PathBuf {
        self.home.join("tmp")
    }

    fn environment(&self) -> Vec<(&str, &Path)> {
        vec![
            ("PATH", Path::new(PATH)),
            ("LANG", Path::new("C.UTF-8")),
            ("HOME", &self.home),
            ("OPENCLAW_HOME", &self.home),
            ("OPENCLAW_STATE_DIR", &self.state_dir),
            ("OPENCLAW_CONFIG_PATH", &self.config_path),
            ("OPENCLAW_DISABLE_BONJOUR", Path::new("1")),
        ]
    }
}

/// A gateway as a process.
#[derive(Debug)]
pub struct ProcessRuntime {
    command: Command,
    log: Log,
    ours: Mutex<Ours>,
}

/// The process, when this agent started it, and what became of the last one.
#[derive(Debug, Default)]
struct Ours {
    child: Option<Child>,
    exit_code: Option<i32>,
}

impl ProcessRuntime {
    /// A runtime for this command; nothing is started yet.
    pub fn new(command: Command) -> Self {
        Self {
            log: Log::new(command.log.clone()),
            command,
            ours: Mutex::default(),
        }
    }

    /// The process on record, when it still runs.
    fn running(&self) -> Option<Identity> {
        Identity::load(&self.command.record).filter(|process| process.runs())
    }

    /// All that was started with this gateway's environment, by us or by a gateway.
    fn bearers(&self) -> Vec<Identity> {
        let mark = format!(
            "OPENCLAW_CONFIG_PATH={}",
            self.command.config_path.display()
        );
        descendants::with_variable(&mark)
    }

    /// The gateway of an agent that died between starting and recording it.
    ///
    /// What a gateway starts has its environment too, and outlives its SIGKILL: so it must also look
    /// like one. One that is not known by its looks, in mid-start, is only started anew.
    fn unrecorded(&self) -> Option<Identity> {
        self.bearers().into_iter().find(|process| {
            let shown = descendants::command_line(*process);
            shown == self.command.argv || shown == [TITLE]
        })
    }

    /// Ends what an earlier gateway started and did not live to end: it may hold ports and locks
    /// of the state directory. Each look may find what the last one's victims had just started.
    async fn end_left_overs(&self) -> Result<(), SignalFailed> {
        let deadline = Instant::now() + KILL_WAIT;
        loop {
            let left = self.bearers();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(SignalFailed::Survived);
            }
            for process in left {
                process.signal(Signal::KILL).map_err(SignalFailed::Send)?;
            }
            sleep(POLL).await;
        }
    }

    fn spawn(&self) -> Result<Child, StartFailed> {
        let (program, arguments) = self
            .command
            .argv
            .split_first()
            .ok_or(StartFailed::NoProgram)?;
        let log = self.log.open().map_err(StartFailed::OpenLog)?;
        let errors = log.try_clone().map_err(StartFailed::OpenLog)?;
        tokio::process::Command::new(program)
            .args(arguments)
            .current_dir(&self.command.home)
            .env_clear()
            .envs(self.command.environment())
            .env("TMPDIR", self.command.tmp())
            .envs(&self.command.extra_env)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
            .map_err(StartFailed::Spawn)
    }

    /// Reaps our own child, if it has ended, so that it does not stay as a zombie.
    async fn reap(&self) -> Option<i32> {
        let mut ours = self.ours.lock().await;
        if let Some(child) = &mut ours.child
            && let Ok(Some(status)) = child.try_wait()
        {
            ours.exit_code = status.code();
            ours.child = None;
        }
        ours.exit_code
    }

    async fn kill(&self, process: Identity) -> Result<(), SignalFailed> {
        let family = descendants::of(process);
        // The group first: it catches what is being forked right now.
        if let Some(group) = Pid::from_raw(process.pid()).filter(|_| process.runs())
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            // Gone already is what is wanted; anything else shows in the wait below.
            tracing::debug!(%error, "the gateway's process group was not killed");
        }
        for member in family {
            member.signal(Signal::KILL).map_err(SignalFailed::Send)?;
        }
        if ended_within(process, KILL_WAIT).await {
            Ok(())
        } else {
            Err(SignalFailed::Survived)
        }
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    async fn discard(&self, _: &Release) -> Result<(), EngineFailed> {
        // Its files are the version's directory.
        Ok(())
    }

    async fn make_ready(&self) -> Result<(), StartFailed> {
        let program = self.command.argv.first().ok_or(StartFailed::NoProgram)?;
        let program = Path::new(program);
        // Arguments are files as well, such as the one that Node runs; a name alone is looked for by the kernel.
        let mut files = self.command.argv.iter().map(Path::new);
        let missing = files.find(|file| file.is_absolute() && !file.exists());
        match missing {
            Some(file) => Err(StartFailed::Missing(file.to_owned())),
            None if program.as_os_str().is_empty() => Err(StartFailed::NoProgram),
            None => Ok(()),
        }
    }

    async fn start(&self) -> Result<Started, StartFailed> {
        self.reap().await;
        if self.running().is_some() {
            return Ok(Started::Adopted);
        }
        self.command.prepare().map_err(StartFailed::Prepare)?;
        if let Some(process) = self.unrecorded() {
            disk::write_json(&self.command.record, &process).map_err(StartFailed::Record)?;
            return Ok(Started::Adopted);
        }
        self.end_left_overs()
            .await
            .map_err(StartFailed::EndLeftOvers)?;
        let mut child = self.spawn()?;
        let process = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Identity::of);
        // A process that is gone already leaves no record; `state` tells its exit code.
        let recorded = process.map_or(Ok(()), |process| {
            disk::write_json(&self.command.record, &process)
        });
        if let Err(error) = recorded {
            // A gateway that nobody will find again must not stay.
            drop(child.kill().await);
            return Err(StartFailed::Record(error));
        }
        let mut ours = self.ours.lock().await;
        ours.child = Some(child);
        ours.exit_code = None;
        Ok(Started::Fresh)
    }

    async fn state(&self) -> State {
        let exit_code = self.reap().await;
        if self.running().is_some() {
            State::Running
        } else {
            State::Stopped { exit_code }
        }
    }

    async fn restart_by(&self, signal: RestartSignal) -> Result<(), SignalFailed> {
        let process = self.running().ok_or(SignalFailed::NotRunning)?;
        match process.signal(signal_number(signal)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SignalFailed::NotRunning),
            Err(error) => Err(SignalFailed::Send(error)),
        }
    }

    async fn stop(&self, grace: Duration) -> Result<Stopped, SignalFailed> {
        let Some(process) = self.running() else {
            self.reap().await;
            self.end_left_overs().await?;
            return Ok(Stopped::Already);
        };
        process.signal(Signal::TERM).map_err(SignalFailed::Send)?;
        let stopped = if ended_within(process, grace).await {
            Stopped::ByItself
        } else {
            self.kill(process).await?;
            Stopped::Killed
        };
        self.reap().await;
        self.end_left_overs().await?;
        Ok(stopped)
    }

    fn log(&self) -> &Log {
        &self.log
    }

    /// A process of this machine has no control group of its own, and limits of the kernel's on processes do not
    /// bound what they start: local servers are for trying, and their customers share the machine.
    async fn limit(&self, _: GatewayLimits) -> Result<(), NotLimited> {
        Ok(())
    }

    async fn taken(&self) -> Option<Taken> {
        let process = self.running()?;
        // The kernel counts the pages of a large process one by one.
        match spawn_blocking(move || taken_by(process)).await {
            Ok(taken) => Some(taken),
            Err(error) => {
                tracing::error!(%error, "the look at what the gateway takes failed");
                None
            }
        }
    }
}

fn taken_by(process: Identity) -> Taken {
    let family = std::iter::once(process).chain(descendants::of(process));
    let processes: Vec<_> = family.map(Identity::pid).collect();
    // What ended meanwhile takes nothing.
    let stats: Vec<_> = processes
        .iter()
        .filter_map(|pid| Stat::read(*pid))
        .collect();
    Taken {
        cpu: stats.iter().map(|stat| stat.cpu).sum(),
        memory_bytes: processes
            .iter()
            .filter_map(|pid| machine::shared_out(*pid))
            .sum(),
        memory_limit_bytes: None,
        pids: stats
            .iter()
            .map(|stat| stat.threads)
            .fold(0, u32::saturating_add),
        processes,
    }
}

/// Waits for a process to end. It may not be our child, so there is nothing to be woken by but its
/// pidfd, whose readiness tokio takes only by unsafe code: a look every few milliseconds does.
async fn ended_within(process: Identity, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while process.runs() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(POLL).await;
    }
    true
}
