//! Between rows and nouns. What the file says is checked here, once: a word, number or id that does
//! not fit its type is an error that names the column, never a panic.

use std::{fmt::Display, net::IpAddr, str::FromStr};

use serde::{Serialize, de::DeserializeOwned};
use sqlx::Row as _;
use tidepool_shared::{
    document::{Digest, EdgeProof, Generation, OpenClawOrder, SealedDocument},
    openclaw_version::OpenClawVersion,
};

use super::Row;
use crate::{
    ambient::Moment,
    cloud::Placement,
    config::channels::hook_paths,
    model::{
        ApiToken, Coordinator, Door, EdgeLimits, Event, Health, Instance, InstanceStatus,
        Operation, OperationKind, OperationState, PoolKey, PoolStanding, Route, SagaKind, SagaStep,
        Server, ServerState, StepState, Suspension, Upstream, Verification, VerificationState,
    },
};

/// A stored value that does not fit its type.
#[derive(Debug, thiserror::Error)]
enum Misfit {
    #[error("unknown word `{0}`")]
    Word(String),
    #[error("not a valid value: {0}")]
    Text(String),
    #[error("number {0} is out of range")]
    Number(i64),
    #[error("{0} bytes instead of 32")]
    Hash(usize),
}

/// Reads a server's row.
pub(super) fn server(row: &Row) -> sqlx::Result<Server> {
    Ok(Server {
        id: parsed(row, "id")?,
        name: row.try_get("name")?,
        pool: pool(row)?,
        placement: placement(row)?,
        image: row.try_get("image")?,
        state: word(row, "state", ServerState::from_word)?,
        cloud_id: row.try_get("cloud_id")?,
        address: maybe_parsed(row, "address")?,
        instance: maybe_parsed(row, "instance_id")?,
        openclaw_version: row.try_get("openclaw_version")?,
        takes_orders: row.try_get("takes_orders")?,
        epoch: unsigned(row, "epoch")?,
        holder: maybe_parsed(row, "holder")?,
        served: Generation(unsigned(row, "served")?),
        observed: Generation(unsigned(row, "observed")?),
        health: word(row, "health", Health::from_word)?,
        reasons: json(row, "reasons")?,
        gateway_starts: unsigned(row, "gateway_starts")?,
        revoked: row.try_get("revoked")?,
        failure: row.try_get("failure")?,
        created_at: moment(row, "created_at")?,
        state_since: moment(row, "state_since")?,
        warmed_at: maybe_moment(row, "warmed_at")?,
        boot_steps: json(row, "boot_steps")?,
    })
}

/// Reads an instance's row, which has its place in the queue beside the columns of the table.
pub(super) fn instance(row: &Row) -> sqlx::Result<Instance> {
    Ok(Instance {
        id: parsed(row, "id")?,
        name: row.try_get("name")?,
        external_id: row.try_get("external_id")?,
        pool: pool(row)?,
        status: word(row, "status", InstanceStatus::from_word)?,
        health: word(row, "health", Health::from_word)?,
        reasons: json(row, "reasons")?,
        url: row.try_get("url")?,
        hosts: json(row, "hosts")?,
        domains: json(row, "domains")?,
        server: maybe_parsed(row, "server_id")?,
        generation: Generation(unsigned(row, "generation")?),
        observed: Generation(unsigned(row, "observed")?),
        restarts: unsigned(row, "restarts")?,
        evictions: unsigned(row, "evictions")?,
        config: json(row, "config")?,
        edge_proof: EdgeProof(row.try_get("edge_proof")?),
        suspension: maybe_json(row, "suspension")?,
        openclaw: order(row)?,
        openclaw_orders: unsigned(row, "openclaw_order")?,
        openclaw_settled: unsigned(row, "openclaw_settled")?,
        pin: maybe_parsed(row, "openclaw_pin")?,
        basic_auth: row.try_get("basic_auth")?,
        edge_limits: edge_limits(row)?,
        networks: json(row, "networks")?,
        warm: row.try_get("warm")?,
        timings: json(row, "timings")?,
        queue_position: maybe_number(row, "queue_position")?,
        problem: row.try_get("problem")?,
        created_at: moment(row, "created_at")?,
        claimed_at: maybe_moment(row, "claimed_at")?,
        ready_at: maybe_moment(row, "ready_at")?,
        deleted_at: maybe_moment(row, "deleted_at")?,
        purge_at: maybe_moment(row, "purge_at")?,
    })
}

