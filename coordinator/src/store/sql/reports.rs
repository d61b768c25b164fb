//! What an agent's report changes.
//!
//! Agents send their whole state whenever something in it changed, and all of them at once after a
//! restart of the coordinator. A report that says what is known writes nothing, holds nothing and so costs
//! no sync.

use serde_json::json;
use tidepool_shared::{
    document::Generation,
    id::{InstanceId, ServerId},
};

use super::{
    Connection,
    events::{About, Journal},
    instances, locked,
    operations::{self, Wanted},
    pools, rows, servers, upgrades,
};
use crate::{
    ambient::Moment,
    model::{Health, Server, ServerReport, ServerState},
    store::Transition,
};

/// Takes a report in; the server as it is afterwards, or `None` when it was ignored.
pub(super) async fn record(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: ServerId,
    report: &ServerReport,
    now: Moment,
) -> sqlx::Result<Option<Server>> {
    let Some(seen) = servers::find(&mut *tx, id).await? else {
        return Ok(None);
    };
    if is_known(&mut *tx, &seen, report, now).await? {
        return Ok(Some(seen));
    }
    let Some(row) = sqlx::query(locked!("SELECT * FROM servers WHERE id = $1"))
        .bind(id.to_string())
        .fetch_optional(&mut *tx)
        .await?
    else {
        return Ok(None);
    };
    let before = rows::server(&row)?;
    if before.epoch != report.epoch || before.revoked {
        return Ok(None);
    }
    let Some(after) = afterwards(&before, report, now) else {
        return Ok(None);
    };
    if after != before {
        update(&mut *tx, &after).await?;
    }
    if after.state != before.state {
        changed_state(&mut *tx, &mut journal, &after).await?;
        count(&mut *tx, &after, now).await?;
    }
    if let (ServerState::Claimed, Some(instance)) = (after.state, after.instance) {
        tell_instance(&mut *tx, &mut journal, instance, id, report, now).await?;
    }
    journal.write(tx).await?;
    Ok(Some(after))
}

