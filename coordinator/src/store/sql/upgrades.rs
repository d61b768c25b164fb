//! What agents report of versions of OpenClaw: each order's outcome is told once.

use serde_json::json;
use tidepool_shared::{
    document::Generation,
    id::{InstanceId, ServerId},
};

use super::{
    Connection,
    events::{About, Journal},
    instances,
    operations::{self, Wanted},
    rows,
};
use crate::{
    ambient::Moment,
    model::{Instance, OperationKind, ServerReport},
};

/// Whether a report tells nothing of an order that the store does not hold.
pub(super) fn is_known(instance: &Instance, report: &ServerReport) -> bool {
    settled(instance, report) <= instance.openclaw_settled
}

/// The order that the agent says is over; one that was never given is none.
fn settled(instance: &Instance, report: &ServerReport) -> u64 {
    let given = instance.openclaw.as_ref().map_or(0, |order| order.number);
    let said = report.openclaw.as_ref().map_or(0, |said| said.settled);
    if said <= given { said } else { 0 }
}

/// Ends the order that the report says is over.
pub(super) async fn settle(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    (id, server): (InstanceId, ServerId),
    report: &ServerReport,
    observed: Generation,
    now: Moment,
) -> sqlx::Result<()> {
    let Some(said) = &report.openclaw else {
        // It does what it understands of a document, and of this it understood nothing.
        let wanted = Wanted::upgrade_up_to(id, observed);
        let why = "the server's agent is too old to upgrade OpenClaw";
        return operations::fail(tx, journal, wanted, why, now).await;
    };
    let Some(instance) = instances::find(&mut *tx, id).await? else {
        return Ok(());
    };
    let settled = settled(&instance, report);
    if settled <= instance.openclaw_settled {
        return Ok(());
    }
    sqlx::query("UPDATE instances SET openclaw_settled = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(rows::as_integer(settled))
        .execute(&mut *tx)
        .await?;
    let (about, wanted) = (
        About::Both(id, server),
        Wanted::kind(id, OperationKind::Upgrade),
    );
    let ordered = instance.openclaw.map(|order| order.version);
    if let Some(why) = &said.failed {
        let data = json!({ "version": said.version, "wanted": ordered, "reason": why });
        journal.note("upgrade.failed", about, &data);
        operations::fail(tx, journal, wanted, why, now).await
    } else {
        journal.note("upgrade.done", about, &json!({ "version": said.version }));
        operations::succeed(tx, journal, wanted, &report.steps, now).await
    }
}