fn edge_limits(row: &Row) -> sqlx::Result<EdgeLimits> {
    Ok(EdgeLimits {
        max_body_bytes: maybe_number(row, "max_body_bytes")?,
        requests_per_second: maybe_number(row, "requests_per_second")?,
        request_burst: maybe_number(row, "request_burst")?,
    })
}

fn order(row: &Row) -> sqlx::Result<Option<OpenClawOrder>> {
    let version: Option<OpenClawVersion> = maybe_parsed(row, "openclaw")?;
    let number = unsigned(row, "openclaw_order")?;
    let signed = row.try_get("openclaw_signed")?;
    Ok(version.map(|version| OpenClawOrder {
        number,
        version,
        signed,
    }))
}

/// Reads which pool a server's or an instance's row is of.
pub(super) fn pool(row: &Row) -> sqlx::Result<PoolKey> {
    Ok(PoolKey {
        tier: row.try_get("tier")?,
        region: row.try_get("region")?,
    })
}

pub(super) fn placement(row: &Row) -> sqlx::Result<Placement> {
    Ok(Placement {
        server_type: row.try_get("server_type")?,
        location: row.try_get("location")?,
    })
}

pub(super) fn standing(row: &Row) -> sqlx::Result<PoolStanding> {
    Ok(PoolStanding {
        paused: row.try_get("paused")?,
        halted: row.try_get("halted")?,
        failures: number(row, "failures")?,
        last_failure: maybe_moment(row, "last_failure")?,
        held_until: maybe_moment(row, "held_until")?,
        below_since: maybe_moment(row, "below_since")?,
        told_below: row.try_get("told_below")?,
    })
}

pub(super) fn saga_step(row: &Row) -> sqlx::Result<SagaStep> {
    Ok(SagaStep {
        server: parsed(row, "server_id")?,
        saga: word(row, "saga", SagaKind::from_word)?,
        step: row.try_get("step")?,
        state: word(row, "state", StepState::from_word)?,
        error: row.try_get("error")?,
        at: moment(row, "at")?,
    })
}

pub(super) fn verification(row: &Row) -> sqlx::Result<Verification> {
    Ok(Verification {
        id: parsed(row, "id")?,
        image: row.try_get("image")?,
        state: word(row, "state", VerificationState::from_word)?,
        server: maybe_parsed(row, "server_id")?,
        manifest: maybe_json(row, "manifest")?,
        figures: maybe_json(row, "figures")?,
        baseline: maybe_json(row, "baseline")?,
        problems: json(row, "problems")?,
        created_at: moment(row, "created_at")?,
        expires_at: moment(row, "expires_at")?,
        finished_at: maybe_moment(row, "finished_at")?,
    })
}

pub(super) fn operation(row: &Row) -> sqlx::Result<Operation> {
    Ok(Operation {
        id: parsed(row, "id")?,
        instance: parsed(row, "instance_id")?,
        kind: word(row, "kind", OperationKind::from_word)?,
        state: word(row, "state", OperationState::from_word)?,
        steps: json(row, "steps")?,
        generation: maybe_number(row, "generation")?.map(Generation),
        error: row.try_get("error")?,
        created_at: moment(row, "created_at")?,
        finished_at: maybe_moment(row, "finished_at")?,
    })
}

pub(super) fn document(row: &Row) -> sqlx::Result<SealedDocument> {
    Ok(SealedDocument {
        instance: parsed(row, "instance_id")?,
        generation: Generation(unsigned(row, "generation")?),
        digest: Digest(hash(row, "digest")?),
        bytes: row.try_get("bytes")?,
    })
}

pub(super) fn route(row: &Row) -> sqlx::Result<Route> {
    Ok(Route {
        host: row.try_get("host")?,
        instance: parsed(row, "instance_id")?,
        upstream: match maybe_parsed(row, "address")? {
            Some(address) => Some(upstream(row, address)?),
            None => None,
        },
        edge_proof: EdgeProof(row.try_get("edge_proof")?),
        basic_auth: row.try_get("basic_auth")?,
        limits: edge_limits(row)?,
        status: word(row, "status", InstanceStatus::from_word)?,
        notice: maybe_json::<Suspension>(row, "suspension")?.and_then(|it| it.message),
        hooks: match maybe_json(row, "channel_hooks")? {
            Some(hooks) => hooks,
            // Its configuration was taken by a coordinator of before.
            None => hook_paths(&json(row, "hooks_of")?),
        },
        is_renaming: row.try_get("is_renaming")?,
        moved_to: row.try_get("moved_to")?,
    })
}

