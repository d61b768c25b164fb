//! All that a process has started, found through `/proc`.
//!
//! A process group is not enough: OpenClaw's helpers make sessions of their own. What has already
//! lost its parent is not found; OpenClaw's helpers end by themselves when their pipe closes.

use std::fs;

use super::identity::{Identity, Stat};

/// The most processes that are followed; the customer can start as many as they like.
const CEILING: usize = 4096;

/// The living processes below `root`, without itself.
pub(crate) fn of(root: Identity) -> Vec<Identity> {
    let all = living();
    let mut family = vec![root.pid()];
    let mut place = 0;
    while let Some(&parent) = family.get(place) {
        let children = all
            .iter()
            .filter(|(_, its_parent)| *its_parent == parent)
            .map(|(pid, _)| *pid);
        family.extend(children);
        place += 1;
        if family.len() > CEILING {
            break;
        }
    }
    family
        .into_iter()
        .skip(1)
        .filter_map(Identity::of)
        .collect()
}

/// The process with this variable (`NAME=value`) in its environment whose parent does not have it.
pub(crate) fn eldest_with_variable(variable: &str) -> Option<Identity> {
    let bearers: Vec<_> = living()
        .into_iter()
        .filter(|(pid, _)| bears(*pid, variable))
        .collect();
    let eldest = bearers
        .iter()
        .find(|(_, parent)| bearers.iter().all(|(pid, _)| pid != parent));
    eldest.and_then(|(pid, _)| Identity::of(*pid))
}

fn bears(pid: i32, variable: &str) -> bool {
    // Only our own user's environments are readable, which is all that could be ours.
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ
            .split(|byte| *byte == 0)
            .any(|entry| entry == variable.as_bytes())
    })
}

/// Every process with its parent.
fn living() -> Vec<(i32, i32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::read(pid)?.parent)))
        .collect()
}
