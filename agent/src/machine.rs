//! This machine as the kernel tells of it. What it does not tell counts as nothing.

use std::{collections::HashSet, fs, path::Path, time::Duration};

use nix::sys::statvfs::statvfs;

use crate::runtime;

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    /// What programs could have without anything being swapped out.
    pub(crate) available: u64,
}

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Disk {
    pub(crate) total: u64,
    pub(crate) free: u64,
}

/// A name of this boot, which no other has.
pub(crate) fn boot() -> Option<String> {
    let told = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    // Machines that are containers share the kernel's name, at least in the sandbox of the agent's unit; each boot of
    // theirs has another first process.
    let (_, first) = runtime::identity_of(1)?;
    let name = told.trim();
    (!name.is_empty()).then(|| format!("{name}-{first}"))
}

pub(crate) fn memory() -> Memory {
    let told = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Memory {
        total: kib(&told, "MemTotal:").unwrap_or(0) << 10,
        available: kib(&told, "MemAvailable:").unwrap_or(0) << 10,
    }
}

/// CPU time that was used so far, by whomever, on all cores.
pub(crate) fn busy() -> Option<Duration> {
    busy_of(&fs::read_to_string("/proc/stat").ok()?)
}

fn busy_of(stat: &str) -> Option<Duration> {
    let told = stat.lines().next()?.strip_prefix("cpu ")?;
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is in the first two already.
    let ticks: Vec<u64> = told
        .split_ascii_whitespace()
        .take(8)
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, interrupts @ ..] = ticks.as_slice() else {
        return None;
    };
    let busy = [user, nice, system]
        .into_iter()
        .chain(interrupts)
        .sum::<u64>();
    // They are hundredths of a second.
    Some(Duration::from_millis(busy.saturating_mul(10)))
}

/// The file system that holds this path.
pub(crate) fn disk(path: &Path) -> Option<Disk> {
    let told = statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(told.fragment_size());
    Some(Disk {
        total: bytes(told.blocks()),
        free: bytes(told.blocks_available()),
    })
}

/// A process's memory in bytes, pages that several share shared out among them.
pub(crate) fn shared_out(pid: i32) -> Option<u64> {
    let told = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(kib(&told, "Pss:")? << 10)
}

/// A process's resident memory in bytes.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let told = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(kib(&told, "VmRSS:")? << 10)
}

/// The processes of the agent's own namespace but these; a container has another one.
pub(crate) fn processes_but(left_out: &[i32]) -> Vec<i32> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace("self");
    let left_out: HashSet<_> = left_out.iter().collect();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| !left_out.contains(pid) && namespace(&pid.to_string()) == own)
        .collect()
}

fn kib(told: &str, name: &str) -> Option<u64> {
    told.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.trim().strip_suffix(" kB")?;
        value.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_not_busy() {
        let stat = "cpu  10 20 30 1000 500 1 2 3 77 88\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_of(stat), Some(Duration::from_millis(660)));
        assert_eq!(busy_of("intr 1"), None);
    }

    #[test]
    fn this_machine_is_told_of() {
        let memory = memory();
        assert!(memory.total > memory.available && memory.available > 0);
        assert!(busy().is_some());
        let disk = disk(Path::new("/")).unwrap();
        assert!(disk.total >= disk.free);
    }

    #[test]
    fn a_boot_has_one_name() {
        assert!(boot().is_some());
        assert_eq!(boot(), boot());
    }

    #[test]
    fn who_is_left_out_is_not_counted() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(processes_but(&[]).contains(&own));
        assert!(!processes_but(&[own]).contains(&own));
        assert!(shared_out(own).unwrap() > 0 && resident(std::process::id()).unwrap() > 0);
    }
}