/// Of a row with the server's `server_id` and `has_door`.
pub(super) fn upstream(row: &Row, address: IpAddr) -> sqlx::Result<Upstream> {
    let has_door: bool = row.try_get("has_door")?;
    Ok(Upstream {
        server: parsed(row, "server_id")?,
        address,
        door: if has_door { Door::Mutual } else { Door::Open },
    })
}

pub(super) fn event(row: &Row) -> sqlx::Result<Event> {
    Ok(Event {
        sequence: unsigned(row, "sequence")?,
        id: parsed(row, "id")?,
        kind: row.try_get("kind")?,
        instance: maybe_parsed(row, "instance_id")?,
        server: maybe_parsed(row, "server_id")?,
        data: json(row, "data")?,
        at: moment(row, "at")?,
    })
}

pub(super) fn api_token(row: &Row) -> sqlx::Result<ApiToken> {
    Ok(ApiToken {
        id: parsed(row, "id")?,
        name: row.try_get("name")?,
        secret_hash: hash(row, "secret_hash")?,
        created_at: moment(row, "created_at")?,
        expires_at: maybe_moment(row, "expires_at")?,
        revoked_at: maybe_moment(row, "revoked_at")?,
    })
}

pub(super) fn coordinator(row: &Row) -> sqlx::Result<Coordinator> {
    Ok(Coordinator {
        id: parsed(row, "id")?,
        api_address: row.try_get("api_address")?,
        heartbeat_at: moment(row, "heartbeat_at")?,
    })
}

/// Reads an id, an address or another value with one text form.
pub(super) fn parsed<T: FromStr>(row: &Row, column: &'static str) -> sqlx::Result<T> {
    let text: &str = row.try_get(column)?;
    text.parse()
        .map_err(|_| misfit(column, Misfit::Text(text.to_owned())))
}

pub(super) fn maybe_parsed<T: FromStr>(row: &Row, column: &'static str) -> sqlx::Result<Option<T>> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| {
        text.parse()
            .map_err(|_| misfit(column, Misfit::Text(text.to_owned())))
    })
    .transpose()
}

/// Reads one of our enums.
pub(super) fn word<T>(
    row: &Row,
    column: &'static str,
    from_word: fn(&str) -> Option<T>,
) -> sqlx::Result<T> {
    let text: &str = row.try_get(column)?;
    from_word(text).ok_or_else(|| misfit(column, Misfit::Word(text.to_owned())))
}

pub(super) fn unsigned(row: &Row, column: &'static str) -> sqlx::Result<u64> {
    number(row, column)
}

/// Reads a number that has a narrower type of its own.
pub(super) fn number<T: TryFrom<i64>>(row: &Row, column: &'static str) -> sqlx::Result<T> {
    let number: i64 = row.try_get(column)?;
    T::try_from(number).map_err(|_| misfit(column, Misfit::Number(number)))
}

pub(super) fn maybe_number<T: TryFrom<i64>>(
    row: &Row,
    column: &'static str,
) -> sqlx::Result<Option<T>> {
    let number: Option<i64> = row.try_get(column)?;
    number
        .map(|number| T::try_from(number).map_err(|_| misfit(column, Misfit::Number(number))))
        .transpose()
}

pub(super) fn moment(row: &Row, column: &'static str) -> sqlx::Result<Moment> {
    row.try_get(column).map(Moment)
}

pub(super) fn maybe_moment(row: &Row, column: &'static str) -> sqlx::Result<Option<Moment>> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Moment))
}

pub(super) fn hash(row: &Row, column: &'static str) -> sqlx::Result<[u8; 32]> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes
        .try_into()
        .map_err(|_| misfit(column, Misfit::Hash(bytes.len())))
}

pub(super) fn json<T: DeserializeOwned>(row: &Row, column: &'static str) -> sqlx::Result<T> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|error| misfit(column, error))
}

pub(super) fn maybe_json<T: DeserializeOwned>(
    row: &Row,
    column: &'static str,
) -> sqlx::Result<Option<T>> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| serde_json::from_str(text).map_err(|error| misfit(column, error)))
        .transpose()
}

fn misfit(
    column: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: source.into(),
    }
}

/// Text for a JSON column.
pub(super) fn as_json(value: &impl Serialize) -> sqlx::Result<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Text for an id column, or none.
pub(super) fn as_text(id: Option<impl Display>) -> Option<String> {
    id.map(|id| id.to_string())
}

/// A count for an integer column. Nothing real reaches its end; what a peer claims may, and stays there.
pub(super) fn as_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The one text of an address: a dual-stack socket shows IPv4 peers as mapped IPv6 addresses.
pub(super) fn as_address(address: IpAddr) -> String {
    address.to_canonical().to_string()
}
