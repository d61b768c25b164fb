//! Instances: the trait's door, and everything that only reads.

use async_trait::async_trait;
use serde_json::{Value, json};
use tidepool_shared::{
    document::SealedDocument,
    id::{InstanceId, OperationId, ServerId},
};

use super::{
    Connection, Database, Row, SqlStore, changes, claims, deletion, dialect,
    documents::{self, Switch},
    during, halts, locked, renames, rows,
    servers::transition,
    transaction,
};
use crate::{
    ambient::Moment,
    model::{
        DocumentChange, Instance, InstanceStatus, NewInstance, Operation, PoolKey, Rename, StepMs,
        SuspensionReason,
    },
    store::{ChangeRefused, CreateRefused, InstanceStore, Page, Stored, Transition},
};

/// An instance with its place in the queue; the condition on `i` follows.
macro_rules! instance_columns {
    () => {
        "SELECT i.*, CASE WHEN i.status = 'pending' THEN
             (SELECT count(*) FROM instances AS w
              WHERE w.status = 'pending' AND w.tier = i.tier AND w.region = i.region
                AND w.ordinal <= i.ordinal)
         END AS queue_position
         FROM instances AS i"
    };
}
#[async_trait]
impl InstanceStore for SqlStore {
    async fn create_instance(
        &self,
        new: &NewInstance,
        now: Moment,
    ) -> Result<Instance, CreateRefused> {
        dialect::create_instance(self, new, now).await
    }

    async fn claim_for_pending(&self, pool: &PoolKey, now: Moment) -> Stored<Option<Instance>> {
        transaction!(self, "claim a server for who waits", |tx| {
            claims::claim_for_pending(tx, self.journal(now), pool, now).await
        })
    }

    async fn mark_running(
        &self,
        id: InstanceId,
        timings: &[StepMs],
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "mark an instance as running", |tx| {
            changes::running(tx, self.journal(now), id, timings, now).await
        })
    }

    async fn mark_instance_failed(
        &self,
        id: InstanceId,
        problem: &str,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "mark an instance as failed", |tx| {
            changes::failed(tx, self.journal(now), id, problem, now).await
        })
    }

    async fn change_document(
        &self,
        change: &DocumentChange,
        now: Moment,
    ) -> Result<Instance, ChangeRefused> {
        changes::check_label(change)?;
        transaction!(self, "change an instance's document", |tx| {
            changes::document(tx, change, now).await
        })?
    }

    async fn rename_instance(
        &self,
        rename: &Rename,
        now: Moment,
    ) -> Result<Instance, ChangeRefused> {
        changes::check_label(&rename.change)?;
        transaction!(self, "rename an instance", |tx| {
            renames::rename(tx, self.journal(now), rename, now).await
        })?
    }

    async fn set_basic_auth(
        &self,
        id: InstanceId,
        credentials: Option<&str>,
        _now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "set an instance's basic auth", |tx| {
            let set = sqlx::query(
                "UPDATE instances SET basic_auth = $2
                 WHERE id = $1 AND status NOT IN ('deleted', 'purged')",
            )
            .bind(id.to_string())
            .bind(credentials)
            .execute(&mut *tx)
            .await?;
            let set = transition(&set);
            if set == Transition::Done {
                documents::switch(&mut *tx, id, Switch::Evict).await?;
            }
            Ok(set)
        })
    }

    async fn suspend_instance(
        &self,
        id: InstanceId,
        operation: OperationId,
        why: (SuspensionReason, Option<&str>),
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "suspend an instance", |tx| {
            halts::suspend(tx, self.journal(now), id, operation, why, now).await
        })
    }

    async fn unsuspend_instance(
        &self,
        id: InstanceId,
        operation: OperationId,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "end an instance's suspension", |tx| {
            halts::unsuspend(tx, self.journal(now), id, operation, now).await
        })
    }

    async fn stop_instance(
        &self,
        id: InstanceId,
        operation: OperationId,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "stop an instance", |tx| {
            halts::stop(tx, self.journal(now), id, operation, now).await
        })
    }

    async fn start_instance(
        &self,
        id: InstanceId,
        operation: OperationId,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "start an instance", |tx| {
            halts::start(tx, self.journal(now), id, operation, now).await
        })
    }

    async fn delete_instance(
        &self,
        id: InstanceId,
        operation: OperationId,
        purge_at: Moment,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "delete an instance", |tx| {
            deletion::delete(tx, self.journal(now), id, operation, purge_at, now).await
        })
    }

    async fn undelete_instance(
        &self,
        change: &DocumentChange,
        now: Moment,
    ) -> Result<Instance, ChangeRefused> {
        changes::check_label(change)?;
        transaction!(self, "bring an instance back", |tx| {
            deletion::undelete(tx, self.journal(now), change, now).await
        })?
    }

    async fn purge_instance(
        &self,
        id: InstanceId,
        ended_by: Moment,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "purge an instance", |tx| {
            deletion::purge(tx, self.journal(now), id, ended_by, now).await
        })
    }

    async fn to_be_purged(&self, now: Moment) -> Stored<Vec<InstanceId>> {
        let doing = "look for what is to be purged";
        let found = sqlx::query(
            "SELECT id FROM instances WHERE status = 'deleted' AND purge_at <= $1
             ORDER BY purge_at LIMIT 100",
        )
        .bind(now.0)
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        let ids = found.iter().map(|row| rows::parsed(row, "id"));
        ids.collect::<sqlx::Result<_>>().map_err(during(doing))
    }

    async fn instance(&self, id: InstanceId) -> Stored<Option<Instance>> {
        find(self.readers(), id)
            .await
            .map_err(during("read an instance"))
    }

    async fn instance_named(&self, name: &str) -> Stored<Option<Instance>> {
        one(
            self,
            "read an instance by its name",
            sqlx::query(concat!(
                instance_columns!(),
                " WHERE i.name = $1 AND i.status <> 'purged'"
            ))
            .bind(name),
            rows::instance,
        )
        .await
    }

    async fn instance_with_external_id(&self, external_id: &str) -> Stored<Option<Instance>> {
        one(
            self,
            "read an instance by its external id",
            sqlx::query(concat!(
                instance_columns!(),
                " WHERE i.external_id = $1 AND i.status <> 'purged'"
            ))
            .bind(external_id),
            rows::instance,
        )
        .await
    }

    async fn instances(
        &self,
        status: Option<InstanceStatus>,
        page: &Page<InstanceId>,
    ) -> Stored<Vec<Instance>> {
        let doing = "read a page of instances";
        // A cursor that names no instance finds nothing, rather than the first page again.
        let found = sqlx::query(concat!(
            instance_columns!(),
            " WHERE ($1 IS NULL OR i.ordinal > (SELECT ordinal FROM instances WHERE id = $1))
                AND CASE WHEN $2 IS NULL THEN i.status NOT IN ('deleted', 'purged')
                    ELSE i.status = $2 END
              ORDER BY i.ordinal LIMIT $3"
        ))
        .bind(rows::as_text(page.after))
        .bind(status.map(InstanceStatus::word))
        .bind(i64::from(page.limit))
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        found
            .iter()
            .map(rows::instance)
            .collect::<sqlx::Result<_>>()
            .map_err(during(doing))
    }

    async fn pending_count(&self, pool: &PoolKey) -> Stored<u32> {
        sqlx::query(
            "SELECT count(*) AS waiting FROM instances
             WHERE status = 'pending' AND tier = $1 AND region = $2",
        )
        .bind(&pool.tier)
        .bind(&pool.region)
        .fetch_one(self.readers())
        .await
        .and_then(|row| rows::number(&row, "waiting"))
        .map_err(during("count who waits"))
    }

    async fn document_for(&self, server: ServerId) -> Stored<Option<SealedDocument>> {
        one(
            self,
            "read a server's document",
            sqlx::query(
                "SELECT document.* FROM servers AS server
                 JOIN documents AS document ON document.instance_id = server.instance_id
                 WHERE server.id = $1 AND server.state IN ('claimed', 'draining')",
            )
            .bind(server.to_string()),
            rows::document,
        )
        .await
    }

    async fn operation(&self, id: OperationId) -> Stored<Option<Operation>> {
        one(
            self,
            "read an operation",
            sqlx::query("SELECT * FROM operations WHERE id = $1").bind(id.to_string()),
            rows::operation,
        )
        .await
    }

    async fn current_operation(&self, id: InstanceId) -> Stored<Option<Operation>> {
        one(
            self,
            "read the operation under way",
            sqlx::query(
                "SELECT * FROM operations
                 WHERE instance_id = $1 AND state IN ('queued', 'running')",
            )
            .bind(id.to_string()),
            rows::operation,
        )
        .await
    }
}

