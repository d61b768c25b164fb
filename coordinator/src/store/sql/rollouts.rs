//! Orders for versions of OpenClaw, pins and rollouts.

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::Row as _;
use tidepool_shared::{
    id::{InstanceId, RolloutId},
    openclaw_version::OpenClawVersion,
};

use super::{
    Connection, Row, SqlStore, changes, during,
    events::{About, Journal},
    instances, rows,
    servers::transition,
    transaction,
};
use crate::{
    ambient::Moment,
    model::{
        DocumentChange, Health, Instance, OperationState, Rollout, RolloutCandidate, RolloutMember,
        RolloutState,
    },
    store::{ChangeRefused, RolloutStore, Stored, Transition},
};

#[async_trait]
impl RolloutStore for SqlStore {
    async fn begin_upgrade(
        &self,
        change: &DocumentChange,
        rollout: Option<RolloutId>,
        now: Moment,
    ) -> Result<Instance, ChangeRefused> {
        changes::check_label(change)?;
        transaction!(self, "order another version for an instance", |tx| {
            begin(tx, self.journal(now), change, rollout, now).await
        })?
    }

    async fn pin_instance(
        &self,
        id: InstanceId,
        version: Option<&OpenClawVersion>,
        _now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "pin an instance", |tx| {
            sqlx::query(
                "UPDATE instances SET openclaw_pin = $2
                 WHERE id = $1 AND status NOT IN ('deleted', 'purged')",
            )
            .bind(id.to_string())
            .bind(version.map(OpenClawVersion::as_str))
            .execute(&mut *tx)
            .await
            .map(|result| transition(&result))
        })
    }

    async fn start_rollout(&self, rollout: &Rollout, now: Moment) -> Stored<()> {
        transaction!(self, "start a rollout", |tx| {
            start(tx, self.journal(now), rollout, now).await
        })
    }

    async fn halt_rollout(&self, id: RolloutId, why: &str, now: Moment) -> Stored<Transition> {
        transaction!(self, "halt a rollout", |tx| {
            let halted = sqlx::query(
                "UPDATE rollouts SET state = 'halted', reason = $2
                 WHERE id = $1 AND state = 'running' RETURNING *",
            )
            .bind(id.to_string())
            .bind(why);
            let found = halted.fetch_optional(&mut *tx).await?;
            tell(tx, self.journal(now), "rollout.halted", found).await
        })
    }

    async fn resume_rollout(
        &self,
        id: RolloutId,
        forgiven: u32,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "resume a rollout", |tx| {
            let resumed = sqlx::query(
                "UPDATE rollouts SET state = 'running', reason = NULL, forgiven = $2
                 WHERE id = $1 AND state = 'halted' RETURNING *",
            )
            .bind(id.to_string())
            .bind(i64::from(forgiven));
            let found = resumed.fetch_optional(&mut *tx).await?;
            tell(tx, self.journal(now), "rollout.resumed", found).await
        })
    }

    async fn finish_rollout(&self, id: RolloutId, now: Moment) -> Stored<Transition> {
        transaction!(self, "finish a rollout", |tx| {
            let finished = sqlx::query(
                "UPDATE rollouts SET state = 'finished', finished_at = $2
                 WHERE id = $1 AND state = 'running' RETURNING *",
            )
            .bind(id.to_string())
            .bind(now.0);
            let found = finished.fetch_optional(&mut *tx).await?;
            tell(tx, self.journal(now), "rollout.finished", found).await
        })
    }

    async fn rollouts(&self) -> Stored<Vec<Rollout>> {
        let doing = "read the rollouts";
        let found = sqlx::query(
            "SELECT * FROM rollouts WHERE ordinal IN (SELECT max(ordinal) FROM rollouts GROUP BY tier)
             ORDER BY tier",
        )
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        let read: sqlx::Result<_> = found.iter().map(rollout).collect();
        read.map_err(during(doing))
    }

    async fn rollout_members(&self, id: RolloutId) -> Stored<Vec<RolloutMember>> {
        let doing = "read whom a rollout has reached";
        let found = sqlx::query(
            "SELECT member.instance_id, member.operation_id, instance.name, instance.health,
                 operation.state, operation.error, operation.created_at, operation.finished_at
             FROM rollout_members AS member
             JOIN instances AS instance ON instance.id = member.instance_id
             JOIN operations AS operation ON operation.id = member.operation_id
             WHERE member.rollout_id = $1 ORDER BY operation.created_at, member.instance_id",
        )
        .bind(id.to_string())
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        let read: sqlx::Result<_> = found.iter().map(member).collect();
        read.map_err(during(doing))
    }

    async fn rollout_candidates(&self, tier: &str) -> Stored<Vec<RolloutCandidate>> {
        let doing = "read whom a rollout may reach";
        let found = sqlx::query(
            "SELECT instance.id, instance.openclaw_pin, server.openclaw_version,
                 (server.holder IS NOT NULL AND instance.health <> 'unknown' AND NOT EXISTS
                     (SELECT 1 FROM operations AS operation
                      WHERE operation.instance_id = instance.id
                        AND operation.state IN ('queued', 'running'))) AS ready
             FROM instances AS instance
             JOIN servers AS server ON server.instance_id = instance.id
             WHERE instance.tier = $1 AND instance.status = 'running' AND server.state = 'claimed'
             ORDER BY instance.ordinal",
        )
        .bind(tier)
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        let read: sqlx::Result<_> = found.iter().map(candidate).collect();
        read.map_err(during(doing))
    }
}

