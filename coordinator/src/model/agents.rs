//! The agents' own versions, and how another one comes to them.

use serde::{Deserialize, Serialize};
use tidepool_shared::id::ServerId;

use super::ServerState;
use crate::ambient::Moment;

words! {
    /// What became of a version on one server.
    AgentEnding {
        /// It runs, and has passed its trial.
        Kept = "kept",
        /// It was never started there.
        Refused = "refused",
        /// It failed its trial, and the one before is back.
        RolledBack = "rolled_back",
    }
}

/// A server's agent, of a server that has not begun to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    pub server: ServerId,
    pub server_name: String,
    pub server_state: ServerState,
    /// Some coordinator holds its link.
    pub is_linked: bool,
    /// What it called itself when its link came up.
    pub version: String,
    /// The last rollout that it was in.
    pub rollout: Option<u64>,
    /// When it was put in it.
    pub since: Option<Moment>,
    /// What became of that; nothing as long as it is under way.
    pub ending: Option<AgentEnding>,
    pub reason: Option<String>,
}

/// A version on its way to the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRollout {
    pub id: u64,
    pub version: String,
    /// As agents are sent it.
    pub signed: String,
    /// So many servers must keep it before others get it.
    pub canary: u32,
    /// After that, how many of all servers may be under way at once.
    pub percent: u32,
    /// Why no other server gets it.
    pub halted: Option<String>,
    pub created_at: Moment,
}

/// A rollout to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAgentRollout {
    pub version: String,
    pub signed: String,
    pub canary: u32,
    pub percent: u32,
}
