//! Servers. Each move in a server's life is one `UPDATE` whose predicate names the states it may come
//! from, so that nothing can change between the look and the leap.

use std::net::IpAddr;

use async_trait::async_trait;
use serde_json::json;
use tidepool_shared::id::{CoordinatorId, InstanceId, ServerId};

use super::{
    Connection, Database, QueryResult, SqlStore, during,
    events::{About, Journal},
    lost, operations, pools, reports, rows, stats, transaction,
};
use crate::{
    ambient::Moment,
    cloud::CloudServer,
    model::{Blame, Health, NewServer, OperationKind, Server, ServerReport, ServerState},
    store::{ServerStore, Stored, Transition},
};

#[async_trait]
impl ServerStore for SqlStore {
    async fn plan_server(&self, new: &NewServer, now: Moment) -> Stored<()> {
        transaction!(self, "plan a server", |tx| {
            plan(tx, self.journal(now), new, now).await
        })
    }

    async fn mark_creating(&self, id: ServerId, now: Moment) -> Stored<Transition> {
        transaction!(self, "mark a server as being created", |tx| {
            // The second time the moment stays: it says since when.
            sqlx::query(
                "UPDATE servers
                 SET state_since = CASE state WHEN 'planned' THEN $2 ELSE state_since END,
                     state = 'creating'
                 WHERE id = $1 AND state IN ('planned', 'creating')",
            )
            .bind(id.to_string())
            .bind(now.0)
            .execute(&mut *tx)
            .await
            .map(|result| transition(&result))
        })
    }

    async fn record_created(
        &self,
        id: ServerId,
        made: &CloudServer,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "record a created server", |tx| {
            created(tx, self.journal(now), id, made, now).await
        })
    }

    async fn open_session(
        &self,
        id: ServerId,
        openclaw_version: &str,
        holder: CoordinatorId,
        _now: Moment,
    ) -> Stored<Option<(u64, Server)>> {
        transaction!(self, "open a session of a server", |tx| {
            sqlx::query(
                "UPDATE servers SET epoch = epoch + 1, openclaw_version = $2, holder = $3
                 WHERE id = $1 AND NOT revoked
                   AND state IN ('planned', 'creating', 'booting', 'warm', 'claimed')
                 RETURNING *",
            )
            .bind(id.to_string())
            .bind(openclaw_version)
            .bind(holder.to_string())
            .fetch_optional(&mut *tx)
            .await?
            .map(|row| rows::server(&row).map(|server| (server.epoch, server)))
            .transpose()
        })
    }

    async fn record_door(&self, id: ServerId) -> Stored<Transition> {
        transaction!(self, "record a server's door", |tx| {
            sqlx::query("UPDATE servers SET has_door = TRUE WHERE id = $1 AND NOT has_door")
                .bind(id.to_string())
                .execute(&mut *tx)
                .await
                .map(|result| transition(&result))
        })
    }

    async fn close_session(&self, id: ServerId, epoch: u64) -> Stored<()> {
        transaction!(self, "close a session of a server", |tx| {
            sqlx::query("UPDATE servers SET holder = NULL WHERE id = $1 AND epoch = $2")
                .bind(id.to_string())
                .bind(rows::as_integer(epoch))
                .execute(&mut *tx)
                .await
        })
        .map(drop)
    }

    async fn record_report(
        &self,
        id: ServerId,
        report: &ServerReport,
        now: Moment,
    ) -> Stored<Option<Server>> {
        transaction!(self, "record a server's report", |tx| {
            reports::record(tx, self.journal(now), id, report, now).await
        })
    }

    async fn mark_failed(
        &self,
        id: ServerId,
        why: &str,
        blame: Blame,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "mark a server as failed", |tx| {
            failed(tx, self.journal(now), id, (why, blame), now).await
        })
    }

    async fn mark_lost(&self, id: ServerId, why: &str, now: Moment) -> Stored<Transition> {
        transaction!(self, "mark a server as lost", |tx| {
            lost::mark(tx, self.journal(now), id, why, now).await
        })
    }

    async fn mark_unheard(&self, id: ServerId, why: &str, now: Moment) -> Stored<Transition> {
        transaction!(self, "mark a server as unheard of", |tx| {
            reports::unheard(tx, self.journal(now), id, why, now).await
        })
    }

    async fn retire_unclaimed(&self, id: ServerId, now: Moment) -> Stored<Transition> {
        transaction!(self, "retire a server", |tx| {
            retire(tx, self.journal(now), id, now).await
        })
    }

    async fn mark_deleting(&self, id: ServerId, now: Moment) -> Stored<Transition> {
        transaction!(self, "mark a server as being deleted", |tx| {
            sqlx::query(
                "UPDATE servers SET state = 'deleting', state_since = $2
                 WHERE id = $1 AND state IN ('draining', 'failed')
                   AND NOT EXISTS (SELECT 1 FROM trust WHERE server_id = $1)",
            )
            .bind(id.to_string())
            .bind(now.0)
            .execute(&mut *tx)
            .await
            .map(|result| transition(&result))
        })
    }

    async fn mark_gone(&self, id: ServerId, now: Moment) -> Stored<Transition> {
        transaction!(self, "mark a server as gone", |tx| {
            gone(tx, self.journal(now), id, now).await
        })
    }

    async fn revoke(&self, id: ServerId, _now: Moment) -> Stored<()> {
        transaction!(self, "revoke a server", |tx| {
            sqlx::query("UPDATE servers SET revoked = TRUE WHERE id = $1")
                .bind(id.to_string())
                .execute(&mut *tx)
                .await?;
            distrust(tx, id).await
        })
    }

    async fn server(&self, id: ServerId) -> Stored<Option<Server>> {
        find(self.readers(), id)
            .await
            .map_err(during("read a server"))
    }

    async fn servers(&self) -> Stored<Vec<Server>> {
        let doing = "read the servers";
        let found =
            sqlx::query("SELECT * FROM servers WHERE state <> 'gone' ORDER BY created_at, id")
                .fetch_all(self.readers())
                .await
                .map_err(during(doing))?;
        found
            .iter()
            .map(rows::server)
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }

    async fn trusted(&self, address: IpAddr) -> Stored<Option<(ServerId, Option<InstanceId>)>> {
        let doing = "look an address up";
        let found = sqlx::query("SELECT server_id, instance_id FROM trust WHERE address = $1")
            .bind(rows::as_address(address))
            .fetch_optional(self.readers())
            .await
            .map_err(during(doing))?;
        found
            .map(|row| {
                let server = rows::parsed(&row, "server_id")?;
                Ok((server, rows::maybe_parsed(&row, "instance_id")?))
            })
            .transpose()
            .map_err(during(doing))
    }
}

