//! Orders for versions of OpenClaw, pins and rollouts.

use async_trait::async_trait;
use serde_json::json;
use sqlx::Row as _;
use tidepool_shared::{
    id::{InstanceId, OperationId, RolloutId},
    openclaw_version::OpenClawVersion,
};

use super::{
    Connection, Row, SqlStore, changes, deletion, during,
    events::{About, Journal},
    instances, rows,
    servers::transition,
    transaction, upgrades,
};
use crate::{
    ambient::Moment,
    model::{
        DocumentChange, Health, Instance, InstanceStatus, OperationState, Rollout,
        RolloutCandidate, RolloutMember, RolloutState,
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
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "pin an instance", |tx| {
            upgrades::pin(tx, self.journal(now), id, version).await
        })
    }

    async fn overdue_upgrades(
        &self,
        begun_before: Moment,
    ) -> Stored<Vec<(InstanceId, OperationId)>> {
        let doing = "look for upgrades without an end";
        let found = sqlx::query(
            "SELECT instance_id, id FROM operations
             WHERE kind = 'upgrade' AND state IN ('queued', 'running') AND created_at < $1
             ORDER BY created_at LIMIT 100",
        )
        .bind(begun_before.0)
        .fetch_all(self.readers())
        .await
        .map_err(during(doing))?;
        let overdue = |row| Ok((rows::parsed(row, "instance_id")?, rows::parsed(row, "id")?));
        let read: sqlx::Result<_> = found.iter().map(overdue).collect();
        read.map_err(during(doing))
    }

    async fn give_up_upgrade(
        &self,
        id: InstanceId,
        upgrade: OperationId,
        why: &str,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "give an upgrade up", |tx| {
            upgrades::end(tx, self.journal(now), (id, upgrade), why, now).await
        })
    }

    async fn start_rollout(&self, rollout: &Rollout, now: Moment) -> Stored<Transition> {
        transaction!(self, "start a rollout", |tx| {
            start(tx, self.journal(now), rollout, now).await
        })
    }

    async fn halt_rollout(&self, id: RolloutId, why: &str, now: Moment) -> Stored<Transition> {
        transaction!(self, "halt a rollout", |tx| {
            halt(tx, self.journal(now), id, why).await
        })
    }

    async fn resume_rollout(
        &self,
        id: RolloutId,
        forgiven: &[InstanceId],
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "resume a rollout", |tx| {
            resume(tx, self.journal(now), id, forgiven).await
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
            let Some(row) = finished.fetch_optional(&mut *tx).await? else {
                return Ok(Transition::NotPossible);
            };
            let mut journal = self.journal(now);
            note(&mut journal, "rollout.finished", &rollout(&row)?);
            journal.write(tx).await?;
            Ok(Transition::Done)
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
            "SELECT member.instance_id, member.operation_id, member.forgiven, instance.name,
                 instance.server_id, instance.status, instance.health, instance.unwell_since,
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
            "SELECT instance.id, instance.openclaw_pin, instance.health, server.openclaw_version,
                 (server.holder IS NOT NULL AND server.takes_orders
                  AND instance.health <> 'unknown'
                  AND NOT EXISTS
                     (SELECT 1 FROM operations AS operation
                      WHERE operation.instance_id = instance.id
                        AND operation.state IN ('queued', 'running'))
                  AND NOT EXISTS
                     (SELECT 1 FROM agents AS agent
                      JOIN agent_rollouts AS newest ON newest.id = agent.rollout
                      WHERE agent.server_id = server.id AND agent.ending IS NULL
                        AND newest.halted IS NULL
                        AND newest.id = (SELECT max(id) FROM agent_rollouts))) AS ready
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
        && !may_order(&mut *tx, id, change.instance).await?
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
             VALUES ($1, $2, $3)
             ON CONFLICT (rollout_id, instance_id)
             DO UPDATE SET operation_id = excluded.operation_id, forgiven = FALSE",
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

/// Whether the rollout runs and has not reached the instance, or only with an order that was taken back.
async fn may_order(tx: &mut Connection, id: RolloutId, instance: InstanceId) -> sqlx::Result<bool> {
    // Held, so that a halt comes before the order or after it.
    let found = sqlx::query(
        "UPDATE rollouts SET state = state WHERE id = $1 AND state = 'running'
         AND NOT EXISTS (SELECT 1 FROM rollout_members AS member
                         JOIN operations AS operation ON operation.id = member.operation_id
                         WHERE member.rollout_id = $1 AND member.instance_id = $2
                           AND operation.state <> 'canceled')",
    )
    .bind(id.to_string())
    .bind(instance.to_string())
    .execute(tx)
    .await?;
    Ok(found.rows_affected() == 1)
}

/// Begins a rollout in the place of another one of its tier. Not possible if somebody else's came at the same
/// moment.
async fn start(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    new: &Rollout,
    now: Moment,
) -> sqlx::Result<Transition> {
    let superseded = sqlx::query(
        "UPDATE rollouts SET state = 'superseded', finished_at = $2
         WHERE tier = $1 AND state IN ('running', 'halted') RETURNING *",
    )
    .bind(&new.tier)
    .bind(now.0)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(row) = superseded {
        let before = rollout(&row)?;
        note(&mut journal, "rollout.superseded", &before);
        let why = "another rollout was started";
        take_back_orders(&mut *tx, &mut journal, before.id, why).await?;
    }
    let started = sqlx::query(
        "INSERT INTO rollouts (id, tier, version, canaries, wave_percent, max_failures, soak_s,
             state, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'running', $8) ON CONFLICT DO NOTHING",
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
    if transition(&started) == Transition::NotPossible {
        return Ok(Transition::NotPossible);
    }
    note(&mut journal, "rollout.started", new);
    journal.write(tx).await?;
    Ok(Transition::Done)
}

async fn halt(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: RolloutId,
    why: &str,
) -> sqlx::Result<Transition> {
    let Some(row) = sqlx::query(
        "UPDATE rollouts SET state = 'halted', reason = $2
         WHERE id = $1 AND state = 'running' RETURNING *",
    )
    .bind(id.to_string())
    .bind(why)
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(Transition::NotPossible);
    };
    note(&mut journal, "rollout.halted", &rollout(&row)?);
    take_back_orders(&mut *tx, &mut journal, id, "the rollout was halted").await?;
    journal.write(tx).await?;
    Ok(Transition::Done)
}

/// Takes back what a rollout has ordered and nobody has told the outcome of. Servers and instances are held one
/// after the other, always in this order, while whoever else holds one of them holds no second pair.
async fn take_back_orders(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    id: RolloutId,
    why: &str,
) -> sqlx::Result<()> {
    let found = sqlx::query(
        "SELECT member.instance_id, member.operation_id FROM rollout_members AS member
         JOIN operations AS operation ON operation.id = member.operation_id
         WHERE member.rollout_id = $1 AND operation.state IN ('queued', 'running')
         ORDER BY member.instance_id",
    )
    .bind(id.to_string())
    .fetch_all(&mut *tx)
    .await?;
    for row in &found {
        let instance: InstanceId = rows::parsed(row, "instance_id")?;
        let upgrade: OperationId = rows::parsed(row, "operation_id")?;
        deletion::hold_server(&mut *tx, instance).await?;
        instances::hold(&mut *tx, instance).await?;
        upgrades::take_back(&mut *tx, journal, (instance, upgrade), why).await?;
    }
    Ok(())
}

async fn resume(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    id: RolloutId,
    forgiven: &[InstanceId],
) -> sqlx::Result<Transition> {
    let Some(row) = sqlx::query(
        "UPDATE rollouts SET state = 'running', reason = NULL
         WHERE id = $1 AND state = 'halted' RETURNING *",
    )
    .bind(id.to_string())
    .fetch_optional(&mut *tx)
    .await?
    else {
        return Ok(Transition::NotPossible);
    };
    for instance in forgiven {
        sqlx::query(
            "UPDATE rollout_members SET forgiven = TRUE
             WHERE rollout_id = $1 AND instance_id = $2",
        )
        .bind(id.to_string())
        .bind(instance.to_string())
        .execute(&mut *tx)
        .await?;
    }
    note(&mut journal, "rollout.resumed", &rollout(&row)?);
    journal.write(tx).await?;
    Ok(Transition::Done)
}

fn note(journal: &mut Journal<'_>, kind: &str, rollout: &Rollout) {
    let data = json!({
        "rollout": rollout.id, "tier": rollout.tier, "version": rollout.version,
        "reason": rollout.reason,
    });
    journal.note(kind, About::Nothing, &data);
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
        created_at: rows::moment(row, "created_at")?,
        finished_at: rows::maybe_moment(row, "finished_at")?,
    })
}

fn member(row: &Row) -> sqlx::Result<RolloutMember> {
    Ok(RolloutMember {
        instance: rows::parsed(row, "instance_id")?,
        name: rows::parsed(row, "name")?,
        server: rows::maybe_parsed(row, "server_id")?,
        status: rows::word(row, "status", InstanceStatus::from_word)?,
        health: rows::word(row, "health", Health::from_word)?,
        unwell_since: rows::maybe_moment(row, "unwell_since")?,
        operation: rows::parsed(row, "operation_id")?,
        state: rows::word(row, "state", OperationState::from_word)?,
        error: rows::maybe_parsed(row, "error")?,
        begun_at: rows::moment(row, "created_at")?,
        ended_at: rows::maybe_moment(row, "finished_at")?,
        forgiven: row.try_get("forgiven")?,
    })
}

fn candidate(row: &Row) -> sqlx::Result<RolloutCandidate> {
    Ok(RolloutCandidate {
        instance: rows::parsed(row, "id")?,
        version: rows::maybe_parsed(row, "openclaw_version")?,
        pin: rows::maybe_parsed(row, "openclaw_pin")?,
        health: rows::word(row, "health", Health::from_word)?,
        ready: row.try_get("ready")?,
    })
}