/// Whether a report of the present session says nothing that the store does not hold already. One that tells
/// of a rejection is looked at again: the server's row knows whether it was told before.
async fn is_known(
    tx: &mut Connection,
    seen: &Server,
    report: &ServerReport,
    now: Moment,
) -> sqlx::Result<bool> {
    let listened_to = seen.epoch == report.epoch && !seen.revoked && report.rejected.is_none();
    if !listened_to || afterwards(seen, report, now).as_ref() != Some(seen) {
        return Ok(false);
    }
    let (ServerState::Claimed, Some(id)) = (seen.state, seen.instance) else {
        return Ok(true);
    };
    let Some(instance) = instances::find(&mut *tx, id).await? else {
        return Ok(false);
    };
    let observed = report.observed.min(instance.generation);
    let same = instance.health == report.health
        && instance.reasons == report.reasons
        && instance.observed == observed;
    if !same || !upgrades::is_known(&instance, report) {
        return Ok(false);
    }
    let mut ended = vec![Wanted::change_up_to(id, observed)];
    if report.openclaw.is_none() || instance.openclaw.is_none() {
        ended.push(Wanted::upgrade_up_to(id, observed));
    }
    for wanted in ended {
        if operations::under_way(&mut *tx, wanted).await?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes in that nothing is heard of a server.
pub(super) async fn unheard(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: ServerId,
    why: &str,
    now: Moment,
) -> sqlx::Result<Transition> {
    let found = sqlx::query(locked!(
        "SELECT * FROM servers WHERE id = $1 AND state IN ('warm', 'claimed')"
    ))
    .bind(id.to_string())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = found else {
        return Ok(Transition::NotPossible);
    };
    let before = rows::server(&row)?;
    let is_warm = before.state == ServerState::Warm;
    let after = Server {
        state: if is_warm {
            ServerState::Booting
        } else {
            before.state
        },
        state_since: if is_warm { now } else { before.state_since },
        health: Health::Unknown,
        reasons: vec![why.to_owned()],
        ..before.clone()
    };
    if after == before {
        return Ok(Transition::NotPossible);
    }
    update(&mut *tx, &after).await?;
    if is_warm {
        changed_state(&mut *tx, &mut journal, &after).await?;
    }
    if let Some(instance) = after.instance {
        let known = known(&mut *tx, instance).await?;
        tell_health(
            &mut *tx,
            &mut journal,
            About::Both(instance, id),
            &known,
            &after,
            now,
        )
        .await?;
    }
    journal.write(tx).await?;
    Ok(Transition::Done)
}

async fn tell_health(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    about: About,
    known: &Known,
    server: &Server,
    now: Moment,
) -> sqlx::Result<()> {
    let Some(instance) = server.instance else {
        return Ok(());
    };
    if server.health != known.health {
        let data = json!({
            "from": known.health, "to": server.health, "reasons": server.reasons,
        });
        journal.note("instance.health_changed", about, &data);
    }
    set_health(tx, instance, server.health, &server.reasons, now).await
}

async fn set_health(
    tx: &mut Connection,
    instance: InstanceId,
    health: Health,
    reasons: &[String],
    now: Moment,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE instances SET health = $2, reasons = $3,
                unwell_since = CASE WHEN $4 THEN COALESCE(unwell_since, $5) END
         WHERE id = $1",
    )
    .bind(instance.to_string())
    .bind(health.word())
    .bind(rows::as_json(&reasons)?)
    .bind(health.is_unwell())
    .bind(now.0)
    .execute(tx)
    .await
    .map(drop)
}

/// The server after the report; `None` when it is past the states in which it is listened to.
fn afterwards(before: &Server, report: &ServerReport, now: Moment) -> Option<Server> {
    let state = match before.state {
        ServerState::Planned | ServerState::Creating | ServerState::Booting | ServerState::Warm
            if report.failed.is_some() =>
        {
            ServerState::Failed
        }
        ServerState::Booting if report.warm => ServerState::Warm,
        // It was switched off, or its gateway died: not to be given away until it is warm again.
        ServerState::Warm if !report.warm => ServerState::Booting,
        ServerState::Planned
        | ServerState::Creating
        | ServerState::Booting
        | ServerState::Warm
        | ServerState::Claimed => before.state,
        ServerState::Draining | ServerState::Deleting | ServerState::Gone | ServerState::Failed => {
            return None;
        }
    };
    let moved = state != before.state;
    let warmed_now = (state == ServerState::Warm).then_some(now);
    Some(Server {
        state,
        state_since: if moved { now } else { before.state_since },
        warmed_at: before.warmed_at.or(warmed_now),
        boot_steps: if before.warmed_at.is_none() && state == ServerState::Warm {
            report.steps.clone()
        } else {
            before.boot_steps.clone()
        },
        served: report.served,
        observed: report.observed,
        health: report.health,
        reasons: report.reasons.clone(),
        gateway_starts: report.gateway_starts,
        openclaw_version: report
            .openclaw
            .as_ref()
            .map(|said| said.version.clone())
            .or_else(|| before.openclaw_version.clone()),
        takes_orders: report.openclaw.is_some(),
        failure: match state {
            ServerState::Failed => report.failed.clone(),
            _ => before.failure.clone(),
        },
        ..before.clone()
    })
}

async fn update(tx: &mut Connection, after: &Server) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE servers SET state = $2, state_since = $3, served = $4, observed = $5,
                health = $6, reasons = $7, gateway_starts = $8, failure = $9, warmed_at = $10,
                boot_steps = $11, openclaw_version = $12, takes_orders = $13
         WHERE id = $1",
    )
    .bind(after.id.to_string())
    .bind(after.state.word())
    .bind(after.state_since.0)
    .bind(rows::as_integer(after.served.0))
    .bind(rows::as_integer(after.observed.0))
    .bind(after.health.word())
    .bind(rows::as_json(&after.reasons)?)
    .bind(rows::as_integer(after.gateway_starts))
    .bind(after.failure.as_deref())
    .bind(after.warmed_at.map(|at| at.0))
    .bind(rows::as_json(&after.boot_steps)?)
    .bind(after.openclaw_version.as_deref())
    .bind(after.takes_orders)
    .execute(tx)
    .await?;
    Ok(())
}

