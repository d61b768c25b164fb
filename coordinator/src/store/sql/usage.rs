//! What was used of models. The proxy writes; this reads, and tells of instances that never rest.

use async_trait::async_trait;
use serde_json::json;
use sqlx::Row as _;
use tidepool_shared::id::InstanceId;

use super::{Row, SqlStore, dialect, during, events::About, rows, transaction};
use crate::{
    ambient::Moment,
    model::{Restless, Spent, UsageCursor, UsageRecord, UsageSum},
    store::{Stored, UsageStore},
};

/// Microseconds.
const DAY: i64 = 86_400_000_000;
/// An instance is told of once in this time.
const TELL_AGAIN: std::time::Duration = std::time::Duration::from_hours(24);

#[async_trait]
impl UsageStore for SqlStore {
    async fn usage(&self, id: InstanceId, from: Moment, to: Moment) -> Stored<Vec<UsageSum>> {
        let doing = "add up what an instance used";
        let found = sqlx::query(
            "SELECT at / $4 AS day, provider, model, payer,
                    count(*) AS requests,
                    sum(CASE WHEN estimated THEN 1 ELSE 0 END) AS estimated,
                    sum(CASE WHEN cost_microcents IS NULL THEN 1 ELSE 0 END) AS unpriced,
                    CAST(sum(input) AS BIGINT) AS input,
                    CAST(sum(cache_read) AS BIGINT) AS cache_read,
                    CAST(sum(cache_write_5m + cache_write_1h) AS BIGINT) AS cache_write,
                    CAST(sum(output) AS BIGINT) AS output,
                    CAST(sum(coalesce(cost_microcents, 0)) AS BIGINT) AS cost_microcents
             FROM usage_records
             WHERE instance_id = $1 AND at >= $2 AND at < $3
             GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
        )
        .bind(id.to_string())
        .bind(from.0)
        .bind(to.0)
        .bind(DAY)
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        found
            .iter()
            .map(sum)
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }

    async fn spent(&self, id: InstanceId, now: Moment) -> Stored<Spent> {
        let doing = "read what an instance spent";
        let date = now.rfc3339();
        let found = sqlx::query(
            "SELECT coalesce((SELECT microcents FROM spending
                              WHERE instance_id = $1 AND period = $2), 0) AS day,
                    coalesce((SELECT microcents FROM spending
                              WHERE instance_id = $1 AND period = $3), 0) AS month",
        )
        .bind(id.to_string())
        .bind(date.get(..10).unwrap_or_default())
        .bind(date.get(..7).unwrap_or_default())
        .fetch_one(self.readers())
        .await
        .map_err(during(doing))?;
        let spent = || {
            Ok(Spent {
                day: rows::unsigned(&found, "day")?,
                month: rows::unsigned(&found, "month")?,
            })
        };
        spent().map_err(during(doing))
    }

    async fn usage_records(
        &self,
        after: Option<UsageCursor>,
        limit: u32,
    ) -> Stored<Vec<(UsageCursor, UsageRecord)>> {
        let doing = "read usage records";
        let after = after.unwrap_or(UsageCursor {
            transaction: 0,
            ordinal: 0,
        });
        let found = sqlx::query(dialect::USAGE_RECORDS)
            .bind(after.transaction.to_string())
            .bind(after.ordinal.cast_signed())
            .bind(i64::from(limit))
            .fetch_all(self.readers())
            .await
            .map_err(during(doing))?;
        found
            .iter()
            .map(|row| Ok((cursor(row)?, record(row)?)))
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }

    async fn tell_restless(&self, pattern: &Restless, now: Moment) -> Stored<Vec<InstanceId>> {
        let pause = i64::try_from(pattern.longest_pause.as_micros()).unwrap_or(i64::MAX);
        let since = now.minus(pattern.window);
        transaction!(self, "tell of restless instances", |tx| {
            let found = sqlx::query(
                "SELECT instance_id, count(*) AS requests,
                        CAST(sum(cost) AS BIGINT) AS cost_microcents
                 FROM (SELECT instance_id, at, coalesce(cost_microcents, 0) AS cost,
                              at - lag(at) OVER (PARTITION BY instance_id ORDER BY at) AS pause
                       FROM usage_records
                       WHERE at > $1 AND at <= $2 AND payer = 'managed' AND instance_id IS NOT NULL) AS calls
                 WHERE NOT EXISTS (SELECT 1 FROM restless_instances AS told
                                   WHERE told.instance_id = calls.instance_id
                                     AND told.pattern = $4 AND told.told_at > $5)
                   AND EXISTS (SELECT 1 FROM instances WHERE id = calls.instance_id)
                 GROUP BY instance_id
                 HAVING max(coalesce(pause, 0)) <= $3 AND min(at) <= $1 + $3 AND max(at) >= $2 - $3
                 ORDER BY instance_id",
            )
            .bind(since.0)
            .bind(now.0)
            .bind(pause)
            .bind(pattern.name)
            .bind(now.minus(TELL_AGAIN).0)
            .fetch_all(&mut *tx)
            .await?;
            let mut journal = self.journal(now);
            let mut told = Vec::new();
            for row in &found {
                let id: InstanceId = rows::parsed(row, "instance_id")?;
                sqlx::query(
                    "INSERT INTO restless_instances (instance_id, pattern, told_at)
                     VALUES ($1, $2, $3)
                     ON CONFLICT (instance_id, pattern) DO UPDATE SET told_at = excluded.told_at",
                )
                .bind(id.to_string())
                .bind(pattern.name)
                .bind(now.0)
                .execute(&mut *tx)
                .await?;
                let data = json!({
                    "pattern": pattern.name,
                    "minutes": pattern.window.as_secs() / 60,
                    "requests": rows::unsigned(row, "requests")?,
                    "cost_microcents": rows::unsigned(row, "cost_microcents")?,
                });
                journal.note("usage.restless", About::Instance(id), &data);
                told.push(id);
            }
            journal.write(tx).await.map(|()| told)
        })
    }
}

