//! All that a process has started, found through `/proc`.
//!
//! A process group is not enough: OpenClaw's helpers make sessions of their own. What has already
//! lost its parent is found by its environment, which a process hands on to all that it starts.

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

/// The processes with this variable (`NAME=value`) in their environment.
pub(crate) fn with_variable(variable: &str) -> Vec<Identity> {
    let own = i32::try_from(std::process::id()).ok();
    living()
        .into_iter()
        .map(|(pid, _)| pid)
        .filter(|pid| Some(*pid) != own && bears(*pid, variable))
        .filter_map(Identity::of)
        .collect()
}

/// The arguments of a process as it shows them, which it may have written over.
pub(crate) fn command_line(process: Identity) -> Vec<String> {
    let shown = fs::read(format!("/proc/{}/cmdline", process.pid())).unwrap_or_default();
    let mut words: Vec<_> = shown
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    // Each word is ended by a zero, and a title is filled up with them.
    while words.last().is_some_and(String::is_empty) {
        words.pop();
    }
    words
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
