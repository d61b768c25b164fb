//! A small world for the cases: nouns made of a number, and ways to the state a case begins with.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tidepool_shared::{
    document::{DesiredDocument, EdgeProof, GatewayLimits, Generation, Power, SealedDocument},
    id::{CoordinatorId, InstanceId, OperationId, ServerId, TokenId},
    networks::Networks,
};
use uuid::Uuid;

use crate::{
    ambient::Moment,
    cloud::CloudServer,
    model::{
        DocumentChange, Door, EdgeLimits, Health, Instance, NewInstance, NewServer, OperationKind,
        PoolKey, Rename, ServerReport, StepMs, Upstream, sample,
    },
    store::{Store, Transition},
};

/// The only pool of most cases.
pub(super) fn pool() -> PoolKey {
    sample::pool()
}

/// Another one: of the same tier, in another region.
pub(super) fn elsewhere() -> PoolKey {
    PoolKey {
        region: "elsewhere".to_owned(),
        ..pool()
    }
}

/// The moment so many seconds after the beginning of a case.
pub(crate) fn at(seconds: u64) -> Moment {
    Moment(1_700_000_000_000_000).plus(Duration::from_secs(seconds))
}

pub(super) fn server_id(number: u8) -> ServerId {
    ServerId::new(Uuid::from_u128(number.into()))
}

pub(super) fn instance_id(number: u8) -> InstanceId {
    InstanceId::new(Uuid::from_u128(number.into()))
}

/// The operation that creates the instance of this number; changes take numbers from 100.
pub(super) fn operation_id(number: u8) -> OperationId {
    OperationId::new(Uuid::from_u128(number.into()))
}

pub(super) fn token_id(number: u8) -> TokenId {
    TokenId::new(Uuid::from_u128(number.into()))
}

pub(super) fn coordinator_id(number: u8) -> CoordinatorId {
    CoordinatorId::new(Uuid::from_u128(number.into()))
}

pub(super) fn hash(number: u8) -> [u8; 32] {
    [number; 32]
}

pub(super) fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

/// A server whose door was not given a certificate.
pub(super) fn upstream(number: u8) -> Upstream {
    Upstream {
        server: server_id(number),
        address: address(number),
        door: Door::Open,
    }
}

pub(super) fn new_server(number: u8) -> NewServer {
    NewServer {
        id: server_id(number),
        name: format!("tp-{number}"),
        pool: pool(),
        placement: sample::placement(),
        token_hash: hash(number),
        token_expires: at(3600),
    }
}

pub(super) fn host(number: u8) -> String {
    format!("a{number}.localhost")
}

pub(super) fn document(number: u8, generation: u64) -> SealedDocument {
    SealedDocument::seal(&DesiredDocument {
        instance: instance_id(number),
        generation: Generation(generation),
        hosts: vec![host(number)],
        origins: vec![format!("http://{}", host(number))],
        edge_proof: EdgeProof(format!("proof-{number}")),
        config: json!({ "generation": generation }),
        restarts: 0,
        limits: GatewayLimits::default(),
        power: Power::On,
        evictions: 0,
        max_body_bytes: None,
        openclaw: None,
        networks: Networks::default(),
    })
}

pub(super) fn new_instance(number: u8) -> NewInstance {
    NewInstance {
        id: instance_id(number),
        operation: operation_id(number),
        name: format!("a{number}"),
        external_id: Some(format!("customer-{number}")),
        pool: pool(),
        hosts: vec![host(number), format!("www.{}", host(number))],
        url: format!("http://{}", host(number)),
        edge_proof: EdgeProof(format!("proof-{number}")),
        config: json!({ "generation": 1 }),
        document: document(number, 1),
    }
}

/// A change to `generation`, with operation 100 + `generation`.
pub(super) fn change(number: u8, generation: u8) -> DocumentChange {
    DocumentChange {
        instance: instance_id(number),
        operation: operation_id(100 + generation),
        kind: OperationKind::Configure,
        expected: Generation(u64::from(generation) - 1),
        config: json!({ "generation": generation }),
        restarts: 0,
        evictions: 0,
        edge_limits: EdgeLimits::default(),
        networks: Networks::default(),
        domains: Vec::new(),
        openclaw: None,
        document: document(number, generation.into()),
    }
}

