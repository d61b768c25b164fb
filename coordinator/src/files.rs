//! How many files this process may have open: a visitor takes two, their own connection and the server's.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For whatever else is open: links, the store, the log, what visits without a server.
const RESERVE: u64 = 2048;

/// Takes all that it is given, and says how many that are. The usual soft limit of 1,024 is for programs that use
/// `select`.
pub fn allow_all() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        tracing::warn!(%error, "the number of open files stays small");
    }
    let limit = of(getrlimit(Resource::Nofile).current);
    tracing::info!(files.limit = limit, "files may be open");
    limit
}

/// The most that it could take.
pub fn most() -> u64 {
    of(getrlimit(Resource::Nofile).maximum)
}

/// What so many connections of visitors need.
pub fn needed(connections: usize) -> u64 {
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    connections.saturating_mul(2).saturating_add(RESERVE)
}

fn of(limit: Option<u64>) -> u64 {
    limit.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        let few = Rlimit {
            current: Some(256),
            ..before
        };
        setrlimit(Resource::Nofile, few).unwrap();
        assert_eq!(allow_all(), most());
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}
