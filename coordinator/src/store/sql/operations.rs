//! Operations: how they begin and how they end.

use serde_json::json;
use tidepool_shared::{
    document::Generation,
    id::{InstanceId, OperationId},
};

use super::{
    Connection,
    events::{About, Journal},
    rows,
};
use crate::{
    ambient::Moment,
    model::{OperationKind, OperationState, OperationStep, StepMs},
};

/// An operation to be.
pub(super) struct Begun {
    pub(super) id: OperationId,
    pub(super) instance: InstanceId,
    pub(super) kind: OperationKind,
    pub(super) state: OperationState,
    pub(super) generation: Option<Generation>,
}

/// Writes the row. That nothing else is under way is the caller's care and the index's.
pub(super) async fn begin(tx: &mut Connection, begun: &Begun, now: Moment) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO operations (id, instance_id, kind, state, steps, generation, created_at)
         VALUES ($1, $2, $3, $4, '[]', $5, $6)",
    )
    .bind(begun.id.to_string())
    .bind(begun.instance.to_string())
    .bind(begun.kind.word())
    .bind(begun.state.word())
    .bind(begun.generation.map(|number| rows::as_integer(number.0)))
    .bind(now.0)
    .execute(tx)
    .await?;
    Ok(())
}

/// Which operation under way ends: that of an instance, whatever it is, or if it is of a kind or waits for a
/// generation.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    instance: InstanceId,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Any,
    Kind(OperationKind),
    /// A change whose generation is at most this.
    ChangeUpTo(Generation),
    /// A change of exactly this generation.
    ChangeOf(Generation),
    /// An upgrade whose generation is at most this.
    UpgradeUpTo(Generation),
}

impl Wanted {
    pub(super) fn any(instance: InstanceId) -> Self {
        let what = What::Any;
        Self { instance, what }
    }

    pub(super) fn kind(instance: InstanceId, kind: OperationKind) -> Self {
        let what = What::Kind(kind);
        Self { instance, what }
    }

    pub(super) fn change_up_to(instance: InstanceId, observed: Generation) -> Self {
        let what = What::ChangeUpTo(observed);
        Self { instance, what }
    }

    pub(super) fn change_of(instance: InstanceId, generation: Generation) -> Self {
        let what = What::ChangeOf(generation);
        Self { instance, what }
    }

    pub(super) fn upgrade_up_to(instance: InstanceId, observed: Generation) -> Self {
        let what = What::UpgradeUpTo(observed);
        Self { instance, what }
    }

    /// Whether the operation under way is meant.
    fn is(self, kind: OperationKind, generation: Option<Generation>) -> bool {
        let change = is_change(kind);
        match self.what {
            What::Any => true,
            What::Kind(wanted) => kind == wanted,
            What::ChangeUpTo(observed) => change && generation.is_some_and(|own| own <= observed),
            What::ChangeOf(wanted) => change && generation == Some(wanted),
            What::UpgradeUpTo(observed) => {
                kind == OperationKind::Upgrade && generation.is_some_and(|own| own <= observed)
            }
        }
    }
}

/// Whether it has succeeded when the agent has observed its generation.
const fn is_change(kind: OperationKind) -> bool {
    match kind {
        OperationKind::Configure
        | OperationKind::Rename
        | OperationKind::Restart
        | OperationKind::Stop
        | OperationKind::Suspend
        | OperationKind::Limit
        | OperationKind::Networks
        | OperationKind::Domains => true,
        OperationKind::Create
        | OperationKind::Start
        | OperationKind::Unsuspend
        | OperationKind::Upgrade
        | OperationKind::Delete
        | OperationKind::Undelete => false,
    }
}

/// Ends the wanted operation well, if it is under way.
pub(super) async fn succeed(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    wanted: Wanted,
    timings: &[StepMs],
    now: Moment,
) -> sqlx::Result<()> {
    let Some((id, kind)) = under_way(&mut *tx, wanted).await? else {
        return Ok(());
    };
    let steps: Vec<_> = timings.iter().map(done).collect();
    sqlx::query("UPDATE operations SET state = $2, steps = $3, finished_at = $4 WHERE id = $1")
        .bind(id.to_string())
        .bind(OperationState::Succeeded.word())
        .bind(rows::as_json(&steps)?)
        .bind(now.0)
        .execute(tx)
        .await?;
    let data = json!({ "operation": id, "kind": kind });
    journal.note(
        "operation.succeeded",
        About::Instance(wanted.instance),
        &data,
    );
    Ok(())
}

/// Ends the wanted operation badly, if it is under way.
pub(super) async fn fail(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    wanted: Wanted,
    error: &str,
    now: Moment,
) -> sqlx::Result<()> {
    let Some((id, kind)) = under_way(&mut *tx, wanted).await? else {
        return Ok(());
    };
    sqlx::query("UPDATE operations SET state = $2, error = $3, finished_at = $4 WHERE id = $1")
        .bind(id.to_string())
        .bind(OperationState::Failed.word())
        .bind(error)
        .bind(now.0)
        .execute(tx)
        .await?;
    let data = json!({ "operation": id, "kind": kind, "error": error });
    journal.note("operation.failed", About::Instance(wanted.instance), &data);
    Ok(())
}

/// Ends the wanted operation, if it is under way, without a judgement: it was taken back.
pub(super) async fn cancel(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    wanted: Wanted,
    now: Moment,
) -> sqlx::Result<()> {
    let Some((id, kind)) = under_way(&mut *tx, wanted).await? else {
        return Ok(());
    };
    sqlx::query("UPDATE operations SET state = $2, finished_at = $3 WHERE id = $1")
        .bind(id.to_string())
        .bind(OperationState::Canceled.word())
        .bind(now.0)
        .execute(tx)
        .await?;
    let data = json!({ "operation": id, "kind": kind });
    journal.note(
        "operation.canceled",
        About::Instance(wanted.instance),
        &data,
    );
    Ok(())
}

/// From now on the operation waits for another generation.
pub(super) async fn await_generation(
    tx: &mut Connection,
    id: OperationId,
    generation: Generation,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE operations SET generation = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(rows::as_integer(generation.0))
        .execute(tx)
        .await
        .map(drop)
}

/// The operation under way, if it is the wanted one. There is never more than one.
pub(super) async fn under_way(
    tx: &mut Connection,
    wanted: Wanted,
) -> sqlx::Result<Option<(OperationId, OperationKind)>> {
    let Some(row) = sqlx::query(
        "SELECT id, kind, generation FROM operations
         WHERE instance_id = $1 AND state IN ('queued', 'running')",
    )
    .bind(wanted.instance.to_string())
    .fetch_optional(tx)
    .await?
    else {
        return Ok(None);
    };
    let kind = rows::word(&row, "kind", OperationKind::from_word)?;
    let generation = rows::maybe_number(&row, "generation")?.map(Generation);
    if !wanted.is(kind, generation) {
        return Ok(None);
    }
    Ok(Some((rows::parsed(&row, "id")?, kind)))
}

fn done(step: &StepMs) -> OperationStep {
    OperationStep {
        name: step.name.clone(),
        state: OperationState::Succeeded,
        ms: Some(step.ms),
        attempts: 1,
    }
}
