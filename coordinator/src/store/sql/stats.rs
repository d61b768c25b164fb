//! What servers take, as their agents last said.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::Row as _;
use tidepool_shared::id::ServerId;

use super::{Connection, Row, SqlStore, during, rows, transaction};
use crate::{
    ambient::Moment,
    model::{Stats, StatsRecord},
    store::{StatsStore, Stored},
};

#[async_trait]
impl StatsStore for SqlStore {
    async fn record_stats(&self, said: &[StatsRecord], now: Moment) -> Stored<()> {
        transaction!(self, "record what servers take", |tx| {
            record(tx, said, now).await
        })
    }

    async fn stats(&self, server: ServerId) -> Stored<Option<(Moment, Stats)>> {
        let doing = "read what a server takes";
        let found = sqlx::query("SELECT * FROM server_stats WHERE server_id = $1")
            .bind(server.to_string())
            .fetch_optional(self.readers())
            .await
            .map_err(during(doing))?;
        let read = found.as_ref().map(stats).transpose();
        read.map_err(during(doing))
    }

    async fn all_stats(&self) -> Stored<HashMap<ServerId, (Moment, Stats)>> {
        let doing = "read what servers take";
        let found = sqlx::query("SELECT * FROM server_stats ORDER BY server_id")
            .fetch_all(self.readers())
            .await
            .map_err(during(doing))?;
        found
            .iter()
            .map(|row| Ok((rows::parsed(row, "server_id")?, stats(row)?)))
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }
}

async fn record(tx: &mut Connection, said: &[StatsRecord], now: Moment) -> sqlx::Result<()> {
    for record in said {
        sqlx::query(
            "INSERT INTO server_stats (server_id, stats, at)
             SELECT id, $3, $4 FROM servers
             WHERE id = $1 AND epoch = $2 AND NOT revoked AND state <> 'gone'
             ON CONFLICT (server_id) DO UPDATE SET stats = excluded.stats, at = excluded.at",
        )
        .bind(record.server.to_string())
        .bind(rows::as_integer(record.epoch))
        .bind(rows::as_json(&record.stats)?)
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Nothing is known of what a server takes that is gone.
pub(super) async fn forget(tx: &mut Connection, server: ServerId) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM server_stats WHERE server_id = $1")
        .bind(server.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

fn stats(row: &Row) -> sqlx::Result<(Moment, Stats)> {
    Ok((Moment(row.try_get("at")?), rows::json(row, "stats")?))
}
