//! Switching an instance off and on: its customer stops and starts it, the operator suspends it. Its server
//! and all that is on it stay. In one commit no route leads to it and whatever was under way is canceled; the
//! gateway follows by the document.
//!
//! One that has failed on its server is switched off like any other: it may have become reachable after all.

use serde_json::{Value, json};
use tidepool_shared::id::{InstanceId, OperationId, ServerId};

use super::{
    Connection, deletion,
    documents::{self, Switch},
    events::{About, Journal},
    instances, locked,
    operations::{self, Wanted},
    rows,
};
use crate::{
    ambient::Moment,
    model::{InstanceStatus, OperationKind, OperationState, Suspension, SuspensionReason},
    store::Transition,
};

/// An instance that the transaction holds.
struct Held {
    id: InstanceId,
    status: InstanceStatus,
    server: Option<ServerId>,
    suspension: Option<Suspension>,
}

/// `starting|running|stopped|failed` → `suspended`.
pub(super) async fn suspend(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: InstanceId,
    operation: OperationId,
    (reason, message): (SuspensionReason, Option<&str>),
    now: Moment,
) -> sqlx::Result<Transition> {
    use InstanceStatus::{Failed, Running, Starting, Stopped, Suspended};
    let Some(held) = hold(&mut *tx, id, &[Starting, Running, Stopped, Failed]).await? else {
        return Ok(Transition::NotPossible);
    };
    let suspension = Suspension {
        reason,
        message: message.map(str::to_owned),
        since: now,
        was_stopped: held.status == Stopped,
    };
    set(&mut *tx, id, Suspended, Some(&suspension)).await?;
    switch_off(&mut *tx, id, operation, OperationKind::Suspend, now).await?;
    let why = json!({ "reason": reason, "message": message });
    tell(&mut journal, &held, Suspended, why);
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// `starting|running|failed` → `stopped`.
pub(super) async fn stop(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: InstanceId,
    operation: OperationId,
    now: Moment,
) -> sqlx::Result<Transition> {
    use InstanceStatus::{Failed, Running, Starting, Stopped};
    let Some(held) = hold(&mut *tx, id, &[Starting, Running, Failed]).await? else {
        return Ok(Transition::NotPossible);
    };
    set(&mut *tx, id, Stopped, None).await?;
    switch_off(&mut *tx, id, operation, OperationKind::Stop, now).await?;
    tell(&mut journal, &held, Stopped, json!({}));
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// `suspended` → `starting`, or `stopped` if it was that before.
pub(super) async fn unsuspend(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: InstanceId,
    operation: OperationId,
    now: Moment,
) -> sqlx::Result<Transition> {
    use InstanceStatus::{Starting, Stopped, Suspended};
    let Some(held) = hold(&mut *tx, id, &[Suspended]).await? else {
        return Ok(Transition::NotPossible);
    };
    let kind = OperationKind::Unsuspend;
    let was_stopped = held.suspension.as_ref().is_some_and(|it| it.was_stopped);
    let status = if was_stopped { Stopped } else { Starting };
    set(&mut *tx, id, status, None).await?;
    if was_stopped {
        // What was switched off stays so: nothing is left to wait for.
        begin(&mut *tx, id, operation, kind, now).await?;
        let whole = Wanted::kind(id, kind);
        operations::succeed(&mut *tx, &mut journal, whole, &[], now).await?;
    } else {
        switch_on(&mut *tx, id, operation, kind, now).await?;
    }
    tell(&mut journal, &held, status, json!({}));
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// `stopped` → `starting`.
pub(super) async fn start(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: InstanceId,
    operation: OperationId,
    now: Moment,
) -> sqlx::Result<Transition> {
    use InstanceStatus::{Starting, Stopped};
    let Some(held) = hold(&mut *tx, id, &[Stopped]).await? else {
        return Ok(Transition::NotPossible);
    };
    set(&mut *tx, id, Starting, None).await?;
    switch_on(&mut *tx, id, operation, OperationKind::Start, now).await?;
    tell(&mut journal, &held, Starting, json!({}));
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// Holds an instance that has one of these statuses. Its server is held first, as reports do, so that neither
/// waits for the other. One that failed without a server has nothing to switch, nor anybody to observe it.
async fn hold(
    tx: &mut Connection,
    id: InstanceId,
    from: &[InstanceStatus],
) -> sqlx::Result<Option<Held>> {
    deletion::hold_server(&mut *tx, id).await?;
    let Some(row) = sqlx::query(locked!(
        "SELECT status, server_id, suspension FROM instances WHERE id = $1"
    ))
    .bind(id.to_string())
    .fetch_optional(tx)
    .await?
    else {
        return Ok(None);
    };
    let held = Held {
        id,
        status: rows::word(&row, "status", InstanceStatus::from_word)?,
        server: rows::maybe_parsed(&row, "server_id")?,
        suspension: rows::maybe_json(&row, "suspension")?,
    };
    let has_nothing = held.status == InstanceStatus::Failed && held.server.is_none();
    Ok((from.contains(&held.status) && !has_nothing).then_some(held))
}

async fn set(
    tx: &mut Connection,
    id: InstanceId,
    status: InstanceStatus,
    suspension: Option<&Suspension>,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE instances SET status = $2, suspension = $3 WHERE id = $1")
        .bind(id.to_string())
        .bind(status.word())
        .bind(suspension.map(rows::as_json).transpose()?)
        .execute(tx)
        .await
        .map(drop)
}

/// The operation has succeeded when the agent has observed the document.
async fn switch_off(
    tx: &mut Connection,
    id: InstanceId,
    operation: OperationId,
    kind: OperationKind,
    now: Moment,
) -> sqlx::Result<()> {
    deletion::cancel_operations(&mut *tx, id, now).await?;
    let generation = documents::switch(&mut *tx, id, Switch::Off).await?;
    let begun = operations::Begun {
        id: operation,
        instance: id,
        kind,
        state: OperationState::Running,
        generation: Some(generation),
    };
    operations::begin(tx, &begun, now).await
}

/// The operation has succeeded when the instance answers as its owner; the time for that begins now, and why
/// it failed before is history.
async fn switch_on(
    tx: &mut Connection,
    id: InstanceId,
    operation: OperationId,
    kind: OperationKind,
    now: Moment,
) -> sqlx::Result<()> {
    documents::switch(&mut *tx, id, Switch::On).await?;
    // Nobody expected it to be well while it was off.
    sqlx::query(
        "UPDATE instances SET claimed_at = $2, problem = NULL,
                unwell_since = CASE WHEN unwell_since IS NOT NULL THEN $2 END
         WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    begin(tx, id, operation, kind, now).await
}

/// Takes the place of what is under way, which can only be what is being taken back.
async fn begin(
    tx: &mut Connection,
    id: InstanceId,
    operation: OperationId,
    kind: OperationKind,
    now: Moment,
) -> sqlx::Result<()> {
    deletion::cancel_operations(&mut *tx, id, now).await?;
    let begun = operations::Begun {
        id: operation,
        instance: id,
        kind,
        state: OperationState::Running,
        generation: None,
    };
    operations::begin(tx, &begun, now).await
}

fn tell(journal: &mut Journal<'_>, held: &Held, to: InstanceStatus, why: Value) {
    let mut data = instances::moved(held.status, to);
    if let (Some(data), Value::Object(why)) = (data.as_object_mut(), why) {
        data.extend(why);
    }
    let about = About::instance(held.id, held.server);
    journal.note("instance.status_changed", about, &data);
}