/// Another name by generation `generation`, with operation 100 + `generation`.
pub(super) fn rename(number: u8, generation: u8, name: &str, moved_until: Moment) -> Rename {
    Rename {
        name: name.to_owned(),
        hosts: vec![format!("{name}.example")],
        url: format!("https://{name}.example"),
        moved_until,
        change: DocumentChange {
            kind: OperationKind::Rename,
            ..change(number, generation)
        },
    }
}

/// A healthy agent's report of its first session.
pub(super) fn report(observed: u64) -> ServerReport {
    ServerReport {
        epoch: 1,
        warm: true,
        failed: None,
        served: Generation(observed),
        observed: Generation(observed),
        health: Health::Ok,
        reasons: Vec::new(),
        gateway_starts: 1,
        steps: vec![step("nginx", 7)],
        rejected: None,
        openclaw: None,
    }
}

pub(super) fn step(name: &str, ms: u64) -> StepMs {
    StepMs {
        name: name.to_owned(),
        ms,
    }
}

/// A server that booted, and has an address.
pub(super) async fn booting(store: &impl Store, number: u8) -> anyhow::Result<ServerId> {
    let id = server_id(number);
    store.plan_server(&new_server(number), at(0)).await?;
    store.mark_creating(id, at(1)).await?;
    let created = store.record_created(id, &made(number), at(2)).await?;
    ensure!(created == Transition::Done, "the server was not created");
    Ok(id)
}

/// What the cloud answers about the server of this number.
pub(super) fn made(number: u8) -> CloudServer {
    CloudServer {
        id: cloud_id(number),
        name: format!("tp-{number}"),
        address: address(number),
        image: Some("image-1".to_owned()),
    }
}

pub(super) fn cloud_id(number: u8) -> String {
    format!("cloud-{number}")
}

/// A server that may be claimed; its session's epoch is 1.
pub(super) async fn warm(store: &impl Store, number: u8) -> anyhow::Result<ServerId> {
    let id = booting(store, number).await?;
    store
        .open_session(id, "2026.9.6", coordinator_id(1), at(3))
        .await?;
    store
        .record_report(id, &report(0), at(4))
        .await?
        .context("the report was ignored")?;
    Ok(id)
}

/// An instance on a warm server, both of this number.
pub(crate) async fn claimed(store: &impl Store, number: u8) -> anyhow::Result<Instance> {
    let server = warm(store, number).await?;
    let instance = store.create_instance(&new_instance(number), at(5)).await?;
    ensure!(
        instance.server == Some(server),
        "another server was claimed"
    );
    Ok(instance)
}

/// An instance that runs, on a server, both of this number; nothing is under way.
pub(super) async fn running(store: &impl Store, number: u8) -> anyhow::Result<InstanceId> {
    let id = claimed(store, number).await?.id;
    store
        .record_report(server_id(number), &report(1), at(6))
        .await?;
    let running = store.mark_running(id, &[step("claim", 3)], at(7)).await?;
    ensure!(running == Transition::Done, "the instance does not run");
    Ok(id)
}

/// Deletes an instance, and ends its grace.
pub(super) async fn purged(store: &impl Store, id: InstanceId) -> anyhow::Result<()> {
    let deleted = store
        .delete_instance(id, operation_id(99), at(20), at(20))
        .await?;
    ensure!(deleted == Transition::Done, "the instance is not deleted");
    Ok(())
}

/// The kinds of all events, oldest first.
pub(super) async fn kinds(store: &impl Store) -> anyhow::Result<Vec<String>> {
    let events = store.events_after(0, None, 1000).await?;
    Ok(events.into_iter().map(|event| event.kind).collect())
}

/// How often an event happened.
pub(super) async fn count(store: &impl Store, kind: &str) -> anyhow::Result<usize> {
    let kinds = kinds(store).await?;
    Ok(kinds.iter().filter(|known| *known == kind).count())
}
