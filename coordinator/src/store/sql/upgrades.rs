//! What becomes of orders for versions of OpenClaw: agents report it, and each outcome is told once.
//!
//! An order that ends otherwise than by its agent's word is taken back in the same transaction: a server that is
//! away finds it in its document whenever it comes back, and would carry it out when nobody expects it any more.

use serde_json::json;
use tidepool_shared::{
    document::Generation,
    id::{InstanceId, OperationId, ServerId},
    openclaw_version::OpenClawVersion,
};

use super::{
    Connection, deletion,
    documents::{self, Switch},
    events::{About, Journal},
    instances,
    operations::{self, Wanted},
    rows,
    servers::transition,
};
use crate::{
    ambient::Moment,
    model::{Instance, OperationKind, ServerReport},
    store::Transition,
};

/// Whether a report tells nothing of an order that the store does not hold.
pub(super) fn is_known(instance: &Instance, report: &ServerReport) -> bool {
    settled(instance, report) <= instance.openclaw_settled
}

/// The order that the agent says is over; one that was never given is none.
fn settled(instance: &Instance, report: &ServerReport) -> u64 {
    let said = report.openclaw.as_ref().map_or(0, |said| said.settled);
    if said <= instance.openclaw_orders {
        said
    } else {
        0
    }
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
        return give_up(tx, journal, id, wanted, why, now).await.map(drop);
    };
    let Some(instance) = instances::find(&mut *tx, id).await? else {
        return Ok(());
    };
    let settled = settled(&instance, report);
    if settled <= instance.openclaw_settled {
        if instance.openclaw.is_none() {
            // It has heard that the order was taken back, and had not begun with it.
            let wanted = Wanted::upgrade_up_to(id, observed);
            operations::cancel(tx, journal, wanted, now).await?;
        }
        return Ok(());
    }
    sqlx::query("UPDATE instances SET openclaw_settled = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(rows::as_integer(settled))
        .execute(&mut *tx)
        .await?;
    let about = About::Both(id, server);
    // What becomes of an earlier one, which was taken back too late, says nothing of the last one.
    let is_last = settled == instance.openclaw_orders;
    let wanted = Wanted::kind(id, OperationKind::Upgrade);
    if let Some(why) = &said.failed {
        let ordered = instance.openclaw.filter(|_| is_last);
        let ordered = ordered.map(|order| order.version);
        let data = json!({ "version": said.version, "wanted": ordered, "reason": why });
        journal.note("upgrade.failed", about, &data);
        if is_last {
            operations::fail(tx, journal, wanted, why, now).await?;
        }
    } else {
        journal.note("upgrade.done", about, &json!({ "version": said.version }));
        if is_last {
            operations::succeed(tx, journal, wanted, &report.steps, now).await?;
        }
    }
    Ok(())
}

/// Fails the wanted upgrade, if it is under way, without its agent's word. The transaction holds the instance.
pub(super) async fn give_up(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    id: InstanceId,
    wanted: Wanted,
    why: &str,
    now: Moment,
) -> sqlx::Result<Transition> {
    if operations::under_way(&mut *tx, wanted).await?.is_none() {
        return Ok(Transition::NotPossible);
    }
    let Some(instance) = instances::find(&mut *tx, id).await? else {
        return Ok(Transition::NotPossible);
    };
    operations::fail(&mut *tx, journal, wanted, why, now).await?;
    let ordered = instance.openclaw.map(|order| order.version);
    if ordered.is_some() {
        documents::switch(tx, id, Switch::Withdraw).await?;
    }
    let data = json!({ "wanted": ordered, "reason": why });
    journal.note(
        "upgrade.failed",
        About::instance(id, instance.server),
        &data,
    );
    Ok(Transition::Done)
}

/// Takes back the order of this upgrade, if it is still under way. It ends with what the agent says: that the
/// order is over, if it had begun with it, or that it has seen the document without it. The transaction holds the
/// instance.
pub(super) async fn take_back(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    (id, upgrade): (InstanceId, OperationId),
    why: &str,
) -> sqlx::Result<()> {
    let wanted = Wanted::kind(id, OperationKind::Upgrade);
    let under_way = operations::under_way(&mut *tx, wanted).await?;
    if under_way.is_none_or(|(operation, _)| operation != upgrade) {
        return Ok(());
    }
    let found = instances::find(&mut *tx, id).await?;
    let Some((order, server)) = found.and_then(|found| Some((found.openclaw?, found.server)))
    else {
        return Ok(());
    };
    let generation = documents::switch(&mut *tx, id, Switch::Withdraw).await?;
    operations::await_generation(tx, upgrade, generation).await?;
    let data = json!({ "operation": upgrade, "version": order.version, "reason": why });
    journal.note("upgrade.withdrawn", About::instance(id, server), &data);
    Ok(())
}

/// Sets or removes a pin. Another version that is ordered is taken back.
pub(super) async fn pin(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: InstanceId,
    version: Option<&OpenClawVersion>,
) -> sqlx::Result<Transition> {
    deletion::hold_server(&mut *tx, id).await?;
    let pinned = sqlx::query(
        "UPDATE instances SET openclaw_pin = $2
         WHERE id = $1 AND status NOT IN ('deleted', 'purged')",
    )
    .bind(id.to_string())
    .bind(version.map(OpenClawVersion::as_str))
    .execute(&mut *tx)
    .await?;
    let found = instances::find(&mut *tx, id).await?;
    let Some(instance) = found.filter(|_| transition(&pinned) == Transition::Done) else {
        return Ok(Transition::NotPossible);
    };
    let kind = match version {
        Some(_) => "instance.pinned",
        None => "instance.unpinned",
    };
    let about = About::instance(id, instance.server);
    journal.note(kind, about, &json!({ "version": version }));
    let ordered = instance.openclaw.map(|order| order.version);
    if let Some(version) = version
        && ordered.is_some_and(|ordered| ordered != *version)
        && let Some((upgrade, _)) =
            operations::under_way(&mut *tx, Wanted::kind(id, OperationKind::Upgrade)).await?
    {
        let why = format!("it was pinned to {version}");
        take_back(&mut *tx, &mut journal, (id, upgrade), &why).await?;
    }
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// Ends this very upgrade without its agent's word, if it is still under way.
pub(super) async fn end(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    (id, upgrade): (InstanceId, OperationId),
    why: &str,
    now: Moment,
) -> sqlx::Result<Transition> {
    deletion::hold_server(&mut *tx, id).await?;
    instances::hold(&mut *tx, id).await?;
    let wanted = Wanted::kind(id, OperationKind::Upgrade);
    let under_way = operations::under_way(&mut *tx, wanted).await?;
    if under_way.is_none_or(|(operation, _)| operation != upgrade) {
        return Ok(Transition::NotPossible);
    }
    let given_up = give_up(&mut *tx, &mut journal, id, wanted, why, now).await?;
    journal.write(tx).await?;
    Ok(given_up)
}
