//! nginx's master process: found by its pid file, never by its name alone.
//!
//! nginx makes itself a daemon, so that it outlives the agent; a new agent adopts it. A pid file may
//! be left over and its number may belong to somebody else by now, so a process counts only if its
//! title is a master's and names our prefix directory, and it is looked at again right before every
//! signal. (`nix` has no pidfd; the window between look and signal is microseconds, and the title
//! of a stranger in it would have to name our directory.)

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

/// How often a wish is looked after.
const POLL: Duration = Duration::from_millis(2);

/// The title of a worker that only finishes what it carries.
const FINISHING: &str = "nginx: worker process is shutting down";

/// A running nginx.
#[derive(Debug, Clone)]
pub(super) struct Master {
    process: Process,
    prefix: PathBuf,
}

/// A process, and not another one that has its number later.
#[derive(Debug, Clone, Copy)]
struct Process {
    pid: Pid,
    born: u64,
}

impl Process {
    fn of(pid: i32) -> Option<Self> {
        let born = stat(pid)?.born;
        let pid = Pid::from_raw(pid);
        Some(Self { pid, born })
    }

    /// Whether it holds anything yet, as ports. One that is being killed loses its title first and its
    /// files later; a zombie has lost both.
    fn is_alive(self) -> bool {
        stat(self.pid.as_raw()).is_some_and(|stat| stat.born == self.born && !stat.is_zombie)
    }
}

impl Master {
    /// The nginx of this prefix, if it runs.
    pub(super) fn find(prefix: &Path) -> Option<Self> {
        let text = fs::read_to_string(prefix.join("nginx.pid")).ok()?;
        let pid: i32 = text.trim().parse().ok().filter(|pid| *pid > 1)?;
        let master = Self {
            process: Process::of(pid)?,
            prefix: prefix.to_owned(),
        };
        master.is_running().then_some(master)
    }

    /// Whether it is still this process. A zombie does not run.
    pub(super) fn is_running(&self) -> bool {
        let title = title(self.process.pid.as_raw());
        self.process.is_alive()
            && title.starts_with("nginx: master process")
            && title.contains(&self.mark())
    }

    /// What only our own master's title has in it.
    fn mark(&self) -> String {
        format!("-p {} ", self.prefix.display())
    }

    /// Sends a signal, if it is still this process.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        if !self.is_running() {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(kill(self.process.pid, signal)?)
    }

    /// Its workers that take new connections.
    pub(super) fn workers(&self) -> Vec<Pid> {
        children(self.process.pid)
            .into_iter()
            .filter(|pid| title(pid.as_raw()) == "nginx: worker process")
            .collect()
    }

    /// Tells these workers to take no new connection and to end with their last one, and waits until
    /// none of them does.
    ///
    /// The master does the same by itself 100 ms after it has started new workers; until then both
    /// generations answer, by chance. We know that the new one answers, so we do not wait.
    pub(super) async fn retire(&self, workers: &[Pid], deadline: Instant) -> bool {
        for worker in workers {
            // Another parent means another process: the worker has gone and its number was reused.
            if children(self.process.pid).contains(worker) {
                match kill(*worker, Signal::SIGQUIT) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => tracing::warn!(%error, "old nginx worker not told to finish"),
                }
            }
        }
        until(deadline, || {
            let accepting = self.workers();
            !workers.iter().any(|worker| accepting.contains(worker))
        })
        .await
    }

    /// Ends these workers and all that are finishing, with whatever they carry, and waits until they are gone.
    pub(super) async fn evict(&self, workers: &[Pid], deadline: Instant) -> bool {
        let finishing = |pid: &Pid| title(pid.as_raw()) == FINISHING;
        let evicted: Vec<Pid> = children(self.process.pid)
            .into_iter()
            .filter(|pid| workers.contains(pid) || finishing(pid))
            .collect();
        for worker in &evicted {
            match kill(*worker, Signal::SIGTERM) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => tracing::warn!(%error, "old nginx worker not ended"),
            }
        }
        until(deadline, || {
            let left = children(self.process.pid);
            !evicted.iter().any(|worker| {
                left.contains(worker) && stat(worker.as_raw()).is_some_and(|stat| !stat.is_zombie)
            })
        })
        .await
    }

    /// Waits until it is gone.
    pub(super) async fn gone(&self, deadline: Instant) -> bool {
        until(deadline, || !self.process.is_alive()).await
    }

    /// Kills it and whatever it started.
    pub(super) fn kill_all(&self) {
        let workers = children(self.process.pid);
        // Gone already is as good.
        drop(self.signal(Signal::SIGKILL));
        for worker in workers {
            if title(worker.as_raw()).starts_with("nginx: worker process") {
                kill(worker, Signal::SIGKILL).ok();
            }
        }
    }
}

/// Kills the workers of a master of this prefix that died without them, and waits until they are gone:
/// they hold its ports, and nobody tells them anything any more. Only for when no master runs.
pub(super) async fn end_orphans(prefix: &Path, deadline: Instant) {
    let orphans = orphans(prefix);
    for orphan in &orphans {
        // Gone already is as good.
        kill(orphan.pid, Signal::SIGKILL).ok();
    }
    if !orphans.is_empty() {
        tracing::warn!(
            workers = orphans.len(),
            "nginx died without its workers: killed them"
        );
        until(deadline, || !orphans.iter().any(|orphan| orphan.is_alive())).await;
    }
}

/// A worker's title names no directory, but it works in its master's, which is ours alone.
fn orphans(prefix: &Path) -> Vec<Process> {
    let Ok(prefix) = prefix.canonicalize() else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| title(*pid).starts_with("nginx: worker process"))
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == prefix))
        .filter_map(Process::of)
        .collect()
}

async fn until(deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(POLL).await;
    }
}

struct Stat {
    is_zombie: bool,
    born: u64,
}

/// State and start time; the command name before them may hold any character, so from its end.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    Some(Stat {
        is_zombie: matches!(state, "Z" | "X"),
        // Field 22 of the file; the state is field 3.
        born: fields.nth(18)?.parse().ok()?,
    })
}

/// The process title, its arguments joined by spaces.
fn title(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .replace('\0', " ")
        .trim_end()
        .to_owned()
}

fn children(pid: Pid) -> Vec<Pid> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|child| child.parse().ok().map(Pid::from_raw))
        .collect()
}