#[cfg(any(test, feature = "test-util"))]
#[async_trait]
impl crate::store::UsageFixture for SqlStore {
    async fn insert_usage(&self, record: &UsageRecord, at: Moment) -> Stored<()> {
        transaction!(self, "write a usage record", |tx| {
            sqlx::query(
                "INSERT INTO usage_records (id, request_id, server_id, instance_id, provider, model,
                    asked_model, dialect, input, cache_read, cache_write_5m, cache_write_1h, output,
                    reasoning, cost_microcents, payer, status, outcome, estimated, first_token_ms,
                    total_ms, at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                    $18, $19, $20, $21, $22)",
            )
            .bind(&record.id)
            .bind(&record.request_id)
            .bind(&record.server)
            .bind(&record.instance)
            .bind(&record.provider)
            .bind(&record.model)
            .bind(&record.asked_model)
            .bind(&record.dialect)
            .bind(record.input_tokens.cast_signed())
            .bind(record.cache_read_tokens.cast_signed())
            .bind(record.cache_write_5m_tokens.cast_signed())
            .bind(record.cache_write_1h_tokens.cast_signed())
            .bind(record.output_tokens.cast_signed())
            .bind(record.reasoning_tokens.cast_signed())
            .bind(record.cost_microcents.map(u64::cast_signed))
            .bind(&record.payer)
            .bind(i32::from(record.status))
            .bind(&record.outcome)
            .bind(record.estimated)
            .bind(record.first_token_ms.map(u64::cast_signed))
            .bind(record.total_ms.cast_signed())
            .bind(at.0)
            .execute(&mut *tx)
            .await
            .map(drop)
        })
    }
}

fn cursor(row: &Row) -> sqlx::Result<UsageCursor> {
    Ok(UsageCursor {
        transaction: rows::parsed(row, "transaction")?,
        ordinal: rows::unsigned(row, "ordinal")?,
    })
}

fn record(row: &Row) -> sqlx::Result<UsageRecord> {
    let status: i32 = row.try_get("status")?;
    Ok(UsageRecord {
        id: row.try_get("id")?,
        request_id: row.try_get("request_id")?,
        instance: row.try_get("instance_id")?,
        server: row.try_get("server_id")?,
        provider: row.try_get("provider")?,
        model: row.try_get("model")?,
        asked_model: row.try_get("asked_model")?,
        dialect: row.try_get("dialect")?,
        input_tokens: rows::unsigned(row, "input")?,
        cache_read_tokens: rows::unsigned(row, "cache_read")?,
        cache_write_5m_tokens: rows::unsigned(row, "cache_write_5m")?,
        cache_write_1h_tokens: rows::unsigned(row, "cache_write_1h")?,
        output_tokens: rows::unsigned(row, "output")?,
        reasoning_tokens: rows::unsigned(row, "reasoning")?,
        cost_microcents: rows::maybe_number(row, "cost_microcents")?,
        payer: row.try_get("payer")?,
        status: u16::try_from(status).unwrap_or(0),
        outcome: row.try_get("outcome")?,
        estimated: row.try_get("estimated")?,
        first_token_ms: rows::maybe_number(row, "first_token_ms")?,
        total_ms: rows::unsigned(row, "total_ms")?,
        at: rows::moment(row, "at")?.rfc3339(),
    })
}

fn sum(row: &Row) -> sqlx::Result<UsageSum> {
    Ok(UsageSum {
        day: row.try_get("day")?,
        provider: row.try_get("provider")?,
        model: row.try_get("model")?,
        payer: row.try_get("payer")?,
        requests: rows::unsigned(row, "requests")?,
        estimated: rows::unsigned(row, "estimated")?,
        unpriced: rows::unsigned(row, "unpriced")?,
        input: rows::unsigned(row, "input")?,
        cache_read: rows::unsigned(row, "cache_read")?,
        cache_write: rows::unsigned(row, "cache_write")?,
        output: rows::unsigned(row, "output")?,
        cost_microcents: rows::unsigned(row, "cost_microcents")?,
    })
}
