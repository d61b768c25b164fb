//! Deleting an instance, in two phases. In one commit nobody reaches it and nothing speaks for it; its
//! server is kept until the grace is over. Then, in another, the server is on its way out and the name is
//! free. What follows (the cloud's deletion) only cleans up.

use serde_json::json;
use tidepool_shared::{
    document::Generation,
    id::{InstanceId, OperationId, ServerId},
};

use super::{
    Connection, changes, dialect,
    documents::{self, Switch},
    events::{About, Journal},
    instances, locked,
    operations::{self, Wanted},
    rows, servers,
};
use crate::{
    ambient::Moment,
    model::{DocumentChange, Instance, InstanceStatus, OperationKind, OperationState, Suspension},
    store::{ChangeRefused, Transition},
};

/// Any status before it → `deleted`, or `purged` when there is no grace. The server is held first, as
/// reports do, so that neither waits for the other.
pub(super) async fn delete(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: InstanceId,
    operation: OperationId,
    purge_at: Moment,
    now: Moment,
) -> sqlx::Result<Transition> {
    hold_server(&mut *tx, id).await?;
    let Some(row) = sqlx::query(
        "UPDATE instances SET status = 'deleted', deleted_at = $2, purge_at = $3
         WHERE id = $1 AND status NOT IN ('deleted', 'purged') RETURNING server_id",
    )
    .bind(id.to_string())
    .bind(now.0)
    .bind(purge_at.0)
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(Transition::NotPossible);
    };
    let server: Option<ServerId> = rows::maybe_parsed(&row, "server_id")?;
    close_doors(&mut *tx, id).await?;
    documents::switch(&mut *tx, id, Switch::Off).await?;
    cancel_operations(&mut *tx, id, now).await?;
    let begun = operations::Begun {
        id: operation,
        instance: id,
        kind: OperationKind::Delete,
        state: OperationState::Running,
        generation: None,
    };
    operations::begin(&mut *tx, &begun, now).await?;
    let data = json!({ "purge_at": purge_at.rfc3339() });
    journal.note("instance.deleted", About::instance(id, server), &data);
    if let Some(server) = server {
        servers::distrust(&mut *tx, server).await?;
    }
    let is_purged = purge_at <= now;
    if is_purged {
        end(&mut *tx, &mut journal, id, server, now).await?;
    }
    if !is_purged || server.is_none() {
        // Nothing is left to wait for.
        let whole = Wanted::kind(id, OperationKind::Delete);
        operations::succeed(&mut *tx, &mut journal, whole, &[], now).await?;
    }
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// `deleted` → `purged`.
pub(super) async fn purge(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: InstanceId,
    ended_by: Moment,
    now: Moment,
) -> sqlx::Result<Transition> {
    hold_server(&mut *tx, id).await?;
    let Some(row) = sqlx::query(locked!(
        "SELECT server_id FROM instances WHERE id = $1 AND status = 'deleted' AND purge_at <= $2"
    ))
    .bind(id.to_string())
    .bind(ended_by.0)
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(Transition::NotPossible);
    };
    let server: Option<ServerId> = rows::maybe_parsed(&row, "server_id")?;
    end(&mut *tx, &mut journal, id, server, now).await?;
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// `deleted` → `starting` on the server it had, `pending` if it had none, or `suspended` if it was that.
pub(super) async fn undelete(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    change: &DocumentChange,
    now: Moment,
) -> sqlx::Result<Result<Instance, ChangeRefused>> {
    let id = change.instance;
    hold_server(&mut *tx, id).await?;
    let Some(row) = sqlx::query(locked!(
        "SELECT server_id, generation, hosts, suspension FROM instances
         WHERE id = $1 AND status = 'deleted'"
    ))
    .bind(id.to_string())
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(Err(ChangeRefused::NotFound));
    };
    let present = Generation(rows::unsigned(&row, "generation")?);
    if present != change.expected {
        return Ok(Err(ChangeRefused::Stale(present)));
    }
    let hosts: Vec<String> = rows::json(&row, "hosts")?;
    let server: Option<ServerId> = rows::maybe_parsed(&row, "server_id")?;
    let suspension: Option<Suspension> = rows::maybe_json(&row, "suspension")?;
    let status = match (&suspension, server) {
        (Some(_), _) => InstanceStatus::Suspended,
        (None, Some(_)) => InstanceStatus::Starting,
        (None, None) => InstanceStatus::Pending,
    };
    sqlx::query(
        "UPDATE instances SET status = $2, deleted_at = NULL, purge_at = NULL, claimed_at = $3,
                problem = NULL
         WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(status.word())
    .bind(server.map(|_| now.0))
    .execute(&mut *tx)
    .await?;
    open_doors(&mut *tx, id, server, &hosts).await?;
    changes::replace(&mut *tx, change, now).await?;
    if suspension.is_some() {
        // It is not proven before it is used again.
        let whole = Wanted::kind(id, OperationKind::Undelete);
        operations::succeed(&mut *tx, &mut journal, whole, &[], now).await?;
    }
    let about = About::instance(id, server);
    let data = instances::moved(InstanceStatus::Deleted, status);
    journal.note("instance.status_changed", about, &data);
    journal.write(&mut *tx).await?;
    let back = instances::find(tx, id).await?;
    Ok(back.ok_or(ChangeRefused::NotFound))
}

