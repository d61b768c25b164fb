//! What a customer reaches from inside their container, as root there, with real packets: the model relay and the
//! world's web, and nothing else.
//!
//! That nothing answers proves nothing by itself, so whatever must not be reached is reached from somewhere
//! else first: by the server's own root, mostly, who is behind the same cable.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use tokio::time::sleep;

mod world;

pub use self::world::World;

/// Somebody who may run commands on a server as root.
#[async_trait]
pub trait Root: Sync {
    /// Runs a shell's command; what it printed, if it went well.
    async fn run(&self, script: &str) -> anyhow::Result<String>;
}

/// A packet that is dropped is not answered; one that arrives is, also on an emulated processor.
const ANSWER_S: u32 = 4;

/// What a robbed agent would be used for: mail and IRC.
pub const SHUT: &[u16] = &[25, 465, 587, 6660, 6667, 6669, 6697];
/// What everybody needs.
pub const OPEN: &[u16] = &[80, 443];

/// New connections in a second, and at once: the packet filter's own figures.
const RATE: u64 = 50;
const BURST: u64 = 200;
/// So many are tried, as fast as a shell can.
const TRIED: u64 = 2000;

/// Where the container is, and what is around it.
pub struct Inside<'a> {
    pub server: &'a dyn Root,
    /// The server's own address.
    pub address: Ipv4Addr,
    /// As Docker knows it; it has bash, cat, date, ls and timeout.
    pub container: String,
    /// The main server, which is this machine.
    pub main: Ipv4Addr,
    /// A private port of its that listens: the model proxy's.
    pub main_port: u16,
    /// Another server, and its edge port, which is the main server's alone.
    pub neighbour: Option<(Ipv4Addr, u16)>,
}

/// Where something is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Container,
}

