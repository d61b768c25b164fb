//! What is noted about an attempt: who asked whom for what, and how it ended.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tidepool_shared::id::{InstanceId, ServerId};

use crate::usage::Usage;

/// An upstream that is about to be asked. A retry or a fallback is another attempt.
///
/// Texts longer than 200 characters are cut, and control characters replaced.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The same for all attempts of one request.
    pub request_id: String,
    pub server: ServerId,
    /// `None`: a server of the pool that belongs to nobody yet.
    pub instance: Option<InstanceId>,
    pub provider: String,
    /// As the provider names it.
    pub model: String,
    /// As the client asked for it: an alias, or a name.
    pub asked_model: String,
    pub dialect: &'static str,
    pub payer: Payer,
    /// What it will use if nothing is ever heard of it, the likely length of the answer included: a proxy that dies
    /// must not make an answer free.
    pub estimate: Usage,
    /// The price of `estimate`, in hundred-millionths of a US dollar; `None`: there is no price.
    pub estimate_cost_microcents: Option<u64>,
    /// Whose grant it goes on, if its instance has a budget.
    pub holder: Option<String>,
    pub at: SystemTime,
}

/// Whose key it goes out with, and so who is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payer {
    /// Ours: charged to the customer.
    Managed,
    /// The customer's: the cost is noted and not charged.
    Own,
    /// Nobody's: the built-in demo model.
    Demo,
}

/// What is known of an attempt while it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The upstream's; 0 until it answered.
    pub status: u16,
    pub usage: Usage,
    pub cost_microcents: Option<u64>,
    pub first_token_ms: Option<u64>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The upstream's; 0 if it never answered.
    pub status: u16,
    pub outcome: Outcome,
    pub usage: Usage,
    /// In hundred-millionths of a US dollar; `None`: there is no price.
    pub cost_microcents: Option<u64>,
    /// Whether `usage` is a guess, not the provider's own count.
    pub estimated: bool,
    pub first_token_ms: Option<u64>,
    pub total_ms: u64,
}

/// In what way it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole answer went to the client.
    Completed,
    /// The upstream answered with an error status.
    UpstreamRefused,
    /// The upstream could not be reached or did not answer.
    UpstreamFailed,
    /// The upstream broke off, or reported an error, after it had begun to answer.
    UpstreamBroke,
    /// The client went away.
    ClientLeft,
    /// Whoever handled it ended without saying how: a panic, or a task that was cancelled.
    Abandoned,
    /// The proxy ended before the attempt did.
    ProxyDied,
}

impl Outcome {
    /// As the database has it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamFailed => "upstream_failed",
            Self::UpstreamBroke => "upstream_broke",
            Self::ClientLeft => "client_left",
            Self::Abandoned => "abandoned",
            Self::ProxyDied => "proxy_died",
        }
    }
}
