//! What a process takes of the machine, as `/proc` tells it.

use std::{fs, time::Duration};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            // Only root may raise this one.
            maximum: limit.maximum.map(|maximum| maximum.max(wanted)),
        };
        setrlimit(Resource::Nofile, raised)
            .with_context(|| format!("allow {wanted} open files (ulimit -Hn)"))?;
    }
    Ok(())
}
