//! Who reaches what, with real packets: the main server, a stranger on the same network, a container.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tidepool_tests::{
    inside::{Inside, World},
    rack::{Rack, SERVER_PORT, Server},
};
use tokio::{
    net::TcpStream,
    process::Command,
    time::{sleep, timeout},
};

/// For what a server is told to reach it.
const PATIENCE: Duration = Duration::from_mins(1);

/// A packet that is dropped is not answered; one that arrives is, in a millisecond.
const ANSWER: Duration = Duration::from_secs(2);

/// Where nothing but a container of this test's listens.
const PUBLISHED: u16 = 19_999;

async fn main_reaches(server: &Server, port: u16) -> bool {
    let at = SocketAddr::from((server.address, port));
    matches!(timeout(ANSWER, TcpStream::connect(at)).await, Ok(Ok(_)))
}

/// Whether a host on the switch gets through, by a shell's command.
async fn host_can(host: &str, script: &str) -> anyhow::Result<bool> {
    let status = Command::new("ip")
        .args(["netns", "exec", host, "timeout", "2", "bash", "-c", script])
        .kill_on_drop(true)
        .status();
    Ok(status.await?.success())
}

fn connect(server: &Server, port: u16) -> String {
    format!("exec 3<>/dev/tcp/{}/{port}", server.address)
}

#[tokio::test]
async fn the_edge_port_is_for_the_main_server_and_every_other_packet_is_dropped()
-> anyhow::Result<()> {
    let rack = Rack::start("packets", 1).await?;
    rack.warm(1).await?;
    let server = rack.server()?;
    container(&server).await?;
    ensure!(main_reaches(&server, SERVER_PORT).await);
    let stranger = rack.stranger(210).await?;
    ensure!(!host_can(&stranger, &connect(&server, SERVER_PORT)).await?);
    // It has seen the server, so that was the packet filter's doing.
    let seen = format!("ip neigh show {} | grep -q lladdr", server.address);
    ensure!(
        host_can(&stranger, &seen).await?,
        "the stranger is plugged in"
    );
    for port in [22, 8081, 18_789, PUBLISHED] {
        ensure!(!main_reaches(&server, port).await, "main reaches {port}");
        ensure!(
            !host_can(&stranger, &connect(&server, port)).await?,
            "stranger, {port}"
        );
    }
    // A restart of the packet filter takes neither Docker's rules nor the admission along.
    server.run("systemctl restart nftables").await?;
    ensure!(main_reaches(&server, SERVER_PORT).await, "after a restart");
    ensure!(!host_can(&stranger, &connect(&server, SERVER_PORT)).await?);
    server
        .run("nft list table ip nat | grep -q DOCKER || iptables-save -t nat | grep -q DOCKER")
        .await?;
    rack.end().await
}

#[tokio::test]
async fn root_in_a_container_reaches_the_web_and_the_model_relay_and_nothing_else()
-> anyhow::Result<()> {
    let rack = Rack::start("container", 2).await?;
    rack.warm(2).await?;
    let servers = rack.servers()?;
    let (server, neighbour) = (&servers[0], &servers[1]);
    container(server).await?;
    let inside = Inside {
        server,
        address: server.address,
        container: "probe".to_owned(),
        main: rack.settings().main(),
        main_port: rack.main.proxy_port(),
        answer_s: 2,
    };
    inside.check(&rack.world().await?).await?;
    inside.neighbour(neighbour.address, SERVER_PORT).await?;
    rack.end().await
}

#[tokio::test]
async fn a_private_network_is_reached_from_a_container_while_a_document_allows_it()
-> anyhow::Result<()> {
    let rack = Rack::start("networks", 1).await?;
    rack.warm(1).await?;
    rack.api.create("alice", 60).await?;
    let server = rack.server()?;
    container(&server).await?;
    let inside = Inside {
        server: &server,
        address: server.address,
        container: "probe".to_owned(),
        main: rack.settings().main(),
        main_port: rack.main.proxy_port(),
        answer_s: 2,
    };
    let address = rack.settings().address(211);
    let host = World::listen(&rack.stranger(211).await?, address)?;
    ensure!(!inside.reaches(&host).await?, "nothing allows it");

    // The main server is in it, and what is beside it is kept of it.
    let network = format!("{}.0/24", rack.settings().network);
    allow(&rack, &[&network]).await?;
    server.until(ALLOWED, |set| set.contains(&network)).await?;
    ensure!(inside.reaches(&host).await?, "it is allowed");
    inside.walls().await.context("while it is allowed")?;

    // It is in a file, by which it outlives the packet filter.
    for anew in ["restart", "reload"] {
        server.run(&format!("systemctl {anew} nftables")).await?;
        server.until(ALLOWED, |set| set.contains(&network)).await?;
    }
    ensure!(inside.reaches(&host).await?, "after a restart");

    // Whoever has a connection has it no longer than that.
    let beats = format!(
        "docker exec -d probe /usr/bin/python3 -c '
import socket, time
held = socket.create_connection((\"{address}\", 80))
held.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
open(\"/held\", \"w\")
try:
    while True:
        held.send(b\".\")
        time.sleep(0.1)
except OSError:
    open(\"/cut\", \"w\")'"
    );
    server.run(&beats).await?;
    let files = "docker exec probe /bin/ls /";
    server.until(files, |all| all.contains("held")).await?;
    sleep(Duration::from_secs(3)).await;
    let all = server.run(files).await?;
    ensure!(!all.lines().any(|file| file == "cut"), "cut before it is");

    allow(&rack, &[]).await?;
    server
        .until(ALLOWED, |set| !set.contains("elements"))
        .await?;
    let cut = |all: &str| all.lines().any(|file| file == "cut");
    server.until(files, cut).await.context("the connection")?;
    ensure!(!inside.reaches(&host).await?, "it is taken away");
    inside.walls().await.context("afterwards")?;
    rack.end().await
}

/// What the packet filter allows.
const ALLOWED: &str = "nft list set inet tidepool allowed4";

/// Has the instance's server told which networks it may reach, and hears that it was.
async fn allow(rack: &Rack, networks: &[&str]) -> anyhow::Result<()> {
    let body = json!({ "networks": networks });
    let path = "/instances/alice/networks";
    let put = rack.api.send(Method::PUT, path, &[], Some(&body));
    let (status, said) = put.await?;
    ensure!(status.is_success(), "{status} {said}");
    let told = |instance: &Value| instance["operation"].is_null();
    let until = rack.api.until("/instances/alice", PATIENCE, told);
    until.await.map(drop)
}

/// A container of the machine's own shell and curl, which publishes a port on every address.
async fn container(server: &Server) -> anyhow::Result<()> {
    let script = format!(
        "set -e
        files=$(for program in /bin/bash /bin/cat /bin/date /bin/ls /usr/bin/curl /usr/bin/python3 /usr/bin/timeout; do
            echo $program; ldd $program | grep -o '/[^ ]*'; done | sort -u)
        tar -ch $files /usr/lib/python3.11 2>/dev/null | docker import - probe:1 >/dev/null
        docker run -d --name probe -p {PUBLISHED}:{PUBLISHED} probe:1 \
            /usr/bin/python3 -m http.server {PUBLISHED} >/dev/null
        for i in $(seq 100); do
            docker exec probe /usr/bin/curl -s -o /dev/null http://127.0.0.1:{PUBLISHED}/ && exit 0
            sleep 0.1
        done
        docker logs probe; exit 1"
    );
    server.run(&script).await.map(drop)
}
