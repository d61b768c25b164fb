//! Where the API gets a gateway's log from: the server's agent, by whoever holds its link.

use async_trait::async_trait;
use tidepool_shared::id::ServerId;

use crate::link::Links;

/// The server has no link now, or did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server does not answer now")]
pub struct LogsUnavailable;

/// Fetches the end of a gateway's log.
#[async_trait]
pub trait GatewayLogs: Send + Sync + 'static {
    /// At most `lines` lines, oldest first.
    async fn logs(&self, server: ServerId, lines: u32) -> Result<Vec<String>, LogsUnavailable>;
}

#[async_trait]
impl GatewayLogs for Links {
    async fn logs(&self, server: ServerId, lines: u32) -> Result<Vec<String>, LogsUnavailable> {
        Self::logs(self, server, lines).await.map_err(|error| {
            let error: &dyn std::error::Error = &error;
            tracing::info!(server.id = %server, error, "a log could not be read");
            LogsUnavailable
        })
    }
}