/// Reads a server, within a transaction or not.
pub(super) async fn find(
    executor: impl sqlx::Executor<'_, Database = Database>,
    id: ServerId,
) -> sqlx::Result<Option<Server>> {
    sqlx::query("SELECT * FROM servers WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(executor)
        .await?
        .map(|row| rows::server(&row))
        .transpose()
}

pub(super) async fn plan(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    new: &NewServer,
    now: Moment,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO servers (id, name, tier, state, health, reasons, created_at, state_since,
             region, server_type, location)
         VALUES ($1, $2, $3, $4, $5, '[]', $6, $6, $7, $8, $9)",
    )
    .bind(new.id.to_string())
    .bind(&new.name)
    .bind(&new.pool.tier)
    .bind(ServerState::Planned.word())
    .bind(Health::Unknown.word())
    .bind(now.0)
    .bind(&new.pool.region)
    .bind(&new.placement.server_type)
    .bind(&new.placement.location)
    .execute(&mut *tx)
    .await?;
    sqlx::query("INSERT INTO enrolment_tokens (hash, server_id, expires_at) VALUES ($1, $2, $3)")
        .bind(new.token_hash.as_slice())
        .bind(new.id.to_string())
        .bind(new.token_expires.0)
        .execute(&mut *tx)
        .await?;
    let data = json!({
        "name": new.name, "tier": new.pool.tier, "region": new.pool.region,
        "server_type": new.placement.server_type, "location": new.placement.location,
    });
    journal.note("server.planned", About::Server(new.id), &data);
    journal.write(tx).await
}