pub(super) async fn hold_server(tx: &mut Connection, id: InstanceId) -> sqlx::Result<()> {
    sqlx::query(locked!(
        "SELECT 1 FROM servers WHERE instance_id = $1 AND state = 'claimed'"
    ))
    .bind(id.to_string())
    .fetch_optional(tx)
    .await
    .map(drop)
}

/// The instance is purged, and its server of no more use to anybody.
async fn end(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    id: InstanceId,
    server: Option<ServerId>,
    now: Moment,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE instances SET status = 'purged', purge_at = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(now.0)
        .execute(&mut *tx)
        .await?;
    for statement in [
        "DELETE FROM customer_keys WHERE instance_id = $1",
        "DELETE FROM domains WHERE instance_id = $1",
        "DELETE FROM model_limits WHERE subject = $1",
        "DELETE FROM restless_instances WHERE instance_id = $1",
    ] {
        sqlx::query(statement)
            .bind(id.to_string())
            .execute(&mut *tx)
            .await?;
    }
    journal.note("instance.purged", About::instance(id, server), &json!({}));
    match server {
        Some(server) => drain(tx, journal, id, server, now).await,
        None => Ok(()),
    }
}

/// Routes and trust come back; whoever signed in before signs in again. A name is kept through deletion, so
/// its hosts are free.
async fn open_doors(
    tx: &mut Connection,
    id: InstanceId,
    server: Option<ServerId>,
    hosts: &[String],
) -> sqlx::Result<()> {
    if !dialect::insert_routes(&mut *tx, id, hosts).await? {
        return Err(sqlx::Error::RowNotFound);
    }
    let Some(server) = server else { return Ok(()) };
    let trusted = sqlx::query(
        "INSERT INTO trust (address, server_id, instance_id)
         SELECT address, id, instance_id FROM servers
         WHERE id = $1 AND state = 'claimed' AND address IS NOT NULL",
    )
    .bind(server.to_string())
    .execute(tx)
    .await?;
    match trusted.rows_affected() {
        0 => Err(sqlx::Error::RowNotFound),
        _ => Ok(()),
    }
}

/// Routes, login links and sessions go. Names that it had before lead nowhere now, and are kept from others
/// for as long as was said.
async fn close_doors(tx: &mut Connection, id: InstanceId) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM routes WHERE instance_id = $1 AND moved_until IS NULL")
        .bind(id.to_string())
        .execute(&mut *tx)
        .await?;
    sign_everybody_out(tx, id).await
}

pub(super) async fn sign_everybody_out(tx: &mut Connection, id: InstanceId) -> sqlx::Result<()> {
    for statement in [
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

pub(super) async fn cancel_operations(
    tx: &mut Connection,
    id: InstanceId,
    now: Moment,
) -> sqlx::Result<()> {
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
pub(super) async fn drain(
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
