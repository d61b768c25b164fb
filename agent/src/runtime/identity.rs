//! Which process is meant: a pid alone is reused by the kernel, a pid with its start time is not.
//!
//! A signal goes through a pidfd that is opened first and compared with the start time after, so
//! that nothing can slip in between.

use std::{fs, io, os::fd::OwnedFd, path::Path, time::Duration};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process for good, also across restarts of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pid: i32,
    /// Clock ticks since the machine's start, field 22 of `/proc/PID/stat`.
    start_ticks: u64,
}

impl Identity {
    /// The identity of a process that runs now; `None` when it is gone or a zombie.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        (!stat.dead).then_some(Self {
            pid,
            start_ticks: stat.start_ticks,
        })
    }

    pub(crate) fn pid(self) -> i32 {
        self.pid
    }

    /// Pid and start time, in clock ticks since the machine's start.
    pub(crate) fn parts(self) -> (i32, u64) {
        (self.pid, self.start_ticks)
    }

    pub(crate) fn runs(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal to exactly this process; `false` when it is gone.
    pub(crate) fn signal(self, signal: Signal) -> io::Result<bool> {
        let Some(handle) = self.handle()? else {
            return Ok(false);
        };
        match pidfd_send_signal(&handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(refused) => Err(refused.into()),
        }
    }

    /// A handle on exactly this process; `None` when it is gone.
    fn handle(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Ok(self.runs().then_some(handle)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Reads a record; a missing or unreadable one means that no process is known.
    pub(crate) fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

/// What is used of `/proc/PID/stat`.
pub(crate) struct Stat {
    pub(crate) parent: i32,
    pub(crate) dead: bool,
    /// In user and kernel mode, without its children.
    pub(crate) cpu: Duration,
    pub(crate) threads: u32,
    start_ticks: u64,
}

/// What times are counted in, whatever the kernel's own clock.
const TICK: Duration = Duration::from_millis(10);

impl Stat {
    pub(crate) fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in parentheses and may itself hold any character, so
    /// that fields are counted from the last parenthesis.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        // Fields 14, 15, 20 and 22; the iterator stands behind field 4.
        let user_ticks: u32 = fields.nth(9)?.parse().ok()?;
        let kernel_ticks: u32 = fields.next()?.parse().ok()?;
        let threads = fields.nth(4)?.parse().ok()?;
        let start_ticks = fields.nth(1)?.parse().ok()?;
        Some(Self {
            parent,
            dead: matches!(state, "Z" | "X"),
            cpu: TICK * user_ticks + TICK * kernel_ticks,
            threads,
            start_ticks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_cannot_confuse_the_fields() {
        let line = "42 (a) S 9 ) (x) R 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 987654 100 200";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            (stat.parent, stat.start_ticks, stat.dead),
            (7, 987_654, false)
        );
        assert_eq!((stat.cpu, stat.threads), (TICK * 11, 3));
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let this = Identity::of(pid).unwrap();
        assert!(this.runs());
        let earlier = Identity {
            pid,
            start_ticks: this.start_ticks - 1,
        };
        assert!(!earlier.runs());
        assert!(!earlier.signal(Signal::TERM).unwrap());
    }
}
