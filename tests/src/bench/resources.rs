//! What a process takes of the machine, as `/proc` tells it.

use std::{fs, time::Duration};

use anyhow::Context as _;
use rustix::process::{Resource, getrlimit, setrlimit};

/// The kernel counts a process's CPU time in hundredths of a second, whatever the machine.
const TICK: Duration = Duration::from_millis(10);

/// Resident memory.
pub(super) fn rss_kib(pid: u32) -> anyhow::Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    Ok(resident.context("no VmRSS in /proc")?.parse()?)
}

/// CPU time so far, of all threads, in user and kernel mode.
pub(super) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name stands in parentheses and may hold anything; user and kernel time are 12th and 13th after it.
    let (_, fields) = stat.rsplit_once(')').context("/proc stat")?;
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u32>)
        .sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
}

/// Allows this process, and those that it starts, so many open files.
pub(super) fn allow_files(wanted: u64) -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        setrlimit(Resource::Nofile, limit)
            .with_context(|| format!("allow {wanted} open files (ulimit -Hn)"))?;
    }
    Ok(())
}

/// How many open files may be allowed; only root can have more.
pub(super) fn files_max() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}
