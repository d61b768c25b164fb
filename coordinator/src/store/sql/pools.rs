//! Pools: a row for each that was ever touched; no row means that all is well with it.

use std::collections::HashSet;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    Connection, SqlStore, during,
    events::{About, Journal},
    rows, transaction,
};
use crate::{
    ambient::Moment,
    cloud::Placement,
    model::{PoolKey, PoolStanding},
    store::{PoolStore, Stored},
};

/// Arrivals that are read at the most: with more the target is at its ceiling anyway.
const MOST_ARRIVALS: i64 = 10_000;

#[async_trait]
impl PoolStore for SqlStore {
    async fn pool_standing(&self, pool: &PoolKey) -> Stored<PoolStanding> {
        let doing = "read how a pool stands";
        let found = sqlx::query("SELECT * FROM pools WHERE tier = $1 AND region = $2")
            .bind(&pool.tier)
            .bind(&pool.region)
            .fetch_optional(self.readers())
            .await
            .map_err(during(doing))?;
        found.map_or_else(
            || Ok(PoolStanding::default()),
            |row| rows::standing(&row).map_err(during(doing)),
        )
    }

    async fn arrivals(&self, pool: &PoolKey, since: Moment) -> Stored<Vec<Moment>> {
        let doing = "read when customers came";
        let found = sqlx::query(
            "SELECT created_at FROM instances
             WHERE tier = $1 AND region = $2 AND created_at > $3
             ORDER BY created_at DESC LIMIT $4",
        )
        .bind(&pool.tier)
        .bind(&pool.region)
        .bind(since.0)
        .bind(MOST_ARRIVALS)
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        let moments = found.iter().map(|row| rows::moment(row, "created_at"));
        moments.collect::<sqlx::Result<_>>().map_err(during(doing))
    }

    async fn pause_pool(&self, pool: &PoolKey, now: Moment) -> Stored<()> {
        transaction!(self, "pause a pool", |tx| {
            known(&mut *tx, pool).await?;
            let paused = sqlx::query(
                "UPDATE pools SET paused = true WHERE tier = $1 AND region = $2 AND NOT paused",
            );
            tell_if(
                tx,
                self.journal(now),
                paused,
                pool,
                "pool.paused",
                &json!({}),
            )
            .await
        })
    }

    async fn resume_pool(&self, pool: &PoolKey, now: Moment) -> Stored<()> {
        transaction!(self, "resume a pool", |tx| {
            known(&mut *tx, pool).await?;
            let resumed = sqlx::query(
                "UPDATE pools SET paused = false, halted = false, failures = 0,
                        last_failure = NULL, held_until = NULL
                 WHERE tier = $1 AND region = $2",
            );
            tell_if(
                tx,
                self.journal(now),
                resumed,
                pool,
                "pool.resumed",
                &json!({}),
            )
            .await
        })
    }

    async fn halt_pool(&self, pool: &PoolKey, now: Moment) -> Stored<()> {
        transaction!(self, "halt a pool", |tx| {
            known(&mut *tx, pool).await?;
            let halted = sqlx::query(
                "UPDATE pools SET halted = true WHERE tier = $1 AND region = $2 AND NOT halted",
            );
            tell_if(
                tx,
                self.journal(now),
                halted,
                pool,
                "pool.halted",
                &json!({}),
            )
            .await
        })
    }

    async fn hold_pool(&self, pool: &PoolKey, until: Moment, why: &str, now: Moment) -> Stored<()> {
        transaction!(self, "hold a pool", |tx| {
            known(&mut *tx, pool).await?;
            let held = sqlx::query(
                "UPDATE pools SET held_until = $3
                 WHERE tier = $1 AND region = $2 AND coalesce(held_until, 0) <= $4",
            )
            .bind(&pool.tier)
            .bind(&pool.region)
            .bind(until.0)
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            let mut journal = self.journal(now);
            if held.rows_affected() > 0 {
                journal.note(
                    "pool.held",
                    About::Nothing,
                    &about(pool, &json!({ "why": why })),
                );
            }
            journal.write(tx).await
        })
    }

    async fn pool_fell_below(&self, pool: &PoolKey, now: Moment) -> Stored<()> {
        transaction!(self, "note that a pool fell below its target", |tx| {
            known(&mut *tx, pool).await?;
            sqlx::query(
                "UPDATE pools SET below_since = $3, told_below = false
                 WHERE tier = $1 AND region = $2 AND below_since IS NULL",
            )
            .bind(&pool.tier)
            .bind(&pool.region)
            .bind(now.0)
            .execute(&mut *tx)
            .await
            .map(drop)
        })
    }

