//! What agents say of what their servers take: kept in memory for a moment, then written together, so that a
//! fleet costs the store a few commits a minute and not one for each server.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tidepool_shared::{
    id::ServerId,
    message::{GatewayStats as SaidOfGateway, HostStats as SaidOfHost, Stats as Said},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Context;
use crate::{
    causes::chain,
    model::{GatewayStats, HostStats, Stats, StatsRecord},
};

/// Claims wait for a transaction of this many with SQLite.
const AT_ONCE: usize = 200;

/// No machine has as much, in bytes, thousandths of a core and processes.
const MOST_BYTES: u64 = 1 << 50;
const MOST_MILLICORES: u32 = 10_000_000;
const MOST_PIDS: u32 = 1 << 22;

/// What was said since the last writing, the last word of each server.
#[derive(Debug, Default)]
pub(super) struct Unwritten(Mutex<BTreeMap<ServerId, StatsRecord>>);

impl Unwritten {
    pub(super) fn note(&self, server: ServerId, said: &Said) {
        let record = StatsRecord {
            server,
            epoch: said.epoch,
            stats: for_store(said),
        };
        self.with(|unwritten| unwritten.insert(server, record));
    }

    /// In the order of their ids, so that two coordinators never wait for each other.
    fn take(&self) -> Vec<StatsRecord> {
        self.with(std::mem::take).into_values().collect()
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<ServerId, StatsRecord>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes what was said, until cancelled. What could not be written is said again within a minute.
pub(super) async fn write(context: &Context, cancel: CancellationToken) {
    while cancel
        .run_until_cancelled(sleep(context.settings.stats_interval))
        .await
        .is_some()
    {
        let now = context.clock.now();
        for some in context.stats.take().chunks(AT_ONCE) {
            if let Err(failure) = context.store.record_stats(some, now).await {
                warn!(error = %chain(&failure), "what servers take was not recorded");
            }
        }
    }
}

/// Within the ceilings, whatever the agent sent.
fn for_store(said: &Said) -> Stats {
    Stats {
        gateway: said.gateway.map(of_gateway),
        host: of_host(said.host),
    }
}

fn of_gateway(said: SaidOfGateway) -> GatewayStats {
    GatewayStats {
        cpu_millicores: said.cpu_millicores.map(|cpu| cpu.min(MOST_MILLICORES)),
        memory_bytes: said.memory_bytes.min(MOST_BYTES),
        memory_limit_bytes: said.memory_limit_bytes.map(|limit| limit.min(MOST_BYTES)),
        pids: said.pids.min(MOST_PIDS),
    }
}

fn of_host(said: SaidOfHost) -> HostStats {
    HostStats {
        cpus: said.cpus.min(MOST_MILLICORES / 1000),
        cpu_millicores: said.cpu_millicores.map(|cpu| cpu.min(MOST_MILLICORES)),
        memory_bytes: said.memory_bytes.min(MOST_BYTES),
        memory_available_bytes: said.memory_available_bytes.min(MOST_BYTES),
        rest_memory_bytes: said.rest_memory_bytes.map(|rest| rest.min(MOST_BYTES)),
        agent_memory_bytes: said.agent_memory_bytes.min(MOST_BYTES),
        disk_bytes: said.disk_bytes.min(MOST_BYTES),
        disk_free_bytes: said.disk_free_bytes.min(MOST_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: u64) -> Said {
        Said {
            epoch: 3,
            gateway: Some(SaidOfGateway {
                cpu_millicores: Some(u32::MAX),
                memory_bytes: bytes,
                memory_limit_bytes: Some(bytes),
                pids: u32::MAX,
            }),
            host: SaidOfHost {
                memory_bytes: bytes,
                rest_memory_bytes: Some(bytes),
                ..SaidOfHost::default()
            },
        }
    }

    #[test]
    fn of_each_server_the_last_word_is_written_and_none_is_over_the_ceilings() {
        let unwritten = Unwritten::default();
        let server = |number| format!("srv_{number:026}").parse().unwrap();
        unwritten.note(server(2), &said(1));
        unwritten.note(server(1), &said(2));
        unwritten.note(server(2), &said(u64::MAX));
        let taken = unwritten.take();
        let servers: Vec<_> = taken.iter().map(|record| record.server).collect();
        assert_eq!(servers, [server(1), server(2)]);
        let greatest = taken[1].stats;
        let gateway = greatest.gateway.unwrap();
        assert_eq!(gateway.memory_bytes, MOST_BYTES);
        assert_eq!(
            (gateway.cpu_millicores, gateway.pids),
            (Some(MOST_MILLICORES), MOST_PIDS)
        );
        assert_eq!(greatest.host.rest_memory_bytes, Some(MOST_BYTES));
        assert_eq!(unwritten.take(), []);
    }
}
