//! A server that the cloud does not have any more.

use serde_json::json;
use tidepool_shared::id::{InstanceId, ServerId};

use super::{
    Connection,
    events::{About, Journal},
    locked,
    operations::{self, Wanted},
    rows, servers,
};
use crate::{
    ambient::Moment,
    model::{InstanceStatus, Server, ServerState},
    store::Transition,
};

/// Draws the conclusions: nothing speaks for its address any more, and whoever it belonged to is told.
pub(super) async fn mark(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: ServerId,
    why: &str,
    now: Moment,
) -> sqlx::Result<Transition> {
    let Some(row) = sqlx::query(locked!(
        "SELECT * FROM servers WHERE id = $1 AND state IN ('booting', 'warm', 'claimed')"
    ))
    .bind(id.to_string())
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(Transition::NotPossible);
    };
    let server = rows::server(&row)?;
    servers::distrust(&mut *tx, id).await?;
    leave(&mut *tx, &server, why, now).await?;
    let about = About::server(id, server.instance);
    journal.note("server.lost", about, &json!({ "why": why }));
    if let Some(instance) = server.instance {
        lose(&mut *tx, &mut journal, instance, why, now).await?;
    }
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// It goes the way of all servers: its deletion finds that it is gone.
async fn leave(tx: &mut Connection, server: &Server, why: &str, now: Moment) -> sqlx::Result<()> {
    let state = match server.state {
        ServerState::Claimed => ServerState::Draining,
        _ => ServerState::Failed,
    };
    sqlx::query("UPDATE servers SET state = $2, state_since = $3, failure = $4 WHERE id = $1")
        .bind(server.id.to_string())
        .bind(state.word())
        .bind(now.0)
        .bind(why)
        .execute(tx)
        .await
        .map(drop)
}

/// The instance lives on without a server, so that a person can decide; a deleted one has nothing to come
/// back to, so it is purged.
async fn lose(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    instance: InstanceId,
    why: &str,
    now: Moment,
) -> sqlx::Result<()> {
    let row = sqlx::query(
        "UPDATE instances SET server_id = NULL, problem = $2,
                purge_at = CASE status WHEN 'deleted' THEN $3 ELSE purge_at END,
                status = CASE status WHEN 'deleted' THEN 'purged' ELSE 'failed' END
         WHERE id = $1 RETURNING status",
    )
    .bind(instance.to_string())
    .bind(why)
    .bind(now.0)
    .fetch_one(&mut *tx)
    .await?;
    let about = About::Instance(instance);
    let status = rows::word(&row, "status", InstanceStatus::from_word)?;
    if status == InstanceStatus::Purged {
        journal.note("instance.purged", about, &json!({ "why": why }));
        return Ok(());
    }
    let data = json!({ "to": status, "problem": why });
    journal.note("instance.status_changed", about, &data);
    operations::fail(tx, journal, Wanted::any(instance), why, now).await
}