async fn created(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: ServerId,
    made: &CloudServer,
    now: Moment,
) -> sqlx::Result<Transition> {
    let address = rows::as_address(made.address);
    let result = sqlx::query(
        "UPDATE servers SET state = 'booting', state_since = $4, cloud_id = $2, address = $3,
                image = $5
         WHERE id = $1 AND state IN ('planned', 'creating')",
    )
    .bind(id.to_string())
    .bind(&made.id)
    .bind(&address)
    .bind(now.0)
    .bind(made.image.as_deref())
    .execute(&mut *tx)
    .await?;
    if transition(&result) == Transition::NotPossible {
        return already_created(tx, id, &made.id, &address).await;
    }
    // An address that another server holds is an error, not a handover: two servers with one address
    // mean that one of them is not where we think, and model access is granted by address alone.
    // One that was revoked meanwhile is trusted no more than one that is revoked later.
    sqlx::query(
        "INSERT INTO trust (address, server_id)
         SELECT $1, id FROM servers WHERE id = $2 AND NOT revoked",
    )
    .bind(&address)
    .bind(id.to_string())
    .execute(&mut *tx)
    .await?;
    let data = json!({ "cloud_id": made.id, "address": address, "image": made.image });
    journal.note("server.booting", About::Server(id), &data);
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// Whether the server was recorded with these very facts before and still lives.
async fn already_created(
    tx: &mut Connection,
    id: ServerId,
    cloud_id: &str,
    address: &str,
) -> sqlx::Result<Transition> {
    let same = sqlx::query(
        "SELECT 1 FROM servers WHERE id = $1 AND cloud_id = $2 AND address = $3
         AND state IN ('booting', 'warm', 'claimed')",
    )
    .bind(id.to_string())
    .bind(cloud_id)
    .bind(address)
    .fetch_optional(tx)
    .await?;
    Ok(match same {
        Some(_) => Transition::Done,
        None => Transition::NotPossible,
    })
}

async fn failed(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: ServerId,
    (why, blame): (&str, Blame),
    now: Moment,
) -> sqlx::Result<Transition> {
    let Some(row) = sqlx::query(
        "UPDATE servers SET state = 'failed', state_since = $3, failure = $2
         WHERE id = $1 AND state IN ('planned', 'creating', 'booting', 'warm')
         RETURNING tier, region",
    )
    .bind(id.to_string())
    .bind(why)
    .bind(now.0)
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(Transition::NotPossible);
    };
    distrust(&mut *tx, id).await?;
    if blame == Blame::Server {
        pools::failed(&mut *tx, &rows::pool(&row)?, now).await?;
    }
    let data = json!({ "why": why, "blame": blame });
    journal.note("server.failed", About::Server(id), &data);
    journal.write(tx).await?;
    Ok(Transition::Done)
}

async fn retire(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: ServerId,
    now: Moment,
) -> sqlx::Result<Transition> {
    let result = sqlx::query(
        "UPDATE servers SET state = 'draining', state_since = $2
         WHERE id = $1 AND state IN ('planned', 'creating', 'booting', 'warm', 'failed')",
    )
    .bind(id.to_string())
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    if transition(&result) == Transition::Done {
        distrust(&mut *tx, id).await?;
        journal.note("server.draining", About::Server(id), &json!({}));
        journal.write(tx).await?;
    }
    Ok(transition(&result))
}

/// The last step; whoever deleted an instance waits for it.
async fn gone(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: ServerId,
    now: Moment,
) -> sqlx::Result<Transition> {
    let Some(row) = sqlx::query(
        "UPDATE servers SET state = 'gone', state_since = $2
         WHERE id = $1 AND state = 'deleting' RETURNING instance_id",
    )
    .bind(id.to_string())
    .bind(now.0)
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(Transition::NotPossible);
    };
    stats::forget(&mut *tx, id).await?;
    let instance: Option<InstanceId> = rows::maybe_parsed(&row, "instance_id")?;
    journal.note("server.gone", About::server(id, instance), &json!({}));
    if let Some(instance) = instance {
        let whole = operations::Wanted::kind(instance, OperationKind::Delete);
        operations::succeed(&mut *tx, &mut journal, whole, &[], now).await?;
    }
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// Takes a server's address out of the proxy's trust table.
pub(super) async fn distrust(tx: &mut Connection, id: ServerId) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM trust WHERE server_id = $1")
        .bind(id.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

/// Whether the one row was there and changed.
pub(super) fn transition(result: &QueryResult) -> Transition {
    match result.rows_affected() {
        0 => Transition::NotPossible,
        _ => Transition::Done,
    }
}
