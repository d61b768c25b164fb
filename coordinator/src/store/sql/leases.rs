//! Leases and coordinators. Of several coordinators each has a clock of its own, so what is compared
//! between them is timed by one: see `dialect::now`.

use std::time::Duration;

use async_trait::async_trait;
use tidepool_shared::id::CoordinatorId;

use super::{SqlStore, dialect, during, rows, transaction};
use crate::{
    ambient::Moment,
    model::Coordinator,
    store::{LeaseStore, Stored},
};

#[async_trait]
impl LeaseStore for SqlStore {
    async fn acquire_lease(
        &self,
        name: &str,
        holder: CoordinatorId,
        ttl: Duration,
        now: Moment,
    ) -> Stored<Option<Moment>> {
        let doing = "acquire a lease";
        let now = dialect::now(self, now).await.map_err(during(doing))?;
        let expires = now.plus(ttl);
        let taken = transaction!(self, "acquire a lease", |tx| {
            sqlx::query(
                "INSERT INTO leases (name, holder, expires_at) VALUES ($1, $2, $3)
                 ON CONFLICT (name) DO UPDATE
                 SET holder = excluded.holder, expires_at = excluded.expires_at
                 WHERE leases.holder = excluded.holder OR leases.expires_at <= $4",
            )
            .bind(name)
            .bind(holder.to_string())
            .bind(expires.0)
            .bind(now.0)
            .execute(&mut *tx)
            .await
        })?;
        Ok((taken.rows_affected() == 1).then_some(expires))
    }

    async fn release_lease(&self, name: &str, holder: CoordinatorId) -> Stored<()> {
        transaction!(self, "release a lease", |tx| {
            sqlx::query("DELETE FROM leases WHERE name = $1 AND holder = $2")
                .bind(name)
                .bind(holder.to_string())
                .execute(&mut *tx)
                .await
        })
        .map(drop)
    }

    async fn heartbeat(
        &self,
        coordinator: CoordinatorId,
        api_address: &str,
        now: Moment,
    ) -> Stored<()> {
        let doing = "write a coordinator's heartbeat";
        let now = dialect::now(self, now).await.map_err(during(doing))?;
        transaction!(self, "write a coordinator's heartbeat", |tx| {
            sqlx::query(
                "INSERT INTO coordinators (id, api_address, heartbeat_at) VALUES ($1, $2, $3)
                 ON CONFLICT (id) DO UPDATE
                 SET api_address = excluded.api_address, heartbeat_at = excluded.heartbeat_at",
            )
            .bind(coordinator.to_string())
            .bind(api_address)
            .bind(now.0)
            .execute(&mut *tx)
            .await
        })
        .map(drop)
    }

    async fn live_coordinators(&self, within: Duration, now: Moment) -> Stored<Vec<Coordinator>> {
        let doing = "read the coordinators";
        let now = dialect::now(self, now).await.map_err(during(doing))?;
        let since = now.minus(within);
        let found = sqlx::query("SELECT * FROM coordinators WHERE heartbeat_at >= $1 ORDER BY id")
            .bind(since.0)
            .fetch_all(self.readers())
            .await
            .map_err(during(doing))?;
        found
            .iter()
            .map(rows::coordinator)
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }
}
