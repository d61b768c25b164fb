//! The first process of a container, as this machine sees it, and the record of it.
//!
//! Signals go to it directly and never by Docker's own call, after which Docker takes the container
//! for stopped and does not start it again when it crashes. Its number is Docker's word; that it is
//! the one that is meant is the kernel's, which names the container in the process's control groups.

use std::fs;

use serde::{Deserialize, Serialize};

use super::super::identity::Identity;

/// A container that runs, and its first process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) container: String,
    pub(super) image: String,
    pub(super) process: Identity,
}

impl Record {
    /// The container's first process under this number; `None` when it is gone, or another's.
    pub(super) fn of(container: &str, image: &str, pid: i32) -> Option<Self> {
        let record = Self {
            container: container.to_owned(),
            image: image.to_owned(),
            process: Identity::of(pid)?,
        };
        record.is_of_the_container().then_some(record)
    }

    /// Whether the kernel says so too.
    pub(super) fn is_of_the_container(&self) -> bool {
        let pid = self.process.pid();
        let read =
            |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        is_in(&read("cgroup"), &self.container) && is_first(&read("status")) && self.process.runs()
    }
}

/// Docker names a control group by the container's id alone (cgroupfs), or as systemd's units are.
fn is_in(cgroups: &str, container: &str) -> bool {
    let unit = format!("docker-{container}.scope");
    cgroups
        .split(['/', '\n'])
        .any(|part| part == container || part == unit)
}

/// Its numbers from this machine's to its own namespace's.
fn is_first(status: &str) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let mut numbers = numbers.unwrap_or_default().split_ascii_whitespace();
    numbers.next().is_some() && numbers.next_back() == Some("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_of_both_kinds_name_the_container() {
        let id = "0a".repeat(32);
        assert!(is_in(
            &format!("4:memory:/docker/{id}\n1:cpu:/docker/{id}\n"),
            &id
        ));
        assert!(is_in(&format!("0::/system.slice/docker-{id}.scope\n"), &id));
        assert!(!is_in(&format!("0::/docker/{id}b\n"), &id));
        assert!(!is_in("0::/\n", &id));
        assert!(!is_in("", &id));
    }

    #[test]
    fn only_the_first_process_of_an_inner_namespace_is_first() {
        assert!(is_first("Name:\ttini\nNSpid:\t4711\t1\n"));
        assert!(is_first("NSpid:\t4711\t33\t1\n"));
        assert!(!is_first("NSpid:\t4711\t7\n"));
        // This machine's own first process is in no container.
        assert!(!is_first("NSpid:\t1\n"));
        assert!(!is_first(""));
    }

    #[test]
    fn a_process_of_this_machine_is_of_no_container() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(Record::of(&"0a".repeat(32), "image", own), None);
    }
}
