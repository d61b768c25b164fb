//! The claim: the moment everything exists for, so as few statements as it takes.
//!
//! Whether a server is free and whether somebody waits before us is asked by the very statement that
//! takes the server. Whoever waits holds the queue of its pool first (`dialect::hold_queue`), so the
//! order of those who wait is the order in which they were told their places.

use serde_json::{Value, json};
use tidepool_shared::{
    document::SealedDocument,
    id::{InstanceId, ServerId},
};

use super::{
    Connection, dialect,
    events::{About, Journal},
    instances, locked, operations, rows, skip_locked,
};
use crate::{
    ambient::Moment,
    config::channels::hook_paths,
    model::{
        Health, Instance, InstanceStatus, NewInstance, OperationKind, OperationState, PoolKey,
    },
    store::CreateRefused,
};

/// Creates an instance, with a server if one is free. After a refusal the transaction must be rolled
/// back: a server may have been taken for it.
pub(super) async fn create(
    tx: &mut Connection,
    journal: Journal<'_>,
    new: &NewInstance,
    now: Moment,
) -> sqlx::Result<Result<Instance, CreateRefused>> {
    dialect::hold_queue(&mut *tx, &new.pool).await?;
    let server = take_server_unless_others_wait(&mut *tx, new, now).await?;
    if write(&mut *tx, new, server, now).await? == Written::Taken {
        return refusal(tx, new).await.map(Err);
    }
    tell(tx, journal, new, server).await.map(Ok)
}

/// Takes the oldest warm server for a new instance, if nobody of its pool waits.
async fn take_server_unless_others_wait(
    tx: &mut Connection,
    new: &NewInstance,
    now: Moment,
) -> sqlx::Result<Option<ServerId>> {
    sqlx::query(concat!(
        "UPDATE servers SET state = 'claimed', state_since = $3, instance_id = $2
         WHERE id = (",
        skip_locked!(
            "SELECT id FROM servers
             WHERE state = 'warm' AND tier = $1 AND region = $4 AND NOT revoked
             ORDER BY created_at, id LIMIT 1"
        ),
        ") AND NOT EXISTS (SELECT 1 FROM instances
                           WHERE status = 'pending' AND tier = $1 AND region = $4)
         RETURNING id",
    ))
    .bind(&new.pool.tier)
    .bind(new.id.to_string())
    .bind(now.0)
    .bind(&new.pool.region)
    .fetch_optional(tx)
    .await?
    .map(|row| rows::parsed(&row, "id"))
    .transpose()
}

/// Whether everything unique about an instance was free.
#[derive(PartialEq, Eq)]
enum Written {
    All,
    Taken,
}

/// Writes the instance and what belongs to it.
async fn write(
    tx: &mut Connection,
    new: &NewInstance,
    server: Option<ServerId>,
    now: Moment,
) -> sqlx::Result<Written> {
    if !insert_instance(&mut *tx, new, server, now).await?
        || !dialect::insert_routes(&mut *tx, new.id, &new.hosts).await?
    {
        return Ok(Written::Taken);
    }
    insert_document(&mut *tx, &new.document).await?;
    let create = operations::Begun {
        id: new.operation,
        instance: new.id,
        kind: OperationKind::Create,
        state: match server {
            Some(_) => OperationState::Running,
            None => OperationState::Queued,
        },
        generation: Some(new.document.generation),
    };
    operations::begin(&mut *tx, &create, now).await?;
    if let Some(server) = server {
        trust(tx, server, new.id).await?;
    }
    Ok(Written::All)
}

/// `false` when the name or the external id is taken.
async fn insert_instance(
    tx: &mut Connection,
    new: &NewInstance,
    server: Option<ServerId>,
    now: Moment,
) -> sqlx::Result<bool> {
    let status = match server {
        Some(_) => InstanceStatus::Starting,
        None => InstanceStatus::Pending,
    };
    let result = sqlx::query(
        "INSERT INTO instances (id, name, external_id, tier, status, health, reasons, url, hosts,
             server_id, generation, observed, restarts, config, edge_proof, warm, timings,
             created_at, claimed_at, region, channel_hooks)
         VALUES ($1, $2, $3, $4, $5, $6, '[]', $7, $8, $9, $10, 0, 0, $11, $12, $13, '[]', $14,
             $15, $16, $17)
         ON CONFLICT DO NOTHING",
    )
    .bind(new.id.to_string())
    .bind(&new.name)
    .bind(new.external_id.as_deref())
    .bind(&new.pool.tier)
    .bind(status.word())
    .bind(Health::Unknown.word())
    .bind(&new.url)
    .bind(rows::as_json(&new.hosts)?)
    .bind(rows::as_text(server))
    .bind(rows::as_integer(new.document.generation.0))
    .bind(rows::as_json(&new.config)?)
    .bind(&new.edge_proof.0)
    .bind(server.is_some())
    .bind(now.0)
    .bind(server.map(|_| now.0))
    .bind(&new.pool.region)
    .bind(rows::as_json(&hook_paths(&new.config))?)
    .execute(tx)
    .await?;
    Ok(result.rows_affected() == 1)
}

async fn insert_document(tx: &mut Connection, document: &SealedDocument) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO documents (instance_id, generation, digest, bytes) VALUES ($1, $2, $3, $4)",
    )
    .bind(document.instance.to_string())
    .bind(rows::as_integer(document.generation.0))
    .bind(document.digest.0.as_slice())
    .bind(document.bytes.as_slice())
    .execute(tx)
    .await?;
    Ok(())
}

