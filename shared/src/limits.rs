//! What a customer may use of models: set by the coordinator, kept to by the proxy.

/// Limits of a tier or of an instance; whatever is absent is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub requests_per_minute: Option<u64>,
    /// What models read and write, caches included.
    pub tokens_per_minute: Option<u64>,
    /// Hundred-millionths of a US dollar in a day, UTC.
    pub day_microcents: Option<u64>,
    /// The same in a calendar month, UTC.
    pub month_microcents: Option<u64>,
}

impl Limits {
    /// How the store calls the limits of a tier. Those of an instance are called by its id.
    pub fn subject_of_tier(tier: &str) -> String {
        format!("tier/{tier}")
    }

    /// Whether rates are limited.
    pub fn limit_rates(&self) -> bool {
        self.requests_per_minute.is_some() || self.tokens_per_minute.is_some()
    }

    /// Whether spending is.
    pub fn limit_spending(&self) -> bool {
        self.day_microcents.is_some() || self.month_microcents.is_some()
    }

    /// These, and one by one the others' where these have none: an instance's own go before its tier's.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.or(other.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.or(other.tokens_per_minute),
            day_microcents: self.day_microcents.or(other.day_microcents),
            month_microcents: self.month_microcents.or(other.month_microcents),
        }
    }
}
