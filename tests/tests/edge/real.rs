//! The edge over the real store: claim, sign-in and deletion, told of by the doorbell alone.

use std::{net::IpAddr, sync::Arc};

use futures_util::StreamExt as _;
use http::StatusCode;
use tidepool_coordinator::{
    ambient::{Chance, Clock as _, Moment, SystemClock},
    doorbell::{Doorbell, Ring},
    edge::EdgeStore,
    model::{Health, Instance, InstanceStatus, NewInstance, NewServer, ServerReport},
    store::{AccessStore as _, InstanceStore as _, ServerStore as _, Store, sqlite::SqliteStore},
};
use tidepool_shared::{
    document::{
        DesiredDocument, Digest, EdgeProof, GatewayLimits, Generation, Power, SealedDocument,
    },
    id::{CoordinatorId, InstanceId, ServerId},
    networks::Networks,
};

use super::{
    upstream::Upstream,
    world::{World, echo, id, soon, whole},
};

const HOST: &str = "real.localhost";

fn server() -> ServerId {
    format!("srv_{:026}", 1).parse().unwrap()
}

fn coordinator() -> CoordinatorId {
    format!("coord_{:026}", 1).parse().unwrap()
}

fn now() -> Moment {
    SystemClock.now()
}

/// A warm server, through its whole life so far.
async fn warm_server(store: &SqliteStore, address: IpAddr) {
    let hour = std::time::Duration::from_hours(1);
    let new = NewServer {
        id: server(),
        name: "pool-1".to_owned(),
        pool: tidepool_coordinator::model::sample::pool(),
        placement: tidepool_coordinator::model::sample::placement(),
        token_hash: [1; 32],
        token_expires: now().plus(hour),
    };
    store.plan_server(&new, now()).await.unwrap();
    store.mark_creating(server(), now()).await.unwrap();
    store
        .record_created(
            server(),
            &tidepool_coordinator::model::sample::made("cloud-1", address),
            now(),
        )
        .await
        .unwrap();
    let (epoch, _) = store
        .open_session(server(), "2026.9.6", coordinator(), now())
        .await
        .unwrap()
        .unwrap();
    let report = ServerReport {
        epoch,
        warm: true,
        failed: None,
        served: Generation::default(),
        observed: Generation::default(),
        health: Health::Ok,
        reasons: Vec::new(),
        gateway_starts: 1,
        steps: Vec::new(),
        rejected: None,
        openclaw: None,
    };
    store.record_report(server(), &report, now()).await.unwrap();
}

async fn claim(store: &SqliteStore, id: InstanceId) -> Instance {
    let proof = EdgeProof("real-proof".to_owned());
    let document = SealedDocument::seal(&DesiredDocument {
        instance: id,
        generation: Generation::FIRST,
        hosts: vec![HOST.to_owned()],
        origins: Vec::new(),
        edge_proof: proof.clone(),
        config: serde_json::json!({}),
        restarts: 0,
        limits: GatewayLimits::default(),
        power: Power::On,
        evictions: 0,
        max_body_bytes: None,
        openclaw: None,
        networks: Networks::default(),
    });
    let new = NewInstance {
        id,
        operation: format!("op_{:026}", 1).parse().unwrap(),
        name: "real".to_owned(),
        external_id: None,
        pool: tidepool_coordinator::model::sample::pool(),
        hosts: vec![HOST.to_owned()],
        url: format!("http://{HOST}"),
        edge_proof: proof,
        config: serde_json::json!({}),
        document,
    };
    store.create_instance(&new, now()).await.unwrap()
}

#[tokio::test]
async fn a_claim_opens_the_door_and_a_deletion_shuts_it() {
    let upstream = Upstream::start("real", [127, 0, 0, 1].into(), 0)
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidepool.db");
    let store = SqliteStore::open(&file, Arc::new(Chance::from_os()))
        .await
        .unwrap();
    let bell = Doorbell::default();
    let views = EdgeStore::from(Arc::new(store.clone()) as Arc<dyn Store>);
    let world = World::over(views, Arc::default(), bell.clone(), upstream.port).await;
    warm_server(&store, upstream.address).await;

    let instance = claim(&store, id(1)).await;
    assert_eq!(instance.status, InstanceStatus::Starting);
    bell.ring(Ring::Instance(id(1)));
    soon(world.edge.verify(&instance)).await.unwrap();

    let secret = Digest::of(whole("once").as_bytes()).0;
    let soon_over = now().plus(std::time::Duration::from_mins(1));
    store
        .create_login_link(secret, id(1), soon_over, now())
        .await
        .unwrap();
    let login = world.open_link(HOST, "once").await;
    assert_eq!(login.status, StatusCode::SEE_OTHER);
    let cookie = login.headers["set-cookie"].to_str().unwrap();
    let shown = [("cookie", cookie.split(';').next().unwrap())];
    let again = world.open_link(HOST, "once").await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
    let mut socket = world.websocket(HOST, &shown).await.unwrap();
    echo(&mut socket, "hello").await;

    let deletion = format!("op_{:026}", 2).parse().unwrap();
    store
        .delete_instance(id(1), deletion, now(), now())
        .await
        .unwrap();
    bell.ring(Ring::Instance(id(1)));
    assert!(!matches!(soon(socket.next()).await, Some(Ok(message)) if !message.is_close()));
    let gone = world.get(HOST, "/", &shown).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    store.close().await;
}
