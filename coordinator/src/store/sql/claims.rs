//! The claim: the moment everything exists for, so as few statements as it takes.
//!
//! Whether a server is free and whether somebody waits before us is asked by the very statement that
//! takes the server. All writes of this process are in one queue, so the answer holds until commit.

use serde_json::json;
use tidepool_shared::{
    document::SealedDocument,
    id::{InstanceId, ServerId},
};

use super::{
    Connection, SqlStore, during,
    events::{About, Journal},
    instances, operations, rows,
};
use crate::{
    ambient::Moment,
    model::{Health, Instance, InstanceStatus, NewInstance, OperationKind, OperationState},
    store::{CreateRefused, StoreError},
};

const CREATING: &str = "create an instance";

/// Creates an instance, with a server if one is free. A refusal leaves the transaction uncommitted,
/// and with it the server unclaimed.
pub(super) async fn create(
    store: &SqlStore,
    new: &NewInstance,
    now: Moment,
) -> Result<Instance, CreateRefused> {
    let failed = |source| CreateRefused::Store(during(CREATING)(source));
    let mut tx = store
        .writer
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(failed)?;
    let server = take_server_unless_others_wait(&mut tx, new, now)
        .await
        .map_err(failed)?;
    let written = write(&mut tx, new, server, now).await.map_err(failed)?;
    if written == Written::Taken {
        return Err(refusal(&mut tx, new).await.map_err(failed)?);
    }
    let created = tell(&mut tx, store.journal(now), new, server)
        .await
        .map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    created.ok_or_else(|| {
        CreateRefused::Store(StoreError {
            doing: CREATING,
            source: "the instance is not there after it was written".into(),
        })
    })
}

/// Takes the oldest warm server for a new instance, if nobody of its tier waits.
async fn take_server_unless_others_wait(
    tx: &mut Connection,
    new: &NewInstance,
    now: Moment,
) -> sqlx::Result<Option<ServerId>> {
    sqlx::query(
        "UPDATE servers SET state = 'claimed', state_since = ?3, instance_id = ?2
         WHERE id = (SELECT id FROM servers WHERE state = 'warm' AND tier = ?1 AND revoked = 0
                     ORDER BY created_at, id LIMIT 1)
           AND NOT EXISTS (SELECT 1 FROM instances WHERE status = 'pending' AND tier = ?1)
         RETURNING id",
    )
    .bind(&new.tier)
    .bind(new.id.to_string())
    .bind(now.0)
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
    if !insert_instance(&mut *tx, new, server, now).await? || !insert_routes(&mut *tx, new).await? {
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
             created_at, claimed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, '[]', ?7, ?8, ?9, ?10, 0, 0, ?11, ?12, ?13, '[]', ?14, ?15)
         ON CONFLICT DO NOTHING",
    )
    .bind(new.id.to_string())
    .bind(&new.name)
    .bind(new.external_id.as_deref())
    .bind(&new.tier)
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
    .execute(tx)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// `false` when a host name is another instance's.
async fn insert_routes(tx: &mut Connection, new: &NewInstance) -> sqlx::Result<bool> {
    let result = sqlx::query(
        "INSERT INTO routes (host, instance_id) SELECT value, ?1 FROM json_each(?2) WHERE true
         ON CONFLICT DO NOTHING",
    )
    .bind(new.id.to_string())
    .bind(rows::as_json(&new.hosts)?)
    .execute(tx)
    .await?;
    Ok(usize::try_from(result.rows_affected()) == Ok(new.hosts.len()))
}

async fn insert_document(tx: &mut Connection, document: &SealedDocument) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO documents (instance_id, generation, digest, bytes) VALUES (?1, ?2, ?3, ?4)",
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
    let result = sqlx::query("UPDATE trust SET instance_id = ?2 WHERE server_id = ?1")
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
) -> sqlx::Result<Option<Instance>> {
    let created = instances::find(&mut *tx, new.id).await?;
    let status = created.as_ref().map(|instance| instance.status);
    let data = json!({ "name": new.name, "tier": new.tier, "status": status });
    journal.note("instance.created", About::instance(new.id, server), &data);
    let tier = json!({ "tier": new.tier });
    if let Some(server) = server {
        journal.note("server.claimed", About::Both(new.id, server), &tier);
    } else if !any_warm(&mut *tx, &new.tier).await? {
        journal.note("pool.empty", About::Instance(new.id), &tier);
    }
    journal.write(tx).await?;
    Ok(created)
}

/// A warm server may be there and yet not be ours, when others wait before us.
async fn any_warm(tx: &mut Connection, tier: &str) -> sqlx::Result<bool> {
    let found = sqlx::query(
        "SELECT 1 FROM servers WHERE state = 'warm' AND tier = ?1 AND revoked = 0 LIMIT 1",
    )
    .bind(tier)
    .fetch_optional(tx)
    .await?;
    Ok(found.is_some())
}

/// Which of the unique things was taken. A host name belongs to a name, so it counts as one.
async fn refusal(tx: &mut Connection, new: &NewInstance) -> sqlx::Result<CreateRefused> {
    let holder = sqlx::query(
        "SELECT id FROM instances WHERE external_id = ?1 AND status <> 'deleted' AND id <> ?2",
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

/// Gives the oldest warm server of a tier to whoever of it has waited longest.
pub(super) async fn claim_for_pending(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    tier: &str,
    now: Moment,
) -> sqlx::Result<Option<Instance>> {
    let Some(row) = sqlx::query(
        "UPDATE servers SET state = 'claimed', state_since = ?2,
                instance_id = (SELECT id FROM instances WHERE status = 'pending' AND tier = ?1
                               ORDER BY ordinal LIMIT 1)
         WHERE id = (SELECT id FROM servers WHERE state = 'warm' AND tier = ?1 AND revoked = 0
                     ORDER BY created_at, id LIMIT 1)
           AND EXISTS (SELECT 1 FROM instances WHERE status = 'pending' AND tier = ?1)
         RETURNING id, instance_id",
    )
    .bind(tier)
    .bind(now.0)
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(None);
    };
    let server: ServerId = rows::parsed(&row, "id")?;
    let instance: InstanceId = rows::parsed(&row, "instance_id")?;
    bind(&mut *tx, instance, server, now).await?;
    let about = About::Both(instance, server);
    journal.note("server.claimed", about, &json!({ "tier": tier }));
    let data = instances::moved(InstanceStatus::Pending, InstanceStatus::Starting);
    journal.note("instance.status_changed", about, &data);
    journal.write(&mut *tx).await?;
    instances::find(tx, instance).await
}

/// The waiting instance's side of a claim.
async fn bind(
    tx: &mut Connection,
    instance: InstanceId,
    server: ServerId,
    now: Moment,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE instances SET status = 'starting', server_id = ?2, claimed_at = ?3 WHERE id = ?1",
    )
    .bind(instance.to_string())
    .bind(server.to_string())
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE operations SET state = 'running'
         WHERE instance_id = ?1 AND kind = 'create' AND state = 'queued'",
    )
    .bind(instance.to_string())
    .execute(&mut *tx)
    .await?;
    trust(tx, server, instance).await
}
