//! A store full of claimed servers, put there the way that the coordinator would.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use tidepool_coordinator::{
    ambient::{Chance, Clock as _, Moment, SystemClock},
    model::{Health, NewInstance, NewServer, ServerReport, sample},
    store::{InstanceStore as _, ServerStore, sqlite::SqliteStore},
};
use tidepool_shared::{
    document::{DesiredDocument, EdgeProof, GatewayLimits, Generation, Power, SealedDocument},
    id::{CoordinatorId, InstanceId, OperationId, ServerId},
    networks::Networks,
};

use super::{fleet::OPENCLAW, server::database};

/// Servers at 127.64.0.1 and up: each dials from its own, for the coordinator takes it from no other.
const FIRST_ADDRESS: u32 = (127 << 24) + (64 << 16) + 1;

const TELL_EVERY: usize = 2_000;

/// Makes the store and fills it. Each server belongs to an instance whose document it has not been sent.
pub(super) async fn fill(data: &Path, count: usize) -> anyhow::Result<Vec<ServerId>> {
    let chance = Arc::new(Chance::from_os());
    let store = SqliteStore::open(&database(data), Arc::clone(&chance)).await?;
    let mut servers = Vec::with_capacity(count);
    for number in 0..count {
        let now = SystemClock.now();
        warm(&store, &chance, address(number)?, now).await?;
        let new = instance(number, &chance, now);
        let claimed = store.create_instance(&new, now).await?;
        servers.push(claimed.server.context("no warm server was taken")?);
        if (number + 1) % TELL_EVERY == 0 {
            eprintln!("links: {} servers are in the store", number + 1);
        }
    }
    store.close().await;
    Ok(servers)
}

/// The address of the server of this number.
pub(in crate::bench) fn address(number: usize) -> anyhow::Result<IpAddr> {
    let address = Ipv4Addr::from(FIRST_ADDRESS + u32::try_from(number)?);
    Ok(address.into())
}

/// Puts one warm server into a store.
pub(in crate::bench) async fn warm(
    store: &impl ServerStore,
    chance: &Chance,
    address: IpAddr,
    now: Moment,
) -> anyhow::Result<ServerId> {
    let id = ServerId::new(chance.uuid(now));
    let mut token_hash = [0; 32];
    for (place, byte) in token_hash.iter_mut().zip(chance.secret().bytes()) {
        *place = byte;
    }
    let new = NewServer {
        id,
        name: format!("tidepool-{id}"),
        pool: sample::pool(),
        placement: sample::placement(),
        token_hash,
        token_expires: now,
    };
    store.plan_server(&new, now).await?;
    store
        .record_created(id, &sample::made(&id.to_string(), address), now)
        .await?;
    let holder = CoordinatorId::new(chance.uuid(now));
    let session = store.open_session(id, OPENCLAW, holder, now).await?;
    let (epoch, _) = session.context("the server may have no session")?;
    let report = ServerReport {
        epoch,
        warm: true,
        failed: None,
        served: Generation(0),
        observed: Generation(0),
        health: Health::Ok,
        reasons: Vec::new(),
        gateway_starts: 1,
        steps: Vec::new(),
        rejected: None,
        openclaw: None,
    };
    store.record_report(id, &report, now).await?;
    Ok(id)
}

/// An instance to be, of this number.
pub(in crate::bench) fn instance(number: usize, chance: &Chance, now: Moment) -> NewInstance {
    let id = InstanceId::new(chance.uuid(now));
    let name = format!("bench-{number}");
    let host = format!("{name}.localhost");
    let url = format!("http://{host}:8080");
    let edge_proof = EdgeProof(chance.secret());
    let config = serde_json::json!({ "ui": { "assistant": { "name": name } } });
    let document = SealedDocument::seal(&DesiredDocument {
        instance: id,
        generation: Generation::FIRST,
        hosts: vec![host.clone()],
        origins: vec![url.clone()],
        edge_proof: edge_proof.clone(),
        config: config.clone(),
        restarts: 0,
        limits: GatewayLimits::default(),
        power: Power::On,
        evictions: 0,
        max_body_bytes: None,
        openclaw: None,
        networks: Networks::default(),
    });
    NewInstance {
        id,
        operation: OperationId::new(chance.uuid(now)),
        name,
        external_id: None,
        pool: sample::pool(),
        hosts: vec![host],
        url,
        edge_proof,
        config,
        document,
    }
}
