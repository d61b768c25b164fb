//! What the servers of each pool take, as gauges for whoever scrapes metrics. A series for each server would be
//! thousands; the sum, and the server that is worst off, are what an operator is woken for.

use std::{collections::HashMap, sync::Arc, time::Duration};

use metrics::gauge;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    ambient::{Clock, Moment},
    causes::chain,
    model::{PoolKey, Server, Stats},
    store::{Store, StoreError},
};

const TURN_INTERVAL: Duration = Duration::from_mins(1);

/// Agents look every minute; what is older says nothing of now.
const FRESH: Duration = Duration::from_mins(5);

/// The job that shows them.
pub struct Fleet {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub pools: Vec<PoolKey>,
}

/// What the servers of a pool take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Taken {
    /// Servers that said so.
    servers: u64,
    gateway_millicores: u64,
    gateway_memory_bytes: u64,
    /// Of the gateway that takes most.
    gateway_memory_most_bytes: u64,
    /// Of the server that has least.
    memory_available_least_bytes: Option<u64>,
    disk_free_least_bytes: Option<u64>,
}

impl Fleet {
    /// Runs until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            if let Err(error) = self.turn().await {
                tracing::error!(error = %chain(&error), "show what servers take");
            }
            cancel.run_until_cancelled(sleep(TURN_INTERVAL)).await;
        }
    }

    async fn turn(&self) -> Result<(), StoreError> {
        let (servers, stats) = (self.store.servers().await?, self.store.all_stats().await?);
        let now = self.clock.now();
        for pool in &self.pools {
            let of_pool = servers.iter().filter(|server| server.pool == *pool);
            show(pool, &taken(of_pool, &stats, now));
        }
        Ok(())
    }
}

fn taken<'s>(
    servers: impl Iterator<Item = &'s Server>,
    stats: &HashMap<tidepool_shared::id::ServerId, (Moment, Stats)>,
    now: Moment,
) -> Taken {
    let fresh = servers
        .filter_map(|server| stats.get(&server.id))
        .filter(|(at, _)| now.since(*at) < FRESH);
    fresh.fold(Taken::default(), |taken, (_, stats)| taken.and(stats))
}

impl Taken {
    fn and(self, stats: &Stats) -> Self {
        let least = |known: Option<u64>, other: u64| Some(known.map_or(other, |it| it.min(other)));
        let memory = stats.gateway.map_or(0, |gateway| gateway.memory_bytes);
        let cpu = stats.gateway.and_then(|gateway| gateway.cpu_millicores);
        Self {
            servers: self.servers + 1,
            gateway_millicores: self.gateway_millicores + u64::from(cpu.unwrap_or(0)),
            gateway_memory_bytes: self.gateway_memory_bytes.saturating_add(memory),
            gateway_memory_most_bytes: self.gateway_memory_most_bytes.max(memory),
            memory_available_least_bytes: least(
                self.memory_available_least_bytes,
                stats.host.memory_available_bytes,
            ),
            disk_free_least_bytes: least(self.disk_free_least_bytes, stats.host.disk_free_bytes),
        }
    }
}

fn show(pool: &PoolKey, taken: &Taken) {
    let labels = [("tier", pool.tier.clone()), ("region", pool.region.clone())];
    for (name, value) in [
        ("tidepool_fleet_servers_heard", Some(taken.servers)),
        (
            "tidepool_fleet_gateway_cpu_millicores",
            Some(taken.gateway_millicores),
        ),
        (
            "tidepool_fleet_gateway_memory_bytes",
            Some(taken.gateway_memory_bytes),
        ),
        (
            "tidepool_fleet_gateway_memory_most_bytes",
            Some(taken.gateway_memory_most_bytes),
        ),
        (
            "tidepool_fleet_memory_available_least_bytes",
            taken.memory_available_least_bytes,
        ),
        (
            "tidepool_fleet_disk_free_least_bytes",
            taken.disk_free_least_bytes,
        ),
    ] {
        // Of no server there is no least; what was shown last would be another moment's.
        let value = value.map_or(f64::NAN, as_f64);
        gauge!(name, &labels).set(value);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn as_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GatewayStats, HostStats, sample};

    fn stats(memory: u64, free: u64) -> Stats {
        Stats {
            gateway: Some(GatewayStats {
                cpu_millicores: Some(10),
                memory_bytes: memory,
                memory_limit_bytes: None,
                pids: 3,
            }),
            host: HostStats {
                cpus: 2,
                cpu_millicores: None,
                memory_bytes: 1000,
                memory_available_bytes: free,
                rest_memory_bytes: None,
                agent_memory_bytes: 1,
                disk_bytes: 1000,
                disk_free_bytes: free,
            },
        }
    }

    #[test]
    fn a_pool_is_shown_by_its_sum_and_by_its_worst_and_not_by_what_is_old() {
        let server = |number: u8| sample::server(format!("srv_{number:026}").parse().unwrap());
        let servers = [server(1), server(2), server(3), server(4)];
        let now = Moment(0).plus(Duration::from_hours(1));
        let said = [
            (servers[0].id, (now, stats(100, 50))),
            (servers[1].id, (now, stats(300, 20))),
            (servers[2].id, (Moment(0), stats(999, 1))),
        ];
        let taken = taken(servers.iter(), &said.into(), now);
        let expected = Taken {
            servers: 2,
            gateway_millicores: 20,
            gateway_memory_bytes: 400,
            gateway_memory_most_bytes: 300,
            memory_available_least_bytes: Some(20),
            disk_free_least_bytes: Some(20),
        };
        assert_eq!(taken, expected);
    }
}