impl Inside<'_> {
    /// All of it.
    pub async fn check(&self, world: &World) -> anyhow::Result<()> {
        self.metadata().await.context("metadata")?;
        self.machine().await.context("the server itself")?;
        self.others().await.context("other servers")?;
        self.ports(world).await.context("the world")?;
        self.rate(world).await.context("new connections")
    }

    /// Root is told who this server is, by either family, and the customer is not.
    async fn metadata(&self) -> anyhow::Result<()> {
        for service in ["169.254.169.254", "fe80::a9fe:a9fe%eth0"] {
            let ask = format!(
                "exec 3<>/dev/tcp/{service}/80
                printf 'GET /hetzner/v1/userdata HTTP/1.0\\r\\n\\r\\n' >&3
                grep -q enrolment_token <&3"
            );
            let root = format!("bash -c {}", quoted(&ask));
            let told = self.server.run(&root);
            told.await.with_context(|| format!("{service}, root"))?;
            let other = format!(
                "timeout {ANSWER_S} setpriv --reuid=1000 --clear-groups bash -c {}",
                quoted(&ask)
            );
            ensure!(
                self.server.run(&other).await.is_err(),
                "{service} is another user's as well"
            );
            self.shut_off(&format!("exec 3<>/dev/tcp/{service}/80"))
                .await?;
        }
        Ok(())
    }

    /// Neither Docker's socket nor the agent's files nor the disk, nor what listens on the server.
    async fn machine(&self) -> anyhow::Result<()> {
        for path in [
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/var/lib/tidepool",
            "/run/tidepool",
            "/usr/local/bin/tidepool-agent",
            "/var/lib/docker",
        ] {
            let there = format!("[ -e {path} ]");
            ensure!(!self.can(Side::Container, &there).await?, "{path} is there");
        }
        for path in ["/var/run/docker.sock", "/var/lib/tidepool", "/run/tidepool"] {
            ensure!(
                self.can(Side::Server, &format!("[ -e {path} ]")).await?,
                "{path} is not even on the server"
            );
        }
        let gateway = self
            .within("while read -r name to via rest; do [ $to = 00000000 ] && echo $via; done </proc/net/route; true")
            .await?;
        let bits = u32::from_str_radix(gateway.trim(), 16).context("a default route")?;
        let bridge = Ipv4Addr::from(bits.to_le_bytes());
        // nginx, which is for the edge alone; Docker; SSH.
        for port in [8080, 2375, 2376, 22] {
            for at in [self.address, bridge] {
                self.shut_off(&tcp(at, port)).await?;
            }
        }
        let mut relays = false;
        for at in [bridge, self.address] {
            relays |= self.can(Side::Container, &tcp(at, 8081)).await?;
        }
        ensure!(relays, "the model relay is not reached");
        Ok(())
    }

    /// The main server's private ports by either protocol, and another server.
    async fn others(&self) -> anyhow::Result<()> {
        let proxy = tcp(self.main, self.main_port);
        ensure!(
            self.can(Side::Server, &proxy).await?,
            "the server's own proxy is not reached"
        );
        self.shut_off(&proxy).await?;
        // The link is UDP, which tells its sender nothing: so somebody listens.
        let ear = UdpSocket::bind((self.main, 0))?;
        ear.set_read_timeout(Some(Duration::from_millis(500)))?;
        let say = |word: &str| {
            let port = ear.local_addr().map_or(0, |at| at.port());
            format!("echo {word} >/dev/udp/{}/{port}", self.main)
        };
        // Whether it may be sent is the kernel's word, and no matter.
        self.can(Side::Container, &say("container")).await?;
        ensure!(self.can(Side::Server, &say("server")).await?);
        let mut heard = [0; 16];
        let length = ear.recv(&mut heard).context("nothing is heard")?;
        ensure!(
            heard.get(..length) == Some(b"server\n"),
            "the container was heard"
        );
        if let Some((neighbour, port)) = self.neighbour {
            let edge = tcp(neighbour, port);
            self.shut_off(&edge).await?;
            ensure!(
                !self.can(Side::Server, &edge).await?,
                "another server's edge port is open"
            );
            ensure!(
                tokio::net::TcpStream::connect((neighbour, port))
                    .await
                    .is_ok(),
                "the main server reaches it"
            );
        }
        Ok(())
    }

    /// The web, and neither mail nor IRC.
    async fn ports(&self, world: &World) -> anyhow::Result<()> {
        for port in OPEN {
            let open = tcp(world.address, *port);
            ensure!(self.can(Side::Container, &open).await?, "{port} is shut");
        }
        for port in SHUT {
            let shut = tcp(world.address, *port);
            ensure!(self.can(Side::Server, &shut).await?, "nobody at {port}");
            self.shut_off(&shut).await?;
        }
        Ok(())
    }

    /// Of many connections at once the world sees as many as the packet filter says.
    async fn rate(&self, world: &World) -> anyhow::Result<()> {
        // What was allowed a moment ago is allowed again.
        sleep(Duration::from_secs(BURST / RATE)).await;
        let burst = format!(
            "began=$(date +%s%N)
            for ((n = 0; n < {TRIED}; n++)); do echo . >/dev/udp/{}/{}; done
            echo $((($(date +%s%N) - began) / 1000000))",
            world.address,
            World::EAR
        );
        let counting = world.count();
        let took_ms: u64 = self.within(&burst).await?.trim().parse()?;
        let seen = counting.end().await?;
        let allowed = BURST + RATE * (took_ms / 1000 + 1) + RATE;
        ensure!(allowed < TRIED, "{took_ms} ms: too slow to tell");
        ensure!(
            (BURST / 2..=allowed).contains(&seen),
            "{seen} of {TRIED} in {took_ms} ms"
        );
        Ok(())
    }

    /// The container is refused what somebody else is not.
    async fn shut_off(&self, attempt: &str) -> anyhow::Result<()> {
        let reached = self.can(Side::Container, attempt).await?;
        ensure!(!reached, "the container can: {attempt}");
        Ok(())
    }

    /// Whether a command of bash's goes well, in time.
    async fn can(&self, side: Side, attempt: &str) -> anyhow::Result<bool> {
        let script = format!(
            "if timeout {ANSWER_S} bash -c {} 2>/dev/null; then echo yes; else echo no; fi",
            quoted(attempt)
        );
        let said = match side {
            Side::Server => self.server.run(&script).await?,
            Side::Container => self.within(&script).await?,
        };
        match said.trim() {
            "yes" => Ok(true),
            "no" => Ok(false),
            other => anyhow::bail!("`{attempt}`: {other}"),
        }
    }

    /// What root in the container sees.
    async fn within(&self, script: &str) -> anyhow::Result<String> {
        let command = format!(
            "docker exec --user 0 {} bash -c {}",
            self.container,
            quoted(script)
        );
        self.server.run(&command).await
    }
}

fn tcp(to: Ipv4Addr, port: u16) -> String {
    format!("exec 3<>/dev/tcp/{to}/{port}")
}

/// As one word of a shell's.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
