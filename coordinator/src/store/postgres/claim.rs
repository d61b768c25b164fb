//! The claim in one statement, for the moment everything exists for: a warm server, and nobody waits.
//!
//! A statement is a transaction of its own, so a claim costs one round trip and one sync, which it shares
//! with others that commit at the same time. Servers that other claims hold are passed over, not waited
//! for. Whoever waits counts from their commit on: nobody whose commit could be seen is overtaken.

use serde_json::Value;
use tidepool_shared::id::EventId;

use super::{PostgresStore, claims, retry::retried, rows};
use crate::{
    ambient::Moment,
    config::channels::hook_paths,
    model::{Health, Instance, InstanceStatus, NewInstance, OperationKind, OperationState},
};

/// Creates the instance on a warm server; `None`, and nothing is written, when there is none, somebody
/// waits, or something unique about the instance is taken.
pub(super) async fn at_once(
    store: &PostgresStore,
    new: &NewInstance,
    now: Moment,
) -> sqlx::Result<Option<Instance>> {
    match retried!(statement(store, new, now)) {
        Err(sqlx::Error::Database(refused)) if refused.is_unique_violation() => Ok(None),
        outcome => outcome,
    }
}

/// A warm server that the proxy would not trust is not taken here: the longer way tells of it.
const CLAIM: &str = "
    WITH picked AS (
        SELECT id FROM servers
        WHERE state = 'warm' AND tier = $2 AND region = $22 AND NOT revoked
          AND EXISTS (SELECT 1 FROM trust WHERE server_id = servers.id)
          AND NOT EXISTS (SELECT 1 FROM instances
                          WHERE status = 'pending' AND tier = $2 AND region = $22)
        ORDER BY created_at, id LIMIT 1
        FOR NO KEY UPDATE OF servers SKIP LOCKED
    ), taken AS (
        UPDATE servers SET state = 'claimed', state_since = $3, instance_id = $1
        FROM picked WHERE servers.id = picked.id RETURNING servers.id
    ), created AS (
        INSERT INTO instances (id, name, external_id, tier, status, health, reasons, url, hosts,
            server_id, generation, observed, restarts, config, edge_proof, warm, timings,
            created_at, claimed_at, region, channel_hooks)
        SELECT $1, $4, $5, $2, $6, $7, '[]', $8, $9, id, $10, 0, 0, $11, $12, TRUE, '[]', $3, $3, $22,
            $23
        FROM taken RETURNING *
    ), routed AS (
        INSERT INTO routes (host, instance_id) SELECT host, $1 FROM taken, unnest($13) AS host
    ), documented AS (
        INSERT INTO documents (instance_id, generation, digest, bytes)
        SELECT $1, $10, $14, $15 FROM taken
    ), begun AS (
        INSERT INTO operations (id, instance_id, kind, state, steps, generation, created_at)
        SELECT $16, $1, $17, $18, '[]', $10, $3 FROM taken
    ), trusted AS (
        UPDATE trust SET instance_id = $1 FROM taken WHERE trust.server_id = taken.id
    ), told AS (
        INSERT INTO event_inbox (id, kind, instance_id, server_id, data, at)
        SELECT event.id, event.kind, $1, taken.id, event.data, $3
        FROM taken, unnest($19, $20, $21) WITH ORDINALITY AS event (id, kind, data, place)
        ORDER BY place
    )
    SELECT created.*, NULL::BIGINT AS queue_position FROM created";

async fn statement(
    store: &PostgresStore,
    new: &NewInstance,
    now: Moment,
) -> sqlx::Result<Option<Instance>> {
    let events = [
        (
            "instance.created",
            claims::created_data(new, InstanceStatus::Starting),
        ),
        ("server.claimed", claims::pool_data(&new.pool)),
    ];
    let event_id = |_: &(&str, Value)| EventId::new(store.chance.uuid(now)).to_string();
    sqlx::query(CLAIM)
        .bind(new.id.to_string())
        .bind(&new.pool.tier)
        .bind(now.0)
        .bind(&new.name)
        .bind(new.external_id.as_deref())
        .bind(InstanceStatus::Starting.word())
        .bind(Health::Unknown.word())
        .bind(&new.url)
        .bind(rows::as_json(&new.hosts)?)
        .bind(rows::as_integer(new.document.generation.0))
        .bind(rows::as_json(&new.config)?)
        .bind(&new.edge_proof.0)
        .bind(&new.hosts)
        .bind(new.document.digest.0.as_slice())
        .bind(new.document.bytes.as_slice())
        .bind(new.operation.to_string())
        .bind(OperationKind::Create.word())
        .bind(OperationState::Running.word())
        .bind(events.iter().map(event_id).collect::<Vec<_>>())
        .bind(events.iter().map(|(kind, _)| *kind).collect::<Vec<_>>())
        .bind(
            events
                .iter()
                .map(|(_, data)| data.to_string())
                .collect::<Vec<_>>(),
        )
        .bind(&new.pool.region)
        .bind(rows::as_json(&hook_paths(&new.config))?)
        .fetch_optional(&store.pool)
        .await?
        .map(|row| rows::instance(&row))
        .transpose()
}