async fn changed_state(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    after: &Server,
) -> sqlx::Result<()> {
    let about = About::Server(after.id);
    if after.state == ServerState::Failed {
        servers::distrust(tx, after.id).await?;
        journal.note("server.failed", about, &json!({ "why": after.failure }));
    } else if after.state == ServerState::Booting {
        journal.note("server.booting", about, &json!({}));
    } else {
        journal.note(
            "server.warm",
            about,
            &json!({ "tier": after.pool.tier, "region": after.pool.region }),
        );
    }
    Ok(())
}

/// A server that became warm ends its pool's failures in a row; one that gave up is one more.
async fn count(tx: &mut Connection, after: &Server, now: Moment) -> sqlx::Result<()> {
    match after.state {
        ServerState::Warm => pools::warmed(tx, &after.pool).await,
        ServerState::Failed => pools::failed(tx, &after.pool, now).await,
        _ => Ok(()),
    }
}

/// What the store holds of an instance that a report may change.
struct Known {
    health: Health,
    reasons: Vec<String>,
    generation: Generation,
    observed: Generation,
}

/// Carries the report on to the instance that the server belongs to.
async fn tell_instance(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    instance: InstanceId,
    server: ServerId,
    report: &ServerReport,
    now: Moment,
) -> sqlx::Result<()> {
    let about = About::Both(instance, server);
    let known = known(&mut *tx, instance).await?;
    // An agent cannot have applied what nobody wrote, nor take back what it applied: else each time that
    // it says so again would be news.
    let observed = report.observed.min(known.generation).max(known.observed);
    if report.health != known.health {
        let data = json!({
            "from": known.health, "to": report.health, "reasons": report.reasons,
        });
        journal.note("instance.health_changed", about, &data);
    }
    let rejected = report
        .rejected
        .as_ref()
        .map(|(generation, reason)| ((*generation).min(known.generation), reason.as_str()));
    if let Some(rejected) = rejected {
        reject(&mut *tx, journal, instance, server, rejected, now).await?;
    }
    let rejected = rejected.map(|(generation, _)| generation);
    if observed > known.observed && rejected != Some(observed) {
        journal.note("config.applied", about, &json!({ "generation": observed }));
    }
    let both = (instance, server);
    upgrades::settle(&mut *tx, journal, both, report, observed, now).await?;
    let wanted = Wanted::change_up_to(instance, observed);
    operations::succeed(&mut *tx, journal, wanted, &report.steps, now).await?;
    let same = report.health == known.health
        && report.reasons == known.reasons
        && observed == known.observed;
    if same {
        return Ok(());
    }
    set_health(&mut *tx, instance, report.health, &report.reasons, now).await?;
    sqlx::query("UPDATE instances SET observed = $2 WHERE id = $1")
        .bind(instance.to_string())
        .bind(rows::as_integer(observed.0))
        .execute(tx)
        .await
        .map(drop)
}

async fn known(tx: &mut Connection, instance: InstanceId) -> sqlx::Result<Known> {
    let row = sqlx::query(locked!(
        "SELECT health, reasons, generation, observed FROM instances WHERE id = $1"
    ))
    .bind(instance.to_string())
    .fetch_one(tx)
    .await?;
    Ok(Known {
        health: rows::word(&row, "health", Health::from_word)?,
        reasons: rows::json(&row, "reasons")?,
        generation: Generation(rows::unsigned(&row, "generation")?),
        observed: Generation(rows::unsigned(&row, "observed")?),
    })
}

/// A refused configuration is told once, though every later report repeats it.
async fn reject(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    instance: InstanceId,
    server: ServerId,
    (generation, reason): (Generation, &str),
    now: Moment,
) -> sqlx::Result<()> {
    let first = sqlx::query("UPDATE servers SET rejected = $2 WHERE id = $1 AND rejected < $2")
        .bind(server.to_string())
        .bind(rows::as_integer(generation.0))
        .execute(&mut *tx)
        .await?;
    if first.rows_affected() == 0 {
        return Ok(());
    }
    let data = json!({ "generation": generation, "reason": reason });
    journal.note("config.rejected", About::Both(instance, server), &data);
    let wanted = Wanted::change_of(instance, generation);
    operations::fail(tx, journal, wanted, reason, now).await
}
