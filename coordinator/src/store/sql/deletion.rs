//! Deleting an instance: in one commit nobody reaches it, nothing speaks for it, and its server is on
//! the way out. What follows (the cloud's deletion) only cleans up.

use serde_json::json;
use tidepool_shared::id::{InstanceId, OperationId, ServerId};

use super::{
    Connection,
    events::{About, Journal},
    locked,
    operations::{self, Wanted},
    rows, servers,
};
use crate::{
    ambient::Moment,
    model::{OperationKind, OperationState},
    store::Transition,
};

/// Any status → `deleted`. The server is held first, as reports do, so that neither waits for the other.
pub(super) async fn delete(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: InstanceId,
    operation: OperationId,
    now: Moment,
) -> sqlx::Result<Transition> {
    sqlx::query(locked!(
        "SELECT 1 FROM servers WHERE instance_id = $1 AND state = 'claimed'"
    ))
    .bind(id.to_string())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = sqlx::query(
        "UPDATE instances SET status = 'deleted', deleted_at = $2
         WHERE id = $1 AND status <> 'deleted' RETURNING server_id",
    )
    .bind(id.to_string())
    .bind(now.0)
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(Transition::NotPossible);
    };
    let server: Option<ServerId> = rows::maybe_parsed(&row, "server_id")?;
    close_doors(&mut *tx, id).await?;
    cancel_operations(&mut *tx, id, now).await?;
    let begun = operations::Begun {
        id: operation,
        instance: id,
        kind: OperationKind::Delete,
        state: OperationState::Running,
        generation: None,
    };
    operations::begin(&mut *tx, &begun, now).await?;
    journal.note("instance.deleted", About::instance(id, server), &json!({}));
    if let Some(server) = server {
        drain(&mut *tx, &mut journal, id, server, now).await?;
    } else {
        // Nothing is left to wait for.
        let whole = Wanted::kind(id, OperationKind::Delete);
        operations::succeed(&mut *tx, &mut journal, whole, &[], now).await?;
    }
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// Routes, login links and sessions go.
async fn close_doors(tx: &mut Connection, id: InstanceId) -> sqlx::Result<()> {
    for statement in [
        "DELETE FROM routes WHERE instance_id = $1",
        "DELETE FROM login_links WHERE instance_id = $1",
        "DELETE FROM sessions WHERE instance_id = $1",
    ] {
        sqlx::query(statement)
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

async fn cancel_operations(tx: &mut Connection, id: InstanceId, now: Moment) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE operations SET state = $2, finished_at = $3
         WHERE instance_id = $1 AND state IN ('queued', 'running')",
    )
    .bind(id.to_string())
    .bind(OperationState::Canceled.word())
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}

/// The server is of no more use to anybody: it never goes back into the pool.
async fn drain(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    instance: InstanceId,
    server: ServerId,
    now: Moment,
) -> sqlx::Result<()> {
    servers::distrust(&mut *tx, server).await?;
    sqlx::query(
        "UPDATE servers SET state = 'draining', state_since = $2
         WHERE id = $1 AND state = 'claimed'",
    )
    .bind(server.to_string())
    .bind(now.0)
    .execute(tx)
    .await?;
    journal.note("server.draining", About::Both(instance, server), &json!({}));
    Ok(())
}
