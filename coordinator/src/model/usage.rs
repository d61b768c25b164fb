//! What was used of models, and what it cost.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an instance used of one model on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSum {
    /// Days since 1970, UTC.
    pub day: i64,
    pub provider: String,
    pub model: String,
    /// `managed`, `own` or `demo`.
    pub payer: String,
    pub requests: u64,
    /// Of these without an exact count.
    pub estimated: u64,
    /// Of these without a price.
    pub unpriced: u64,
    pub input: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    pub output: u64,
    pub cost_microcents: u64,
}

/// What was spent on the operator's keys, in hundred-millionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    pub day: u64,
    pub month: u64,
}

/// One attempt to ask a provider, as the proxy wrote it down. Tokens are in one count each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageRecord {
    /// Unique for ever: whoever reads a record twice knows it by this.
    pub id: String,
    /// The same for all attempts of one request.
    pub request_id: String,
    pub instance: Option<String>,
    pub server: String,
    pub provider: String,
    pub model: String,
    /// As the agent asked for it.
    pub asked_model: String,
    /// `chat`, `responses`, `embeddings`, `messages` or `gemini`.
    pub dialect: String,
    pub input_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_5m_tokens: u64,
    pub cache_write_1h_tokens: u64,
    pub output_tokens: u64,
    /// A part of the output.
    pub reasoning_tokens: u64,
    /// Hundred-millionths of a US dollar; absent if there is no price.
    pub cost_microcents: Option<u64>,
    /// `managed` is charged; `own` went on the customer's key.
    pub payer: String,
    /// The provider's; 0 if it never answered.
    pub status: u16,
    /// `completed`, `upstream_refused`, `upstream_failed`, `upstream_broke`, `client_left`, `abandoned` or
    /// `proxy_died`.
    pub outcome: String,
    /// Whether the tokens are a guess, not the provider's count.
    pub estimated: bool,
    pub first_token_ms: Option<u64>,
    pub total_ms: u64,
    pub at: String,
}

/// A place between two records: the transaction that wrote the one before it, and that one's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsageCursor {
    pub transaction: u64,
    pub ordinal: u64,
}

impl fmt::Display for UsageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.transaction, self.ordinal)
    }
}

/// Not a cursor.
#[derive(Debug, thiserror::Error)]
#[error("not a cursor")]
pub struct NoCursor;

impl FromStr for UsageCursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let (transaction, ordinal) = text.split_once('-').ok_or(NoCursor)?;
        Ok(Self {
            transaction: transaction.parse().map_err(|_| NoCursor)?,
            ordinal: ordinal.parse().map_err(|_| NoCursor)?,
        })
    }
}

/// A pattern of requests that no human makes: for so long there was no pause longer than that.
#[derive(Debug, Clone, Copy)]
pub struct Restless {
    pub name: &'static str,
    pub window: Duration,
    pub longest_pause: Duration,
}
