//! How many files this process may have open: a stream takes two, its own and the provider's connection.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Takes all that it is given. The usual soft limit of 1,024 is for programs that use `select`.
pub fn allow_all() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the number of open files stays small");
    }
}
