//! Providers, the names of models, and what was used.

use async_trait::async_trait;
use sqlx::Row as _;
use tidepool_shared::id::InstanceId;

use super::{Row, SqlStore, during, rows, transaction};
use crate::{
    ambient::Moment,
    model::{ModelAlias, Provider, UsageSum},
    store::{ModelStore, Stored, Transition},
};

/// Microseconds.
const DAY: i64 = 86_400_000_000;

#[async_trait]
impl ModelStore for SqlStore {
    async fn providers(&self) -> Stored<Vec<Provider>> {
        let doing = "read the providers";
        let found = sqlx::query("SELECT * FROM providers ORDER BY name")
            .fetch_all(self.readers())
            .await
            .map_err(during(doing))?;
        let providers = found.iter().map(provider);
        providers
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }

    async fn put_provider(&self, new: &Provider) -> Stored<()> {
        transaction!(self, "write a provider", |tx| {
            // A key that is not given stays, unless the requests would go to another address with it.
            sqlx::query(
                "INSERT INTO providers (name, kind, base_url, sealed_key, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $5)
                 ON CONFLICT (name) DO UPDATE SET
                    kind = excluded.kind, base_url = excluded.base_url,
                    sealed_key = CASE
                        WHEN excluded.sealed_key IS NOT NULL THEN excluded.sealed_key
                        WHEN providers.base_url = excluded.base_url THEN providers.sealed_key
                        ELSE NULL END,
                    updated_at = excluded.updated_at",
            )
            .bind(&new.name)
            .bind(&new.kind)
            .bind(&new.base_url)
            .bind(&new.sealed_key)
            .bind(new.updated_at.0)
            .execute(&mut *tx)
            .await
            .map(drop)
        })
    }

    async fn delete_provider(&self, name: &str) -> Stored<Transition> {
        transaction!(self, "delete a provider", |tx| {
            let deleted = sqlx::query("DELETE FROM providers WHERE name = $1")
                .bind(name)
                .execute(&mut *tx)
                .await?;
            Ok(transition(deleted.rows_affected()))
        })
    }

    async fn aliases(&self) -> Stored<Vec<ModelAlias>> {
        let doing = "read the names of models";
        let found = sqlx::query("SELECT * FROM model_aliases ORDER BY tier, alias")
            .fetch_all(self.readers())
            .await
            .map_err(during(doing))?;
        let aliases = found.iter().map(alias);
        aliases.collect::<sqlx::Result<_>>().map_err(during(doing))
    }

    async fn put_alias(&self, new: &ModelAlias) -> Stored<()> {
        transaction!(self, "write the name of a model", |tx| {
            sqlx::query(
                "INSERT INTO model_aliases (tier, alias, targets, updated_at)
                 VALUES ($1, $2, $3, $4)
                 ON CONFLICT (tier, alias) DO UPDATE SET
                    targets = excluded.targets, updated_at = excluded.updated_at",
            )
            .bind(&new.tier)
            .bind(&new.alias)
            .bind(&new.targets)
            .bind(new.updated_at.0)
            .execute(&mut *tx)
            .await
            .map(drop)
        })
    }

    async fn delete_alias(&self, tier: &str, alias: &str) -> Stored<Transition> {
        transaction!(self, "delete the name of a model", |tx| {
            let deleted = sqlx::query("DELETE FROM model_aliases WHERE tier = $1 AND alias = $2")
                .bind(tier)
                .bind(alias)
                .execute(&mut *tx)
                .await?;
            Ok(transition(deleted.rows_affected()))
        })
    }

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
}

fn transition(rows: u64) -> Transition {
    if rows > 0 {
        Transition::Done
    } else {
        Transition::NotPossible
    }
}

fn provider(row: &Row) -> sqlx::Result<Provider> {
    Ok(Provider {
        name: row.try_get("name")?,
        kind: row.try_get("kind")?,
        base_url: row.try_get("base_url")?,
        sealed_key: row.try_get("sealed_key")?,
        created_at: rows::moment(row, "created_at")?,
        updated_at: rows::moment(row, "updated_at")?,
    })
}

fn alias(row: &Row) -> sqlx::Result<ModelAlias> {
    Ok(ModelAlias {
        tier: row.try_get("tier")?,
        alias: row.try_get("alias")?,
        targets: row.try_get("targets")?,
        updated_at: rows::moment(row, "updated_at")?,
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
