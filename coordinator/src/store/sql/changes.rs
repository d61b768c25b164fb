//! What becomes of an instance that exists: it runs, fails, or gets another document.

use serde_json::json;
use tidepool_shared::{
    document::Generation,
    id::{InstanceId, ServerId},
};

use super::{
    Connection, documents,
    events::{About, Journal},
    instances, locked,
    operations::{self, Wanted},
    rows,
};
use crate::{
    ambient::Moment,
    config::channels::hook_paths,
    model::{DocumentChange, Instance, InstanceStatus, OperationKind, OperationState, StepMs},
    store::{ChangeRefused, StoreError, Transition},
};

/// What has succeeded when the instance runs.
const STARTS: [OperationKind; 4] = [
    OperationKind::Create,
    OperationKind::Start,
    OperationKind::Unsuspend,
    OperationKind::Undelete,
];

/// `starting` → `running`. How long that took is told of the first time only.
pub(super) async fn running(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: InstanceId,
    timings: &[StepMs],
    now: Moment,
) -> sqlx::Result<Transition> {
    let Some(row) = sqlx::query(
        "UPDATE instances SET status = 'running', ready_at = COALESCE(ready_at, $2),
                timings = CASE WHEN ready_at IS NULL THEN $3 ELSE timings END
         WHERE id = $1 AND status = 'starting' RETURNING server_id",
    )
    .bind(id.to_string())
    .bind(now.0)
    .bind(rows::as_json(&timings)?)
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(Transition::NotPossible);
    };
    let server: Option<ServerId> = rows::maybe_parsed(&row, "server_id")?;
    let about = About::instance(id, server);
    let data = instances::moved(InstanceStatus::Starting, InstanceStatus::Running);
    journal.note("instance.status_changed", about, &data);
    for kind in STARTS {
        let wanted = Wanted::kind(id, kind);
        operations::succeed(&mut *tx, &mut journal, wanted, timings, now).await?;
    }
    journal.note("instance.ready", about, &json!({ "timings": timings }));
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// `pending|starting` → `failed`. The server, if there is one, stays the instance's until deletion.
pub(super) async fn failed(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: InstanceId,
    problem: &str,
    now: Moment,
) -> sqlx::Result<Transition> {
    let Some(row) = sqlx::query(locked!(
        "SELECT status, server_id FROM instances
         WHERE id = $1 AND status IN ('pending', 'starting')"
    ))
    .bind(id.to_string())
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(Transition::NotPossible);
    };
    let before = rows::word(&row, "status", InstanceStatus::from_word)?;
    let server: Option<ServerId> = rows::maybe_parsed(&row, "server_id")?;
    sqlx::query("UPDATE instances SET status = 'failed', problem = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(problem)
        .execute(&mut *tx)
        .await?;
    let data = json!({
        "from": before, "to": InstanceStatus::Failed, "problem": problem,
    });
    journal.note(
        "instance.status_changed",
        About::instance(id, server),
        &data,
    );
    for kind in STARTS {
        let wanted = Wanted::kind(id, kind);
        operations::fail(&mut *tx, &mut journal, wanted, problem, now).await?;
    }
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// A document must be labelled for what it replaces: an agent refuses any other number.
pub(super) fn check_label(change: &DocumentChange) -> Result<(), StoreError> {
    let label = (change.document.instance, change.document.generation);
    if label == (change.instance, change.expected.next()) {
        return Ok(());
    }
    Err(StoreError {
        doing: "check a document's label",
        source: format!(
            "a document of {}, generation {}, cannot follow generation {} of {}",
            label.0, label.1, change.expected, change.instance
        )
        .into(),
    })
}

/// Replaces document and configuration.
pub(super) async fn document(
    tx: &mut Connection,
    change: &DocumentChange,
    now: Moment,
) -> sqlx::Result<Result<Instance, ChangeRefused>> {
    if !instances::hold(&mut *tx, change.instance).await? {
        return Ok(Err(ChangeRefused::NotFound));
    }
    if let Some(refused) = refusal(&mut *tx, change).await? {
        return Ok(Err(refused));
    }
    replace(&mut *tx, change, now).await?;
    let changed = instances::find(tx, change.instance).await?;
    Ok(changed.ok_or(ChangeRefused::NotFound))
}

/// Writes the new document and the operation that ends with it.
pub(super) async fn replace(
    tx: &mut Connection,
    change: &DocumentChange,
    now: Moment,
) -> sqlx::Result<()> {
    let limits = change.edge_limits;
    let (order, version) = match &change.openclaw {
        Some(order) => (order.number, Some(order.version.as_str())),
        None => (0, None),
    };
    // The number stays when there is no order any more: agents pass by one that they have seen.
    sqlx::query(
        "UPDATE instances SET generation = $2, config = $3, restarts = $4, evictions = $5,
                max_body_bytes = $6, requests_per_second = $7, request_burst = $8, domains = $9,
                openclaw_order = CASE WHEN $10 > openclaw_order THEN $10 ELSE openclaw_order END,
                openclaw = $11
         WHERE id = $1",
    )
    .bind(change.instance.to_string())
    .bind(rows::as_integer(change.document.generation.0))
    .bind(rows::as_json(&change.config)?)
    .bind(rows::as_integer(change.restarts))
    .bind(rows::as_integer(change.evictions))
    .bind(limits.max_body_bytes.map(rows::as_integer))
    .bind(limits.requests_per_second.map(i64::from))
    .bind(limits.request_burst.map(i64::from))
    .bind(rows::as_json(&change.domains)?)
    .bind(rows::as_integer(order))
    .bind(version)
    .execute(&mut *tx)
    .await?;
    let signed = change.openclaw.as_ref();
    sqlx::query(
        "UPDATE instances SET channel_hooks = $3, openclaw_signed = $2, networks = $4 WHERE id = $1",
    )
    .bind(change.instance.to_string())
    .bind(signed.and_then(|order| order.signed.as_deref()))
    .bind(rows::as_json(&hook_paths(&change.config))?)
    .bind(rows::as_json(&change.networks)?)
    .execute(&mut *tx)
    .await?;
    documents::write(&mut *tx, &change.document).await?;
    let begun = operations::Begun {
        id: change.operation,
        instance: change.instance,
        kind: change.kind,
        state: OperationState::Running,
        generation: Some(change.document.generation),
    };
    operations::begin(tx, &begun, now).await
}

/// Why the change cannot be made now. What runs is told before what is stale: while it runs, the
/// caller's next try would be refused again.
pub(super) async fn refusal(
    tx: &mut Connection,
    change: &DocumentChange,
) -> sqlx::Result<Option<ChangeRefused>> {
    let Some(row) = sqlx::query(
        "SELECT i.generation, o.id AS operation_id FROM instances AS i
         LEFT JOIN operations AS o ON o.instance_id = i.id AND o.state IN ('queued', 'running')
         WHERE i.id = $1 AND i.status NOT IN ('deleted', 'purged')",
    )
    .bind(change.instance.to_string())
    .fetch_optional(tx)
    .await?
    else {
        return Ok(Some(ChangeRefused::NotFound));
    };
    if let Some(running) = rows::maybe_parsed(&row, "operation_id")? {
        return Ok(Some(ChangeRefused::OperationInProgress(running)));
    }
    let present = Generation(rows::unsigned(&row, "generation")?);
    Ok((present != change.expected).then_some(ChangeRefused::Stale(present)))
}
