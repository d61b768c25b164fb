//! What a customer may use: rates a minute, and spending on the operator's keys.

use std::{collections::HashMap, sync::Arc};

use sqlx::FromRow;
use tidepool_shared::id::InstanceId;
pub use tidepool_shared::limits::Limits;

#[derive(Debug, FromRow)]
pub(crate) struct LimitsRow {
    subject: String,
    requests_per_minute: Option<i64>,
    tokens_per_minute: Option<i64>,
    day_microcents: Option<i64>,
    month_microcents: Option<i64>,
}

/// All limits, as the operator set them.
#[derive(Debug, Default)]
pub(crate) struct Table(HashMap<String, Limits>);

impl Table {
    pub(crate) fn of(rows: Vec<LimitsRow>) -> Self {
        // A negative limit lets nothing through, like zero.
        let number = |limit: Option<i64>| limit.map(|limit| u64::try_from(limit).unwrap_or(0));
        let limits = rows.into_iter().map(|row| {
            let limits = Limits {
                requests_per_minute: number(row.requests_per_minute),
                tokens_per_minute: number(row.tokens_per_minute),
                day_microcents: number(row.day_microcents),
                month_microcents: number(row.month_microcents),
            };
            (row.subject, limits)
        });
        Self(limits.collect())
    }

    /// An instance's own go before its tier's, one by one.
    pub(crate) fn limits_of(&self, instance: InstanceId, tier: &Arc<str>) -> Limits {
        let of = |subject: &str| self.0.get(subject).copied().unwrap_or_default();
        of(&instance.to_string()).or(of(&Limits::subject_of_tier(tier)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(subject: &str, requests: Option<i64>, day: Option<i64>) -> LimitsRow {
        LimitsRow {
            subject: subject.to_owned(),
            requests_per_minute: requests,
            tokens_per_minute: None,
            day_microcents: day,
            month_microcents: None,
        }
    }

    #[test]
    fn an_instances_limits_go_before_its_tiers_one_by_one() {
        const ID: &str = "inst_00000000000000000000000001";
        let table = Table::of(vec![
            row("tier/basic", Some(60), Some(500)),
            row(ID, Some(-1), None),
        ]);
        let limits = table.limits_of(ID.parse().unwrap(), &"basic".into());
        assert_eq!(limits.requests_per_minute, Some(0));
        assert_eq!(limits.day_microcents, Some(500));
        assert!(limits.limit_rates() && limits.limit_spending());
        let other = table.limits_of(ID.parse().unwrap(), &"pro".into());
        assert_eq!(other.day_microcents, None);
    }
}
