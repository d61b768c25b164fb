//! Who may come in. Only hashes of secrets are here.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row as _;
use tidepool_shared::id::{InstanceId, TokenId};

use super::{
    Connection, SqlStore,
    documents::{self, Switch},
    during, events, instances, locked, rows,
    servers::transition,
    transaction,
};
use crate::{
    ambient::Moment,
    model::ApiToken,
    store::{AccessStore, Idempotency, ORDERS_OF_INSTANCE, Stored, Transition},
};

/// A request that holds its key for longer died with its coordinator.
const HELD_AT_MOST: Duration = Duration::from_mins(2);

/// How long an answer is repeated.
const ANSWER_KEPT: Duration = Duration::from_hours(24);

/// A coordinator that was not there for so long does not come back: each start is a new one.
const COORDINATOR_KEPT: Duration = Duration::from_hours(24);

#[async_trait]
impl AccessStore for SqlStore {
    async fn create_api_token(&self, token: &ApiToken) -> Stored<()> {
        transaction!(self, "create an API token", |tx| {
            sqlx::query(
                "INSERT INTO api_tokens (id, name, secret_hash, created_at, expires_at, revoked_at)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(token.id.to_string())
            .bind(&token.name)
            .bind(token.secret_hash.as_slice())
            .bind(token.created_at.0)
            .bind(token.expires_at.map(|at| at.0))
            .bind(token.revoked_at.map(|at| at.0))
            .execute(&mut *tx)
            .await
        })
        .map(drop)
    }

    async fn api_token(&self, id: TokenId) -> Stored<Option<ApiToken>> {
        let doing = "read an API token";
        sqlx::query("SELECT * FROM api_tokens WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(self.readers())
            .await
            .and_then(|row| row.as_ref().map(rows::api_token).transpose())
            .map_err(during(doing))
    }

    async fn api_tokens(&self) -> Stored<Vec<ApiToken>> {
        let doing = "read the API tokens";
        let found = sqlx::query("SELECT * FROM api_tokens ORDER BY created_at, id")
            .fetch_all(self.readers())
            .await
            .map_err(during(doing))?;
        found
            .iter()
            .map(rows::api_token)
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }

    async fn revoke_api_token(&self, id: TokenId, now: Moment) -> Stored<Transition> {
        transaction!(self, "revoke an API token", |tx| {
            sqlx::query(
                "UPDATE api_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
            )
            .bind(id.to_string())
            .bind(now.0)
            .execute(&mut *tx)
            .await
            .map(|result| transition(&result))
        })
    }

    async fn create_login_link(
        &self,
        secret_hash: [u8; 32],
        instance: InstanceId,
        expires: Moment,
        now: Moment,
    ) -> Stored<()> {
        transaction!(self, "create a login link", |tx| {
            // A deletion that came first wins: then there is no link, and it opens nothing.
            sqlx::query(locked!(
                "INSERT INTO login_links (hash, instance_id, created_at, expires_at)
                 SELECT $1, id, $3, $4 FROM instances WHERE id = $2
                    AND status NOT IN ('stopped', 'suspended', 'deleted', 'purged')"
            ))
            .bind(secret_hash.as_slice())
            .bind(instance.to_string())
            .bind(now.0)
            .bind(expires.0)
            .execute(&mut *tx)
            .await
        })
        .map(drop)
    }

    async fn redeem_login_link(
        &self,
        secret_hash: [u8; 32],
        instance: InstanceId,
        session_hash: [u8; 32],
        session_expires: Moment,
        now: Moment,
    ) -> Stored<bool> {
        // Anybody may make up a token as often as they like: only a link that is there costs the writer.
        if !self.has_login_link(secret_hash).await? {
            return Ok(false);
        }
        transaction!(self, "redeem a login link", |tx| {
            let spent = sqlx::query(
                "DELETE FROM login_links
                 WHERE hash = $1 AND instance_id = $2 AND expires_at > $3
                   AND NOT EXISTS (SELECT 1 FROM instances
                                   WHERE id = $2 AND status IN ('stopped', 'suspended'))",
            )
            .bind(secret_hash.as_slice())
            .bind(instance.to_string())
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            if spent.rows_affected() == 1 {
                open_session(tx, session_hash, instance, session_expires, now).await?;
            }
            Ok(spent.rows_affected() == 1)
        })
    }

    async fn session(&self, session_hash: [u8; 32], now: Moment) -> Stored<Option<InstanceId>> {
        let doing = "read a session";
        sqlx::query(
            "SELECT session.instance_id FROM sessions AS session
             JOIN instances AS instance ON instance.id = session.instance_id
                    AND instance.status NOT IN ('stopped', 'suspended')
             WHERE session.hash = $1 AND session.expires_at > $2",
        )
        .bind(session_hash.as_slice())
        .bind(now.0)
        .fetch_optional(self.readers())
        .await
        .and_then(|row| row.map(|row| rows::parsed(&row, "instance_id")).transpose())
        .map_err(during(doing))
    }

    async fn end_sessions(
        &self,
        instance: InstanceId,
        session_hash: Option<[u8; 32]>,
    ) -> Stored<u64> {
        transaction!(self, "end sessions", |tx| {
            if session_hash.is_none() && instances::hold_living(&mut *tx, instance).await? {
                // What they opened by Traefik's own route is cut by the server alone.
                documents::switch(&mut *tx, instance, Switch::Evict).await?;
            }
            sqlx::query("DELETE FROM sessions WHERE instance_id = $1 AND ($2 IS NULL OR hash = $2)")
                .bind(instance.to_string())
                .bind(session_hash.as_ref().map(<[u8; 32]>::as_slice))
                .execute(&mut *tx)
                .await
                .map(|ended| ended.rows_affected())
        })
    }

    async fn begin_idempotent(
        &self,
        token: TokenId,
        key: &str,
        request_hash: [u8; 32],
        now: Moment,
    ) -> Stored<Idempotency> {
        transaction!(self, "take an idempotency key", |tx| {
            begin_idempotent(tx, token, key, request_hash, now).await
        })
    }

    async fn finish_idempotent(
        &self,
        token: TokenId,
        key: &str,
        status: u16,
        body: &str,
        _now: Moment,
    ) -> Stored<()> {
        transaction!(self, "finish an idempotency key", |tx| {
            sqlx::query(
                "UPDATE idempotency SET status = $3, body = $4
                 WHERE token_id = $1 AND key = $2 AND status IS NULL",
            )
            .bind(token.to_string())
            .bind(key)
            .bind(i64::from(status))
            .bind(body)
            .execute(&mut *tx)
            .await
        })
        .map(drop)
    }

    async fn abandon_idempotent(&self, token: TokenId, key: &str) -> Stored<()> {
        transaction!(self, "abandon an idempotency key", |tx| {
            sqlx::query(
                "DELETE FROM idempotency WHERE token_id = $1 AND key = $2 AND status IS NULL",
            )
            .bind(token.to_string())
            .bind(key)
            .execute(&mut *tx)
            .await
        })
        .map(drop)
    }

    async fn forget_expired(&self, now: Moment) -> Stored<u64> {
        transaction!(self, "forget what is over", |tx| {
            forget_expired(tx, now).await
        })
    }
}

impl SqlStore {
    /// Whether there is a login link of this hash, whatever it is good for.
    async fn has_login_link(&self, hash: [u8; 32]) -> Stored<bool> {
        sqlx::query("SELECT 1 FROM login_links WHERE hash = $1")
            .bind(hash.as_slice())
            .fetch_optional(self.readers())
            .await
            .map(|found| found.is_some())
            .map_err(during("look a login link up"))
    }
}

async fn open_session(
    tx: &mut Connection,
    hash: [u8; 32],
    instance: InstanceId,
    expires: Moment,
    now: Moment,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO sessions (hash, instance_id, created_at, expires_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(hash.as_slice())
    .bind(instance.to_string())
    .bind(now.0)
    .bind(expires.0)
    .execute(tx)
    .await?;
    Ok(())
}

/// The row is taken if it is new, or if whoever held it is dead; otherwise it is read.
async fn begin_idempotent(
    tx: &mut Connection,
    token: TokenId,
    key: &str,
    request_hash: [u8; 32],
    now: Moment,
) -> sqlx::Result<Idempotency> {
    let dead_since = now.minus(HELD_AT_MOST).0;
    let fresh = sqlx::query(
        "INSERT INTO idempotency (token_id, key, request_hash, started_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (token_id, key) DO UPDATE
         SET request_hash = excluded.request_hash, started_at = excluded.started_at
         WHERE idempotency.status IS NULL AND idempotency.started_at < $5",
    )
    .bind(token.to_string())
    .bind(key)
    .bind(request_hash.as_slice())
    .bind(now.0)
    .bind(dead_since)
    .execute(&mut *tx)
    .await?;
    if fresh.rows_affected() == 1 {
        return Ok(Idempotency::Fresh);
    }
    let Some(row) = sqlx::query(
        "SELECT request_hash, status, body FROM idempotency WHERE token_id = $1 AND key = $2",
    )
    .bind(token.to_string())
    .bind(key)
    .fetch_optional(tx)
    .await?
    else {
        // Abandoned since the statement before: the next try finds it free.
        return Ok(Idempotency::InProgress);
    };
    if rows::hash(&row, "request_hash")? != request_hash {
        return Ok(Idempotency::Mismatch);
    }
    let body: Option<String> = row.try_get("body")?;
    Ok(match rows::maybe_number(&row, "status")? {
        Some(status) => Idempotency::Replay {
            status,
            body: body.unwrap_or_default(),
        },
        None => Idempotency::InProgress,
    })
}

async fn forget_expired(tx: &mut Connection, now: Moment) -> sqlx::Result<u64> {
    let answered_before = now.minus(ANSWER_KEPT).0;
    let there_before = now.minus(COORDINATOR_KEPT).0;
    let mut forgotten = 0;
    for (statement, before) in [
        ("DELETE FROM login_links WHERE expires_at <= $1", now.0),
        ("DELETE FROM sessions WHERE expires_at <= $1", now.0),
        ("DELETE FROM routes WHERE moved_until <= $1", now.0),
        ("DELETE FROM acme_challenges WHERE expires_at <= $1", now.0),
        (
            "DELETE FROM certificate_orders WHERE ordered_at <= $1",
            now.minus(ORDERS_OF_INSTANCE.within).0,
        ),
        (
            "DELETE FROM idempotency WHERE started_at <= $1",
            answered_before,
        ),
        (
            "DELETE FROM coordinators WHERE heartbeat_at <= $1",
            there_before,
        ),
        (
            "DELETE FROM spending_grants WHERE expires_at <= $1",
            there_before,
        ),
    ] {
        forgotten += sqlx::query(statement)
            .bind(before)
            .execute(&mut *tx)
            .await?
            .rows_affected();
    }
    Ok(forgotten + events::trim(tx, now).await?)
}
