//! What a customer reaches from inside their container, as root there, with real packets: the model relay and the
//! world's web, and nothing else.
//!
//! That nothing answers proves nothing by itself, so whatever must not be reached is reached from somewhere
//! else first: by the server's own root, mostly, who is behind the same cable.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use tokio::{net::TcpStream, time::sleep};

mod world;

pub use self::world::World;

/// Somebody who may run commands on a server as root.
#[async_trait]
pub trait Root: Sync {
    /// Runs a shell's command; what it printed, if it went well.
    async fn run(&self, script: &str) -> anyhow::Result<String>;
}

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
    /// A packet that is dropped is not answered; one that arrives is, within these seconds.
    pub answer_s: u32,
}

/// Where something is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Container,
}

impl Inside<'_> {
    /// All of it but other servers.
    pub async fn check(&self, world: &World) -> anyhow::Result<()> {
        self.walls().await?;
        self.ports(world).await.context("the world")?;
        self.rate(world).await.context("new connections")
    }

    /// What no document opens: metadata, the server itself, the main server.
    pub async fn walls(&self) -> anyhow::Result<()> {
        self.metadata().await.context("metadata")?;
        self.machine().await.context("the server itself")?;
        self.main_server().await.context("the main server")
    }

    /// Whether a private host is reached, which the server's own root reaches on all of its ports; its mail is not.
    pub async fn reaches(&self, host: &World) -> anyhow::Result<bool> {
        let at = |ports: &[u16]| -> Vec<_> {
            let ports = ports.iter();
            ports.map(|port| tcp(host.address, *port)).collect()
        };
        let (open, shut) = (at(OPEN), at(SHUT));
        self.all(Side::Server, &open).await?;
        self.all(Side::Server, &shut).await?;
        self.none(Side::Container, &shut).await?;
        let reached = self.reached(Side::Container, &open).await?.len();
        ensure!(reached == 0 || reached == open.len(), "{reached} ports");
        Ok(reached > 0)
    }

    /// Root is told who this server is, by either family, and the customer is not.
    async fn metadata(&self) -> anyhow::Result<()> {
        let services = ["169.254.169.254", "fe80::a9fe:a9fe%eth0"];
        let asks = services.map(|service| {
            format!(
                "exec 3<>/dev/tcp/{service}/80
                printf 'GET /hetzner/v1/userdata HTTP/1.0\\r\\n\\r\\n' >&3
                grep -q enrolment_token <&3"
            )
        });
        self.all(Side::Server, &asks).await.context("root asks")?;
        let as_another = |ask: &String| {
            format!(
                "exec setpriv --reuid=1000 --clear-groups bash -c {}",
                quoted(ask)
            )
        };
        let others: Vec<_> = asks.iter().map(as_another).collect();
        self.none(Side::Server, &others)
            .await
            .context("another user asks")?;
        let connect = services.map(|service| format!("exec 3<>/dev/tcp/{service}/80"));
        self.none(Side::Container, &connect).await
    }

    /// Neither Docker's socket nor the agent's files nor the disk, nor what listens on the server.
    async fn machine(&self) -> anyhow::Result<()> {
        let paths = [
            "/var/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/var/lib/tidepool",
            "/run/tidepool",
            "/usr/local/bin/tidepool-agent",
            "/var/lib/docker",
        ];
        let there = paths.map(|path| format!("[ -e {path} ]"));
        self.all(Side::Server, &there).await?;
        self.none(Side::Container, &there).await?;
        let bridge = self.bridge().await?;
        // nginx, which is for the edge alone; Docker; SSH.
        let doors: Vec<_> = [8080, 2375, 2376, 22]
            .iter()
            .flat_map(|port| [tcp(self.address, *port), tcp(bridge, *port)])
            .collect();
        self.none(Side::Container, &doors).await?;
        let relay = [tcp(bridge, 8081), tcp(self.address, 8081)];
        let reached = self.reached(Side::Container, &relay).await?;
        ensure!(!reached.is_empty(), "the model relay is not reached");
        Ok(())
    }

    /// The server's address on the container's network.
    async fn bridge(&self) -> anyhow::Result<Ipv4Addr> {
        let routes = "while read -r name to via rest; do
            [ \"$to\" = 00000000 ] && echo \"$via\"; done </proc/net/route; true";
        let via = self.within(routes).await?;
        let bits = u32::from_str_radix(via.trim(), 16).context("a default route")?;
        // As it is in memory, in the network's order.
        Ok(Ipv4Addr::from(bits.to_le_bytes()))
    }

    /// Another server's edge port, which is the main server's alone.
    pub async fn neighbour(&self, address: Ipv4Addr, port: u16) -> anyhow::Result<()> {
        let edge = [tcp(address, port)];
        self.none(Side::Container, &edge).await?;
        self.none(Side::Server, &edge).await?;
        TcpStream::connect((address, port))
            .await
            .context("the main server reaches it")?;
        Ok(())
    }

    /// The main server's private ports by either protocol.
    async fn main_server(&self) -> anyhow::Result<()> {
        let proxy = [tcp(self.main, self.main_port)];
        self.all(Side::Server, &proxy).await?;
        self.none(Side::Container, &proxy).await?;
        // The link is UDP, which tells its sender nothing: so somebody listens.
        let ear = UdpSocket::bind((self.main, 0))?;
        ear.set_read_timeout(Some(Duration::from_millis(500)))?;
        let port = ear.local_addr()?.port();
        let say = |word: &str| [format!("echo {word} >/dev/udp/{}/{port}", self.main)];
        // Whether it may be sent is the kernel's word, and no matter.
        self.reached(Side::Container, &say("container")).await?;
        self.all(Side::Server, &say("server")).await?;
        let mut heard = [0; 16];
        let length = ear.recv(&mut heard).context("nothing is heard")?;
        ensure!(
            heard.get(..length) == Some(b"server\n"),
            "the container was heard"
        );
        Ok(())
    }

    /// The web, and neither mail nor IRC.
    async fn ports(&self, world: &World) -> anyhow::Result<()> {
        let at = |ports: &[u16]| -> Vec<_> {
            let ports = ports.iter();
            ports.map(|port| tcp(world.address, *port)).collect()
        };
        self.all(Side::Container, &at(OPEN)).await?;
        self.all(Side::Server, &at(SHUT)).await?;
        self.none(Side::Container, &at(SHUT)).await
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

    /// Every one of these attempts goes well.
    async fn all(&self, side: Side, attempts: &[String]) -> anyhow::Result<()> {
        let reached = self.reached(side, attempts).await?;
        let missing = attempts.iter().find(|attempt| !reached.contains(attempt));
        match missing {
            None => Ok(()),
            Some(missing) => bail!("{side:?} cannot: {missing}"),
        }
    }

    /// Not one of these attempts goes well.
    async fn none(&self, side: Side, attempts: &[String]) -> anyhow::Result<()> {
        let reached = self.reached(side, attempts).await?;
        ensure!(reached.is_empty(), "{side:?} can: {reached:?}");
        Ok(())
    }

    /// Those attempts, commands of bash's, that go well in time; all are made at once.
    async fn reached<'a>(
        &self,
        side: Side,
        attempts: &'a [String],
    ) -> anyhow::Result<Vec<&'a String>> {
        let mut script = String::new();
        for (number, attempt) in attempts.iter().enumerate() {
            let attempt = quoted(attempt);
            let wait = self.answer_s;
            writeln!(
                script,
                "(timeout {wait} bash -c {attempt} 2>/dev/null && echo {number}) &"
            )?;
        }
        script.push_str("wait\necho end");
        let said = match side {
            Side::Server => self.server.run(&script).await?,
            Side::Container => self.within(&script).await?,
        };
        let said = said.trim();
        // Without its last word it was cut off, and silence is no proof.
        let numbers = said.strip_suffix("end").context("the attempts' end")?;
        numbers
            .split_whitespace()
            .map(|number| {
                let attempt = number.parse::<usize>().ok().and_then(|n| attempts.get(n));
                attempt.with_context(|| format!("`{said}`"))
            })
            .collect()
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
