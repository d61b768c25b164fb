//! Naming a process so that it cannot be confused with a later one of the same number.

use std::{fs, io, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidepool_certs::secret_file;

/// A process id with the start time of the process that had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessMark {
    pid: i32,
    /// Clock ticks since boot, from `/proc/PID/stat`.
    start: u64,
}

impl ProcessMark {
    /// The mark of a process that runs now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        stat(pid).map(|(_, start)| Self { pid, start })
    }

    /// The process's number.
    pub(crate) fn pid(self) -> i32 {
        self.pid
    }

    /// Reads a mark that was written; nothing readable is no mark.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        Some(Self {
            pid: pid.parse().ok()?,
            start: start.parse().ok()?,
        })
    }

    pub(crate) fn write(self, path: &Path) -> io::Result<()> {
        secret_file::write(path, format!("{} {}\n", self.pid, self.start).as_bytes())
    }

    /// Whether that very process still runs. A zombie does not.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|(state, start)| start == self.start && state != 'Z')
    }

    /// Signals the process if it is still that one.
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_alive()
            && let Err(error) = kill(Pid::from_raw(self.pid), signal)
        {
            tracing::warn!(%error, pid = self.pid, "a process could not be signalled");
        }
    }
}

/// State and start time, fields 3 and 22 of `/proc/PID/stat`; the name in field 2 may hold anything.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = text.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_mark_survives_the_disk() {
        let mark = ProcessMark::of(std::process::id()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        mark.write(&dir.path().join("agent.pid")).unwrap();
        assert_eq!(ProcessMark::read(&dir.path().join("agent.pid")), Some(mark));
        assert!(mark.is_alive());
    }

    #[test]
    fn a_later_process_of_the_same_number_is_another() {
        let mark = ProcessMark::of(std::process::id()).unwrap();
        assert!(
            !ProcessMark {
                start: mark.start + 1,
                ..mark
            }
            .is_alive()
        );
    }
}
