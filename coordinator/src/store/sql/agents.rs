//! The agents' versions. A failure halts its rollout in the transaction that notes it, so that no other server
//! is told of a bad version by a coordinator that has not heard yet.

use async_trait::async_trait;
use serde_json::json;
use sqlx::Row as _;
use tidepool_shared::id::ServerId;

use super::{
    Connection, Row, SqlStore, during,
    events::{About, Journal},
    rows, transaction,
};
use crate::{
    ambient::Moment,
    model::{Agent, AgentEnding, AgentRollout, NewAgentRollout, ServerState},
    store::{AgentStore, Stored, Transition},
};

/// Agents of servers that may have a link.
const AGENTS: &str =
    "SELECT a.*, s.name, s.state, s.holder FROM agents a JOIN servers s ON s.id = a.server_id
     WHERE NOT s.revoked AND s.state IN ('planned', 'creating', 'booting', 'warm', 'claimed')
     ORDER BY s.created_at, s.id";

#[async_trait]
impl AgentStore for SqlStore {
    async fn agent_is(&self, server: ServerId, version: &str) -> Stored<()> {
        let doing = "note an agent's version";
        // Most have the version that they had when they were here last, and cost no write.
        let known = sqlx::query("SELECT 1 FROM agents WHERE server_id = $1 AND version = $2")
            .bind(server.to_string())
            .bind(version)
            .fetch_optional(self.readers())
            .await
            .map_err(during(doing))?;
        if known.is_some() {
            return Ok(());
        }
        transaction!(self, "note an agent's version", |tx| {
            sqlx::query(
                "INSERT INTO agents (server_id, version) VALUES ($1, $2)
                 ON CONFLICT (server_id) DO UPDATE SET version = excluded.version",
            )
            .bind(server.to_string())
            .bind(version)
            .execute(&mut *tx)
            .await
        })
        .map(drop)
    }

    async fn agents(&self) -> Stored<Vec<Agent>> {
        let doing = "read the agents";
        let found = sqlx::query(AGENTS)
            .fetch_all(self.readers())
            .await
            .map_err(during(doing))?;
        let agents: sqlx::Result<_> = found.iter().map(agent).collect();
        agents.map_err(during(doing))
    }

    async fn begin_agent_rollout(
        &self,
        new: &NewAgentRollout,
        now: Moment,
    ) -> Stored<AgentRollout> {
        transaction!(self, "begin a rollout of agents", |tx| {
            begin(tx, self.journal(now), new, now).await
        })
    }

    async fn agent_rollout(&self) -> Stored<Option<AgentRollout>> {
        let doing = "read the rollout of agents";
        let found = sqlx::query("SELECT * FROM agent_rollouts ORDER BY id DESC LIMIT 1")
            .fetch_optional(self.readers())
            .await
            .map_err(during(doing))?;
        found
            .map(|row| rollout(&row))
            .transpose()
            .map_err(during(doing))
    }

    async fn wanted_agent(&self, server: ServerId) -> Stored<Option<AgentRollout>> {
        let doing = "read which agent a server should have";
        let found = sqlx::query(
            "SELECT r.* FROM agents a JOIN agent_rollouts r ON r.id = a.rollout
             WHERE a.server_id = $1 AND r.halted IS NULL
               AND r.id = (SELECT max(id) FROM agent_rollouts)",
        )
        .bind(server.to_string())
        .fetch_optional(self.readers())
        .await
        .map_err(during(doing))?;
        found
            .map(|row| rollout(&row))
            .transpose()
            .map_err(during(doing))
    }

    async fn put_in_rollout(
        &self,
        rollout: u64,
        server: ServerId,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "put an agent in a rollout", |tx| {
            sqlx::query(
                "UPDATE agents SET rollout = $1, since = $3, ending = NULL, reason = NULL
                 WHERE server_id = $2 AND coalesce(rollout, 0) < $1
                   AND EXISTS (SELECT 1 FROM agent_rollouts WHERE id = $1 AND halted IS NULL)",
            )
            .bind(rows::as_integer(rollout))
            .bind(server.to_string())
            .bind(now.0)
            .execute(&mut *tx)
            .await
            .map(|result| done(result.rows_affected()))
        })
    }

    async fn agent_ended(
        &self,
        server: ServerId,
        rollout: u64,
        ending: AgentEnding,
        reason: Option<&str>,
        now: Moment,
    ) -> Stored<Transition> {
        transaction!(self, "note what became of an agent", |tx| {
            ended(tx, self.journal(now), (server, rollout), (ending, reason)).await
        })
    }

    async fn halt_agent_rollout(&self, rollout: u64, why: &str, now: Moment) -> Stored<Transition> {
        transaction!(self, "halt a rollout of agents", |tx| {
            let mut journal = self.journal(now);
            let halted = halt(tx, &mut journal, rollout, why).await?;
            journal.write(tx).await?;
            Ok(halted)
        })
    }
}

