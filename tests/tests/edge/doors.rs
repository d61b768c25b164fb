//! The way to a server: encrypted, and each end proves who it is.

use std::{net::IpAddr, sync::Arc};

use http::StatusCode;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use tidepool_coordinator::model::{Door, Route, Upstream as To};
use tidepool_shared::id::ServerId;
use tidepool_tests::doors::Doors;
use tokio::net::TcpListener;

use super::{
    upstream::Upstream,
    world::{World, echo, route, server},
};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A server's end, of this authority.
fn door(doors: &Doors, server: ServerId) -> ServerConfig {
    let (chain, key) = doors.door(server).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.to_pem().as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(doors.authority.root().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
    ServerConfig::builder_with_protocol_versions(&[&TLS13])
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(chain, key)
        .unwrap()
}

/// The route of instance 1 to its server.
fn mutual(host: &str) -> Route {
    Route {
        upstream: Some(To {
            server: server(1),
            address: HERE,
            door: Door::Mutual,
        }),
        ..route(host, 1, None)
    }
}

/// A world whose servers listen on a port that is free, and whose instance leads to it.
async fn world() -> (World, u16) {
    let port = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = port.local_addr().unwrap().port();
    let world = World::start(port).await;
    world.publish(mutual("a.localhost")).await;
    (world, port)
}

#[tokio::test]
async fn a_request_and_a_websocket_pass_and_the_connection_is_kept() {
    let (world, port) = world().await;
    let door = door(&world.doors, server(1));
    let upstream = Upstream::behind("a", (HERE, port), Some(door));
    let upstream = upstream.await.unwrap();
    let cookie = world.sign_in("a.localhost", 1).await;
    let shown = [("cookie", cookie.as_str())];
    for _ in 0..3 {
        let got = world.get("a.localhost", "/", &shown).await;
        assert_eq!(got.status, StatusCode::OK);
        assert!(
            got.body.contains("\"host\":\"a.localhost\""),
            "{}",
            got.body
        );
        assert!(!got.body.contains("tidepool.internal"), "{}", got.body);
    }
    assert_eq!(upstream.handshakes(), 1);
    let mut socket = world.websocket("a.localhost", &shown).await.unwrap();
    echo(&mut socket, "hello").await;
    assert!(upstream.handshakes() <= 2);
}

/// What the owner gets of a server that is not the right one.
async fn refused(world: &World) {
    let cookie = world.sign_in("a.localhost", 1).await;
    let shown = [("cookie", cookie.as_str())];
    let got = world.get("a.localhost", "/", &shown).await;
    assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{}", got.body);
}

#[tokio::test]
async fn another_servers_certificate_at_the_same_address_is_refused() {
    let (world, port) = world().await;
    let stolen = door(&world.doors, server(2));
    let upstream = Upstream::behind("a", (HERE, port), Some(stolen)).await;
    refused(&world).await;
    assert_eq!(upstream.unwrap().handshakes(), 0);
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let (world, port) = world().await;
    let folder = tempfile::tempdir().unwrap();
    let foreign = door(&Doors::of(folder.path()).unwrap(), server(1));
    let _upstream = Upstream::behind("a", (HERE, port), Some(foreign)).await;
    refused(&world).await;
}

#[tokio::test]
async fn a_server_that_has_a_door_is_never_reached_in_clear() {
    let (world, port) = world().await;
    let upstream = Upstream::start("a", HERE, port).await;
    refused(&world).await;
    drop(upstream);
}

#[tokio::test]
async fn a_connection_of_before_is_not_for_the_next_server_at_the_address() {
    let (world, port) = world().await;
    let first = door(&world.doors, server(1));
    let upstream = Upstream::behind("a", (HERE, port), Some(first)).await;
    let cookie = world.sign_in("a.localhost", 1).await;
    let shown = [("cookie", cookie.as_str())];
    let got = world.get("a.localhost", "/", &shown).await;
    assert_eq!(got.status, StatusCode::OK);
    let mut moved = mutual("a.localhost");
    moved.upstream = moved.upstream.map(|to| To {
        server: server(2),
        ..to
    });
    world.publish(moved).await;
    let got = world.get("a.localhost", "/", &shown).await;
    assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{}", got.body);
    drop(upstream);
}
