//! What gateways and servers take of their machines.

use serde::{Deserialize, Serialize};
use tidepool_shared::id::ServerId;
use utoipa::ToSchema;

/// What an agent saw at its last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Absent while no gateway runs, or while nobody tells.
    pub gateway: Option<GatewayStats>,
    pub host: HostStats,
}

/// What a gateway takes, with all that it has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GatewayStats {
    /// Thousandths of a core, on average since the look before.
    pub cpu_millicores: Option<u32>,
    /// Without what the kernel caches of files.
    pub memory_bytes: u64,
    /// The most that it may have.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u32,
}

/// What a server has, and what of it is taken, by whomever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostStats {
    pub cpus: u32,
    /// Thousandths of a core, on average since the look before.
    pub cpu_millicores: Option<u32>,
    pub memory_bytes: u64,
    pub memory_available_bytes: u64,
    /// Everything but the gateway: agent, nginx, Docker and the system. Absent for servers that share a machine.
    pub rest_memory_bytes: Option<u64>,
    pub agent_memory_bytes: u64,
    /// Of the file system with the customer's files.
    pub disk_bytes: u64,
    pub disk_free_bytes: u64,
}

/// What was said of a server in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatsRecord {
    pub server: ServerId,
    pub epoch: u64,
    pub stats: Stats,
}
