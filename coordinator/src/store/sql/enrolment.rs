//! Enrolment tokens and the audit of what came of them.

use std::net::IpAddr;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::Row as _;
use tidepool_shared::id::ServerId;

use super::{Connection, SqlStore, during, events::About, rows, transaction};
use crate::{
    ambient::Moment,
    store::{EnrolmentStore, Redemption, Stored},
};

#[async_trait]
impl EnrolmentStore for SqlStore {
    async fn redeem(
        &self,
        token_hash: [u8; 32],
        server: ServerId,
        address: IpAddr,
        now: Moment,
    ) -> Stored<Redemption> {
        if !self.is_token_of(token_hash, server).await? {
            return Ok(Redemption::Unknown);
        }
        transaction!(self, "redeem an enrolment token", |tx| {
            let mut journal = self.journal(now);
            let try_ = Try {
                token_hash,
                server,
                address: rows::as_address(address),
                now,
            };
            let outcome = redeem(&mut *tx, &try_).await?;
            if let Some(reason) = reason(outcome) {
                let data = json!({ "reason": reason, "address": try_.address });
                journal.note("security.enrolment_refused", About::Server(server), &data);
            }
            journal.write(tx).await.map(|()| outcome)
        })
    }

    async fn audit(
        &self,
        what: &str,
        server: Option<ServerId>,
        data: Value,
        now: Moment,
    ) -> Stored<()> {
        let about = server.map_or(About::Nothing, About::Server);
        transaction!(self, "write an audit event", |tx| {
            let mut journal = self.journal(now);
            journal.note(&format!("security.{what}"), about, &data);
            journal.write(tx).await
        })
    }
}

impl SqlStore {
    /// Whether such a token was ever made for this server; read beside the queue of changes. A token is
    /// committed before anybody is told it, so none that is real can be missed.
    async fn is_token_of(&self, token_hash: [u8; 32], server: ServerId) -> Stored<bool> {
        let found =
            sqlx::query("SELECT 1 FROM enrolment_tokens WHERE hash = $1 AND server_id = $2")
                .bind(token_hash.as_slice())
                .bind(server.to_string())
                .fetch_optional(self.readers())
                .await
                .map_err(during("look an enrolment token up"))?;
        Ok(found.is_some())
    }
}

/// Who wants to spend what, when.
struct Try {
    token_hash: [u8; 32],
    server: ServerId,
    address: String,
    now: Moment,
}

/// The word for the audit event; nothing for what is no refusal.
fn reason(outcome: Redemption) -> Option<&'static str> {
    match outcome {
        Redemption::Accepted | Redemption::TooEarly | Redemption::Unknown => None,
        Redemption::AlreadyUsed => Some("already_used"),
        Redemption::Expired => Some("expired"),
        Redemption::WrongAddress => Some("wrong_address"),
        Redemption::NotServed => Some("not_served"),
    }
}

async fn redeem(tx: &mut Connection, try_: &Try) -> sqlx::Result<Redemption> {
    let spent = sqlx::query(
        "UPDATE enrolment_tokens SET used_at = $4
         WHERE hash = $1 AND server_id = $2 AND used_at IS NULL AND expires_at > $4
           AND EXISTS (SELECT 1 FROM servers WHERE id = $2 AND address = $3 AND NOT revoked
                       AND state IN ('booting', 'warm', 'claimed'))",
    )
    .bind(try_.token_hash.as_slice())
    .bind(try_.server.to_string())
    .bind(&try_.address)
    .bind(try_.now.0)
    .execute(&mut *tx)
    .await?;
    if spent.rows_affected() == 1 {
        return Ok(Redemption::Accepted);
    }
    refusal(tx, try_).await
}

/// Why a token of this server was not spent.
async fn refusal(tx: &mut Connection, try_: &Try) -> sqlx::Result<Redemption> {
    let Some(row) = sqlx::query(
        "SELECT token.used_at, token.expires_at, server.address
         FROM enrolment_tokens AS token JOIN servers AS server ON server.id = token.server_id
         WHERE token.hash = $1 AND token.server_id = $2 AND NOT server.revoked
           AND server.state IN ('planned', 'creating', 'booting', 'warm', 'claimed')",
    )
    .bind(try_.token_hash.as_slice())
    .bind(try_.server.to_string())
    .fetch_optional(tx)
    .await?
    else {
        return Ok(Redemption::NotServed);
    };
    let used: Option<i64> = row.try_get("used_at")?;
    let address: Option<&str> = row.try_get("address")?;
    let expired = rows::moment(&row, "expires_at")? <= try_.now;
    Ok(match (used, expired, address) {
        (Some(_), _, _) => Redemption::AlreadyUsed,
        (None, true, _) => Redemption::Expired,
        (None, false, None) => Redemption::TooEarly,
        (None, false, Some(_)) => Redemption::WrongAddress,
    })
}