async fn begin(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    new: &NewAgentRollout,
    now: Moment,
) -> sqlx::Result<AgentRollout> {
    // Of two at the same moment one fails by its number, and is asked for again.
    let row = sqlx::query(
        "INSERT INTO agent_rollouts (id, version, signed, canary, percent, created_at)
         SELECT coalesce(max(id), 0) + 1, $1, $2, $3, $4, $5 FROM agent_rollouts
         RETURNING *",
    )
    .bind(&new.version)
    .bind(&new.signed)
    .bind(i64::from(new.canary))
    .bind(i64::from(new.percent))
    .bind(now.0)
    .fetch_one(&mut *tx)
    .await?;
    let begun = rollout(&row)?;
    let data = json!({
        "rollout": begun.id, "version": begun.version,
        "canary": begun.canary, "percent": begun.percent,
    });
    journal.note("agent.rollout_begun", About::Nothing, &data);
    journal.write(tx).await?;
    Ok(begun)
}

async fn ended(
    tx: &mut Connection,
    mut journal: Journal<'_>,
    (server, rollout): (ServerId, u64),
    (ending, reason): (AgentEnding, Option<&str>),
) -> sqlx::Result<Transition> {
    let changed = sqlx::query(
        "UPDATE agents SET ending = $3, reason = $4
         WHERE server_id = $1 AND rollout = $2 AND ending IS NULL",
    )
    .bind(server.to_string())
    .bind(rows::as_integer(rollout))
    .bind(ending.word())
    .bind(reason)
    .execute(&mut *tx)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(Transition::NotPossible);
    }
    let data = json!({ "rollout": rollout, "reason": reason });
    let kind = match ending {
        AgentEnding::Kept => "agent.updated",
        AgentEnding::Refused => "agent.refused",
        AgentEnding::RolledBack => "agent.rolled_back",
    };
    journal.note(kind, About::Server(server), &data);
    if ending != AgentEnding::Kept {
        let why = format!("{server}: {}", reason.unwrap_or("no reason was given"));
        halt(tx, &mut journal, rollout, &why).await?;
    }
    journal.write(tx).await?;
    Ok(Transition::Done)
}

async fn halt(
    tx: &mut Connection,
    journal: &mut Journal<'_>,
    rollout: u64,
    why: &str,
) -> sqlx::Result<Transition> {
    let halted =
        sqlx::query("UPDATE agent_rollouts SET halted = $2 WHERE id = $1 AND halted IS NULL")
            .bind(rows::as_integer(rollout))
            .bind(why)
            .execute(tx)
            .await?;
    let halted = done(halted.rows_affected());
    if halted == Transition::Done {
        let data = json!({ "rollout": rollout, "reason": why });
        journal.note("agent.rollout_halted", About::Nothing, &data);
    }
    Ok(halted)
}

fn done(rows: u64) -> Transition {
    if rows > 0 {
        Transition::Done
    } else {
        Transition::NotPossible
    }
}

fn agent(row: &Row) -> sqlx::Result<Agent> {
    let ending: Option<&str> = row.try_get("ending")?;
    let holder: Option<&str> = row.try_get("holder")?;
    Ok(Agent {
        server: rows::parsed(row, "server_id")?,
        server_name: row.try_get("name")?,
        server_state: rows::word(row, "state", ServerState::from_word)?,
        is_linked: holder.is_some(),
        version: row.try_get("version")?,
        rollout: rows::maybe_number(row, "rollout")?,
        since: rows::maybe_moment(row, "since")?,
        ending: match ending {
            Some(_) => Some(rows::word(row, "ending", AgentEnding::from_word)?),
            None => None,
        },
        reason: row.try_get("reason")?,
    })
}

fn rollout(row: &Row) -> sqlx::Result<AgentRollout> {
    Ok(AgentRollout {
        id: rows::unsigned(row, "id")?,
        version: row.try_get("version")?,
        signed: row.try_get("signed")?,
        canary: rows::number(row, "canary")?,
        percent: rows::number(row, "percent")?,
        halted: row.try_get("halted")?,
        created_at: rows::moment(row, "created_at")?,
    })
}
