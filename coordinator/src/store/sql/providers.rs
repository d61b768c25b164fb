//! Providers, the names of models, and limits.

use async_trait::async_trait;
use sqlx::Row as _;
use tidepool_shared::limits::Limits;

use super::{Row, SqlStore, during, rows, transaction};
use crate::{
    model::{ModelAlias, ModelLimits, Provider},
    store::{ModelStore, Stored, Transition},
};

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
            // A key goes where it was given for, and nowhere else.
            sqlx::query(
                "DELETE FROM customer_keys WHERE provider = $1 AND EXISTS
                    (SELECT 1 FROM providers WHERE name = $1 AND base_url <> $2)",
            )
            .bind(&new.name)
            .bind(&new.base_url)
            .execute(&mut *tx)
            .await?;
            // One that is not given stays, unless the requests would go to another address with it.
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

    async fn limits(&self) -> Stored<Vec<ModelLimits>> {
        let doing = "read the limits";
        let found = sqlx::query("SELECT * FROM model_limits ORDER BY subject")
            .fetch_all(self.readers())
            .await
            .map_err(during(doing))?;
        let limits = found.iter().map(limits);
        limits.collect::<sqlx::Result<_>>().map_err(during(doing))
    }

    async fn put_limits(&self, new: &ModelLimits) -> Stored<()> {
        let signed = |number: Option<u64>| number.map(u64::cast_signed);
        transaction!(self, "write limits", |tx| {
            sqlx::query(
                "INSERT INTO model_limits (subject, requests_per_minute, tokens_per_minute,
                    day_microcents, month_microcents, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (subject) DO UPDATE SET
                    requests_per_minute = excluded.requests_per_minute,
                    tokens_per_minute = excluded.tokens_per_minute,
                    day_microcents = excluded.day_microcents,
                    month_microcents = excluded.month_microcents,
                    updated_at = excluded.updated_at",
            )
            .bind(&new.subject)
            .bind(signed(new.limits.requests_per_minute))
            .bind(signed(new.limits.tokens_per_minute))
            .bind(signed(new.limits.day_microcents))
            .bind(signed(new.limits.month_microcents))
            .bind(new.updated_at.0)
            .execute(&mut *tx)
            .await
            .map(drop)
        })
    }

    async fn delete_limits(&self, subject: &str) -> Stored<Transition> {
        transaction!(self, "delete limits", |tx| {
            let deleted = sqlx::query("DELETE FROM model_limits WHERE subject = $1")
                .bind(subject)
                .execute(&mut *tx)
                .await?;
            Ok(transition(deleted.rows_affected()))
        })
    }
}

pub(super) fn transition(rows: u64) -> Transition {
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

fn limits(row: &Row) -> sqlx::Result<ModelLimits> {
    Ok(ModelLimits {
        subject: row.try_get("subject")?,
        limits: Limits {
            requests_per_minute: rows::maybe_number(row, "requests_per_minute")?,
            tokens_per_minute: rows::maybe_number(row, "tokens_per_minute")?,
            day_microcents: rows::maybe_number(row, "day_microcents")?,
            month_microcents: rows::maybe_number(row, "month_microcents")?,
        },
        updated_at: rows::moment(row, "updated_at")?,
    })
}