/// From now on the server's address speaks for the instance.
async fn trust(tx: &mut Connection, server: ServerId, instance: InstanceId) -> sqlx::Result<()> {
    let result = sqlx::query("UPDATE trust SET instance_id = $2 WHERE server_id = $1")
        .bind(server.to_string())
        .bind(instance.to_string())
        .execute(tx)
        .await?;
    // A claim without it would give the customer a server whose every model call is refused.
    if result.rows_affected() == 0 {
        return Err(sqlx::Error::RowNotFound);
    }
    Ok(())
}

/// Writes the events and reads the instance back.
async fn tell(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    new: &NewInstance,
    server: Option<ServerId>,
) -> sqlx::Result<Instance> {
    let created = instances::find(&mut *tx, new.id).await?;
    let created = created.ok_or(sqlx::Error::RowNotFound)?;
    let data = created_data(new, created.status);
    journal.note("instance.created", About::instance(new.id, server), &data);
    let pool = pool_data(&new.pool);
    if let Some(server) = server {
        journal.note("server.claimed", About::Both(new.id, server), &pool);
    } else if !any_warm(&mut *tx, &new.pool).await? {
        journal.note("pool.empty", About::Instance(new.id), &pool);
    }
    journal.write(tx).await?;
    Ok(created)
}

/// What an `instance.created` says.
pub(super) fn created_data(new: &NewInstance, status: InstanceStatus) -> Value {
    json!({
        "name": new.name, "tier": new.pool.tier, "region": new.pool.region, "status": status,
    })
}

/// What a `server.claimed` and a `pool.empty` say.
pub(super) fn pool_data(pool: &PoolKey) -> Value {
    json!({ "tier": pool.tier, "region": pool.region })
}

/// A warm server may be there and yet not be ours, when others wait before us.
async fn any_warm(tx: &mut Connection, pool: &PoolKey) -> sqlx::Result<bool> {
    let found = sqlx::query(
        "SELECT 1 FROM servers
         WHERE state = 'warm' AND tier = $1 AND region = $2 AND NOT revoked LIMIT 1",
    )
    .bind(&pool.tier)
    .bind(&pool.region)
    .fetch_optional(tx)
    .await?;
    Ok(found.is_some())
}

/// Which of the unique things was taken. A host name belongs to a name, so it counts as one.
async fn refusal(tx: &mut Connection, new: &NewInstance) -> sqlx::Result<CreateRefused> {
    let holder = sqlx::query(
        "SELECT id FROM instances WHERE external_id = $1 AND status <> 'purged' AND id <> $2",
    )
    .bind(new.external_id.as_deref())
    .bind(new.id.to_string())
    .fetch_optional(tx)
    .await?;
    Ok(match holder {
        Some(row) => CreateRefused::ExternalIdTaken(rows::parsed(&row, "id")?),
        None => CreateRefused::NameTaken,
    })
}

/// Gives the oldest warm server of a pool to whoever of it has waited longest.
pub(super) async fn claim_for_pending(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    pool: &PoolKey,
    now: Moment,
) -> sqlx::Result<Option<Instance>> {
    dialect::hold_queue(&mut *tx, pool).await?;
    let Some(row) = sqlx::query(locked!(
        "SELECT id FROM instances WHERE status = 'pending' AND tier = $1 AND region = $2
         ORDER BY ordinal LIMIT 1"
    ))
    .bind(&pool.tier)
    .bind(&pool.region)
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(None);
    };
    let instance: InstanceId = rows::parsed(&row, "id")?;
    let Some(server) = take_server(&mut *tx, pool, instance, now).await? else {
        return Ok(None);
    };
    bind(&mut *tx, instance, server, now).await?;
    let about = About::Both(instance, server);
    journal.note("server.claimed", about, &pool_data(pool));
    let data = instances::moved(InstanceStatus::Pending, InstanceStatus::Starting);
    journal.note("instance.status_changed", about, &data);
    journal.write(&mut *tx).await?;
    instances::find(tx, instance).await
}

/// Takes the oldest warm server of a pool.
async fn take_server(
    tx: &mut Connection,
    pool: &PoolKey,
    instance: InstanceId,
    now: Moment,
) -> sqlx::Result<Option<ServerId>> {
    sqlx::query(concat!(
        "UPDATE servers SET state = 'claimed', state_since = $3, instance_id = $2
         WHERE id = (",
        skip_locked!(
            "SELECT id FROM servers
             WHERE state = 'warm' AND tier = $1 AND region = $4 AND NOT revoked
             ORDER BY created_at, id LIMIT 1"
        ),
        ") RETURNING id",
    ))
    .bind(&pool.tier)
    .bind(instance.to_string())
    .bind(now.0)
    .bind(&pool.region)
    .fetch_optional(tx)
    .await?
    .map(|row| rows::parsed(&row, "id"))
    .transpose()
}

/// The waiting instance's side of a claim.
async fn bind(
    tx: &mut Connection,
    instance: InstanceId,
    server: ServerId,
    now: Moment,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE instances SET status = 'starting', server_id = $2, claimed_at = $3 WHERE id = $1",
    )
    .bind(instance.to_string())
    .bind(server.to_string())
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE operations SET state = 'running'
         WHERE instance_id = $1 AND kind = 'create' AND state = 'queued'",
    )
    .bind(instance.to_string())
    .execute(&mut *tx)
    .await?;
    trust(tx, server, instance).await
}