/// Reads an instance, within a transaction or not.
pub(super) async fn find(
    executor: impl sqlx::Executor<'_, Database = Database>,
    id: InstanceId,
) -> sqlx::Result<Option<Instance>> {
    sqlx::query(concat!(instance_columns!(), " WHERE i.id = $1"))
        .bind(id.to_string())
        .fetch_optional(executor)
        .await?
        .map(|row| rows::instance(&row))
        .transpose()
}

/// Holds an instance for the rest of the transaction: nobody else changes it, or begins an operation on
/// it. Whoever holds its server, too, took that first. False when there is no such instance.
pub(super) async fn hold(tx: &mut Connection, id: InstanceId) -> sqlx::Result<bool> {
    let found = sqlx::query(locked!("SELECT 1 FROM instances WHERE id = $1"))
        .bind(id.to_string())
        .fetch_optional(tx)
        .await?;
    Ok(found.is_some())
}

/// The same, and false as well when it is deleted.
pub(super) async fn hold_living(tx: &mut Connection, id: InstanceId) -> sqlx::Result<bool> {
    let found = sqlx::query(locked!(
        "SELECT 1 FROM instances WHERE id = $1 AND status NOT IN ('deleted', 'purged')"
    ))
    .bind(id.to_string())
    .fetch_optional(tx)
    .await?;
    Ok(found.is_some())
}

/// What an `instance.status_changed` says.
pub(super) fn moved(from: InstanceStatus, to: InstanceStatus) -> Value {
    json!({ "from": from, "to": to })
}

type Query<'q> = sqlx::query::Query<'q, Database, <Database as sqlx::Database>::Arguments>;

/// Runs a query for at most one row.
async fn one<T>(
    store: &SqlStore,
    doing: &'static str,
    query: Query<'_>,
    read: fn(&Row) -> sqlx::Result<T>,
) -> Stored<Option<T>> {
    query
        .fetch_optional(store.readers())
        .await
        .and_then(|row| row.as_ref().map(read).transpose())
        .map_err(during(doing))
}
