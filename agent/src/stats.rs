//! What gateway and server take of the machine: looked at at a slow pace, told as the latest.
//!
//! It is for people and for whoever plans machines; nothing here decides on it.

use std::{path::PathBuf, sync::Arc, thread::available_parallelism, time::Duration};

use tidepool_shared::message::{GatewayStats, HostStats};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{converge::openclaw::OpenClaw, desk::View, machine, runtime::Taken};

/// A look costs the kernel some milliseconds: each page of each process is counted.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub gateway: Option<GatewayStats>,
    pub host: HostStats,
}

/// Whose machine it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenancy {
    /// The server is the machine, and whatever runs on it is the server's.
    Alone,
    /// Others run on it too, as with local servers.
    Shared,
}

/// Who looks.
pub struct Looker {
    gateway: Arc<OpenClaw>,
    tenancy: Tenancy,
    /// On the file system that is told of.
    dir: PathBuf,
    before: Option<Before>,
}

/// What CPU time had been used at the look before.
#[derive(Debug, Clone, Copy)]
struct Before {
    at: Instant,
    gateway: Option<Duration>,
    host: Option<Duration>,
}

impl Looker {
    pub fn new(gateway: Arc<OpenClaw>, tenancy: Tenancy, dir: PathBuf) -> Self {
        Self {
            gateway,
            tenancy,
            dir,
            before: None,
        }
    }

    /// Looks until it is told to stop, and as soon as the server has come further: what a gateway takes that
    /// has just become warm is what pools are planned by.
    pub async fn run(
        mut self,
        mut view: watch::Receiver<View>,
        told: watch::Sender<Option<Look>>,
        stop: CancellationToken,
    ) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let phase = view.borrow().phase;
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                further = view.wait_for(|view| view.phase != phase) => if further.is_err() { return },
            }
            tokio::select! {
                () = stop.cancelled() => return,
                look = self.look() => {
                    told.send_replace(Some(look));
                }
            }
        }
    }

    async fn look(&mut self) -> Look {
        let taken = self.gateway.taken().await;
        let processes = taken.as_ref().map(|taken| taken.processes.clone());
        let (dir, tenancy) = (self.dir.clone(), self.tenancy);
        let looked = spawn_blocking(move || host(&dir, tenancy, &processes.unwrap_or_default()));
        let host = looked.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the look at the machine failed");
            HostStats::default()
        });
        let now = Before {
            at: Instant::now(),
            gateway: taken.as_ref().map(|taken| taken.cpu),
            host: machine::busy(),
        };
        let before = self.before.replace(now);
        Look {
            gateway: taken.map(|taken| gateway(&taken, share(before, now, |at| at.gateway))),
            host: HostStats {
                cpu_millicores: share(before, now, |at| at.host),
                ..host
            },
        }
    }
}

fn gateway(taken: &Taken, cpu_millicores: Option<u32>) -> GatewayStats {
    GatewayStats {
        cpu_millicores,
        memory_bytes: taken.memory_bytes,
        memory_limit_bytes: taken.memory_limit_bytes,
        pids: taken.pids,
    }
}

fn host(dir: &std::path::Path, tenancy: Tenancy, of_gateway: &[i32]) -> HostStats {
    let (memory, disk) = (machine::memory(), machine::disk(dir).unwrap_or_default());
    let rest = || {
        let others = machine::processes_but(of_gateway).into_iter();
        others.filter_map(machine::shared_out).sum()
    };
    HostStats {
        cpus: available_parallelism()
            .map_or(0, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        cpu_millicores: None,
        memory_bytes: memory.total,
        memory_available_bytes: memory.available,
        rest_memory_bytes: (tenancy == Tenancy::Alone).then(rest),
        agent_memory_bytes: machine::resident(std::process::id()).unwrap_or(0),
        disk_bytes: disk.total,
        disk_free_bytes: disk.free,
    }
}

/// Thousandths of a core that were used between two looks; unknown when what is counted began anew.
fn share(
    before: Option<Before>,
    now: Before,
    of: impl Fn(&Before) -> Option<Duration>,
) -> Option<u32> {
    let before = before?;
    let used = of(&now)?.checked_sub(of(&before)?)?;
    let micros = now.at.duration_since(before.at).as_micros().max(1);
    Some(u32::try_from(used.as_micros().saturating_mul(1000) / micros).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_share_is_of_the_time_between_and_unknown_for_another_gateway() {
        let look = |at, cpu_ms| Before {
            at,
            gateway: Some(Duration::from_millis(cpu_ms)),
            host: None,
        };
        let first = look(Instant::now(), 400);
        let later = first.at + Duration::from_secs(10);
        let of_gateway = |before, now| share(before, now, |at: &Before| at.gateway);
        assert_eq!(of_gateway(None, first), None);
        assert_eq!(of_gateway(Some(first), look(later, 900)), Some(50));
        assert_eq!(of_gateway(Some(first), look(later, 100)), None);
        assert_eq!(share(Some(first), look(later, 900), |at| at.host), None);
    }

    #[test]
    fn only_who_is_alone_on_a_machine_answers_for_the_rest_of_it() {
        let dir = std::env::temp_dir();
        assert_eq!(host(&dir, Tenancy::Shared, &[]).rest_memory_bytes, None);
        let alone = host(&dir, Tenancy::Alone, &[]);
        assert!(alone.rest_memory_bytes.unwrap() > 0);
        assert!(alone.memory_bytes > 0 && alone.disk_bytes > 0 && alone.agent_memory_bytes > 0);
    }
}