    async fn tell_pool_below(&self, pool: &PoolKey, now: Moment) -> Stored<()> {
        transaction!(self, "tell that a pool is below its target", |tx| {
            let told = sqlx::query(
                "UPDATE pools SET told_below = true
                 WHERE tier = $1 AND region = $2 AND below_since IS NOT NULL AND NOT told_below",
            );
            tell_if(
                tx,
                self.journal(now),
                told,
                pool,
                "pool.below_target",
                &json!({}),
            )
            .await
        })
    }

    async fn pool_reached(&self, pool: &PoolKey, now: Moment) -> Stored<()> {
        transaction!(self, "note that a pool reached its target", |tx| {
            let told = sqlx::query(
                "UPDATE pools SET told_below = false
                 WHERE tier = $1 AND region = $2 AND told_below",
            );
            let journal = self.journal(now);
            tell_if(&mut *tx, journal, told, pool, "pool.recovered", &json!({})).await?;
            sqlx::query("UPDATE pools SET below_since = NULL WHERE tier = $1 AND region = $2")
                .bind(&pool.tier)
                .bind(&pool.region)
                .execute(&mut *tx)
                .await
                .map(drop)
        })
    }

    async fn cool(&self, placement: &Placement, until: Moment) -> Stored<()> {
        transaction!(self, "leave a placement alone", |tx| {
            sqlx::query(
                "INSERT INTO cooling (server_type, location, until) VALUES ($1, $2, $3)
                 ON CONFLICT (server_type, location) DO UPDATE SET until = excluded.until",
            )
            .bind(&placement.server_type)
            .bind(&placement.location)
            .bind(until.0)
            .execute(&mut *tx)
            .await
            .map(drop)
        })
    }

    async fn cooling(&self, now: Moment) -> Stored<HashSet<Placement>> {
        let doing = "read which placements are left alone";
        let found = sqlx::query("SELECT server_type, location FROM cooling WHERE until > $1")
            .bind(now.0)
            .fetch_all(self.readers())
            .await
            .map_err(during(doing))?;
        found
            .iter()
            .map(rows::placement)
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }
}

/// Makes a pool's row if there is none.
pub(super) async fn known(tx: &mut Connection, pool: &PoolKey) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO pools (tier, region) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(&pool.tier)
        .bind(&pool.region)
        .execute(tx)
        .await
        .map(drop)
}

/// Counts a server that did not become warm.
pub(super) async fn failed(tx: &mut Connection, pool: &PoolKey, now: Moment) -> sqlx::Result<()> {
    known(&mut *tx, pool).await?;
    sqlx::query(
        "UPDATE pools SET failures = failures + 1, last_failure = $3
         WHERE tier = $1 AND region = $2",
    )
    .bind(&pool.tier)
    .bind(&pool.region)
    .bind(now.0)
    .execute(tx)
    .await
    .map(drop)
}

/// A server became warm: the failures before it were not in a row.
pub(super) async fn warmed(tx: &mut Connection, pool: &PoolKey) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE pools SET failures = 0, last_failure = NULL
         WHERE tier = $1 AND region = $2 AND failures > 0",
    )
    .bind(&pool.tier)
    .bind(&pool.region)
    .execute(tx)
    .await
    .map(drop)
}

type Query<'q> =
    sqlx::query::Query<'q, super::Database, <super::Database as sqlx::Database>::Arguments>;

/// Runs a change of a pool, which takes its tier and region, and tells of it if it changed something.
async fn tell_if(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    change: Query<'_>,
    pool: &PoolKey,
    kind: &str,
    data: &Value,
) -> sqlx::Result<()> {
    let changed = change
        .bind(pool.tier.clone())
        .bind(pool.region.clone())
        .execute(&mut *tx)
        .await?;
    if changed.rows_affected() > 0 {
        journal.note(kind, About::Nothing, &about(pool, data));
        journal.write(tx).await?;
    }
    Ok(())
}

fn about(pool: &PoolKey, data: &Value) -> Value {
    let mut whole = json!({ "tier": pool.tier, "region": pool.region });
    if let (Some(whole), Some(data)) = (whole.as_object_mut(), data.as_object()) {
        whole.extend(data.clone());
    }
    whole
}