/// The order, its operation and, if it is a rollout's, the member, in one commit: one that was halted or
/// superseded meanwhile orders nothing.
async fn begin(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    change: &DocumentChange,
    rollout: Option<RolloutId>,
    now: Moment,
) -> sqlx::Result<Result<Instance, ChangeRefused>> {
    if let Some(id) = rollout
        && !is_running(&mut *tx, id).await?
    {
        return Ok(Err(ChangeRefused::NotRolledOut));
    }
    if !instances::hold(&mut *tx, change.instance).await? {
        return Ok(Err(ChangeRefused::NotFound));
    }
    if let Some(refused) = changes::refusal(&mut *tx, change).await? {
        return Ok(Err(refused));
    }
    let before = instances::find(&mut *tx, change.instance).await?;
    let before = before.ok_or(sqlx::Error::RowNotFound)?;
    let wanted = change.openclaw.as_ref().map(|order| &order.version);
    if let Some(pin) = before.pin
        && Some(&pin) != wanted
    {
        return Ok(Err(ChangeRefused::Pinned(pin)));
    }
    changes::replace(&mut *tx, change, now).await?;
    if let Some(id) = rollout {
        sqlx::query(
            "INSERT INTO rollout_members (rollout_id, instance_id, operation_id)
             VALUES ($1, $2, $3)",
        )
        .bind(id.to_string())
        .bind(change.instance.to_string())
        .bind(change.operation.to_string())
        .execute(&mut *tx)
        .await?;
    }
    let data = json!({ "version": wanted, "rollout": rollout, "operation": change.operation });
    journal.note(
        "upgrade.started",
        About::instance(change.instance, before.server),
        &data,
    );
    journal.write(&mut *tx).await?;
    let changed = instances::find(tx, change.instance).await?;
    Ok(changed.ok_or(ChangeRefused::NotFound))
}

async fn is_running(tx: &mut Connection, id: RolloutId) -> sqlx::Result<bool> {
    // Held, so that a halt comes before the order or after it.
    let found =
        sqlx::query("UPDATE rollouts SET state = state WHERE id = $1 AND state = 'running'")
            .bind(id.to_string())
            .execute(tx)
            .await?;
    Ok(found.rows_affected() == 1)
}

async fn start(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    new: &Rollout,
    now: Moment,
) -> sqlx::Result<()> {
    let superseded = sqlx::query(
        "UPDATE rollouts SET state = 'superseded', finished_at = $2
         WHERE tier = $1 AND state IN ('running', 'halted') RETURNING *",
    )
    .bind(&new.tier)
    .bind(now.0)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(row) = superseded {
        journal.note("rollout.superseded", About::Nothing, &data(&rollout(&row)?));
    }
    sqlx::query(
        "INSERT INTO rollouts (id, tier, version, canaries, wave_percent, max_failures, soak_s,
             state, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'running', $8)",
    )
    .bind(new.id.to_string())
    .bind(&new.tier)
    .bind(new.version.as_str())
    .bind(i64::from(new.canaries))
    .bind(i64::from(new.wave_percent))
    .bind(i64::from(new.max_failures))
    .bind(i64::from(new.soak_s))
    .bind(now.0)
    .execute(&mut *tx)
    .await?;
    journal.note("rollout.started", About::Nothing, &data(new));
    journal.write(tx).await
}

/// Tells of a move that was made.
async fn tell(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    kind: &str,
    moved: Option<Row>,
) -> sqlx::Result<Transition> {
    let Some(row) = moved else {
        return Ok(Transition::NotPossible);
    };
    journal.note(kind, About::Nothing, &data(&rollout(&row)?));
    journal.write(tx).await?;
    Ok(Transition::Done)
}

fn data(rollout: &Rollout) -> Value {
    json!({
        "rollout": rollout.id, "tier": rollout.tier, "version": rollout.version,
        "reason": rollout.reason,
    })
}

fn rollout(row: &Row) -> sqlx::Result<Rollout> {
    Ok(Rollout {
        id: rows::parsed(row, "id")?,
        tier: rows::parsed(row, "tier")?,
        version: rows::parsed(row, "version")?,
        canaries: rows::number(row, "canaries")?,
        wave_percent: rows::number(row, "wave_percent")?,
        max_failures: rows::number(row, "max_failures")?,
        soak_s: rows::number(row, "soak_s")?,
        state: rows::word(row, "state", RolloutState::from_word)?,
        reason: rows::maybe_parsed(row, "reason")?,
        forgiven: rows::number(row, "forgiven")?,
        created_at: rows::moment(row, "created_at")?,
        finished_at: rows::maybe_moment(row, "finished_at")?,
    })
}

fn member(row: &Row) -> sqlx::Result<RolloutMember> {
    Ok(RolloutMember {
        instance: rows::parsed(row, "instance_id")?,
        name: rows::parsed(row, "name")?,
        health: rows::word(row, "health", Health::from_word)?,
        operation: rows::parsed(row, "operation_id")?,
        state: rows::word(row, "state", OperationState::from_word)?,
        error: rows::maybe_parsed(row, "error")?,
        begun_at: rows::moment(row, "created_at")?,
        ended_at: rows::maybe_moment(row, "finished_at")?,
    })
}

fn candidate(row: &Row) -> sqlx::Result<RolloutCandidate> {
    Ok(RolloutCandidate {
        instance: rows::parsed(row, "id")?,
        version: rows::maybe_parsed(row, "openclaw_version")?,
        pin: rows::maybe_parsed(row, "openclaw_pin")?,
        ready: row.try_get("ready")?,
    })
}
