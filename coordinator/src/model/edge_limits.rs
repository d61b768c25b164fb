//! What visitors may send to an instance.

use tidepool_shared::document::MAX_BODY_BYTES_DEFAULT;

/// Bounds of one instance; what is not set is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EdgeLimits {
    /// Of one request. Held by its server's nginx.
    pub max_body_bytes: Option<u64>,
    /// Held by the edge, also for Traefik's own routes.
    pub requests_per_second: Option<u32>,
    /// Requests at once after a pause.
    pub request_burst: Option<u32>,
}

impl EdgeLimits {
    /// A Control UI asks for some dozens of files when it is opened, and seldom for anything afterwards.
    pub const REQUESTS_PER_SECOND_DEFAULT: u32 = 100;
    pub const REQUEST_BURST_DEFAULT: u32 = 200;

    pub fn max_body_bytes(&self) -> u64 {
        self.max_body_bytes.unwrap_or(MAX_BODY_BYTES_DEFAULT)
    }

    pub fn requests_per_second(&self) -> u32 {
        self.requests_per_second
            .unwrap_or(Self::REQUESTS_PER_SECOND_DEFAULT)
            .max(1)
    }

    pub fn request_burst(&self) -> u32 {
        self.request_burst
            .unwrap_or(Self::REQUEST_BURST_DEFAULT)
            .max(1)
    }
}
