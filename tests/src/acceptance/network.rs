//! The network of a provider: a switch with a router's address, DHCP as Hetzner does it, metadata, and the world.
//!
//! Addresses are such as the world has (RFC 5737), so that what a server's packet filter does about private
//! networks is not what keeps its customer away from other servers and from the main one.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Stdio,
    sync::Arc,
};

use anyhow::Context as _;
use axum::http::StatusCode;
use tidepool_coordinator::cloud::nspawn::{
    NspawnSettings,
    metadata::{self, Answer},
    switch::{self, BRIDGE, Switch},
};
use tokio::process::{Child, Command};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::execute;

/// The router's address as Hetzner's servers know it, on no network of theirs.
const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 1);

/// A switch that is up, with what belongs to it.
#[derive(Debug)]
pub(super) struct Network {
    settings: NspawnSettings,
    switch: Switch,
    _dhcp: Child,
    cancel: CancellationToken,
    metadata: TaskTracker,
}

impl Network {
    /// Puts it up. `told` is what the provider tells the server of an address.
    pub(super) async fn put_up(
        settings: NspawnSettings,
        dir: &Path,
        told: impl Fn(&str, &str) -> Option<String> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let switch = Switch::put_up(&settings).await?;
        let space = switch.namespace();
        for command in [
            format!("ip -n {space} addr add {ROUTER}/32 dev {BRIDGE}"),
            format!("ip netns exec {space} sysctl -q -w net.ipv4.ip_forward=1"),
            format!("ip netns exec {space} sysctl -q -w net.ipv4.conf.all.send_redirects=0"),
            format!("ip netns exec {space} sysctl -q -w net.ipv4.conf.{BRIDGE}.send_redirects=0"),
        ] {
            let mut words = command.split(' ');
            execute(Command::new(words.next().unwrap_or_default()).args(words)).await?;
        }
        let dhcp = dhcp(&settings, &space, dir)?;
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let network = Self {
            switch,
            _dhcp: dhcp,
            cancel: cancel.clone(),
            metadata: tasks.clone(),
            settings,
        };
        let answer = network.answer(told);
        let switch = Switch::put_up(&network.settings).await?;
        tasks.spawn(async move {
            if let Err(error) = metadata::serve(&switch, answer, cancel).await {
                tracing::error!(%error, "the metadata service ended");
            }
        });
        Ok(network)
    }

    /// As Hetzner answers, known by an address of either family.
    fn answer(
        &self,
        told: impl Fn(&str, &str) -> Option<String> + Send + Sync + 'static,
    ) -> Arc<Answer> {
        let settings = self.settings.clone();
        Arc::new(move |from: IpAddr, path: &str| {
            let number = match from {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(address) => address.octets()[15],
            };
            let is_its = match from {
                IpAddr::V4(address) => address == settings.address(number),
                IpAddr::V6(address) => address == switch::link_local(number),
            };
            let text = is_its
                .then(|| told(&settings.address(number).to_string(), path))
                .flatten()
                .ok_or(StatusCode::NOT_FOUND)?;
            match path {
                "metadata" => Ok(text + &network_config(number)),
                _ if text.is_empty() => Err(StatusCode::NO_CONTENT),
                _ => Ok(text),
            }
        })
    }

    pub(super) fn address(&self, number: u8) -> Ipv4Addr {
        self.settings.address(number)
    }

    pub(super) fn mac(number: u8) -> String {
        switch::mac(number)
    }

    /// A command that runs in the switch's namespace.
    pub(super) fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.switch.namespace(), program]);
        command
    }

    /// A machine's cable; its name.
    pub(super) async fn tap(&self, number: u8) -> anyhow::Result<String> {
        let (space, name) = (self.switch.namespace(), format!("tap{number}"));
        let there = self
            .inside("ip")
            .args(["link", "show", &name])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await?;
        if !there.success() {
            for command in [
                format!("ip -n {space} tuntap add {name} mode tap"),
                format!("ip -n {space} link set {name} master {BRIDGE}"),
                format!("ip -n {space} link set {name} up"),
            ] {
                let mut words = command.split(' ');
                execute(Command::new(words.next().unwrap_or_default()).args(words)).await?;
            }
        }
        Ok(name)
    }

    /// Pulls a machine's cable, or puts it back.
    pub(super) async fn plug(&self, number: u8, plug: Plug) -> anyhow::Result<()> {
        let state = match plug {
            Plug::In => "up",
            Plug::Out => "down",
        };
        execute(
            self.inside("ip")
                .args(["link", "set", &format!("tap{number}"), state]),
        )
        .await
    }

    /// A host that is nobody's; its namespace. `number` is above 200.
    pub(super) async fn host(&self, number: u8) -> anyhow::Result<String> {
        self.switch.plug(number).await.context("plug a host in")
    }

    /// Takes all of it away.
    pub(super) async fn take_down(&self) -> anyhow::Result<()> {
        self.cancel.cancel();
        self.metadata.close();
        self.metadata.wait().await;
        take_down(&self.settings).await
    }
}

/// A cable's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plug {
    In,
    Out,
}

/// Takes away what a run of before left, if there is something.
pub(super) async fn take_down(settings: &NspawnSettings) -> anyhow::Result<()> {
    let switch = Switch::put_up(settings).await?;
    for number in 201..=253 {
        switch.unplug(number).await?;
    }
    Ok(switch.take_down().await?)
}

/// Hetzner's: one address, and a router that is on no network of the server's.
fn dhcp(settings: &NspawnSettings, space: &str, dir: &Path) -> anyhow::Result<Child> {
    let log = fs::File::create(dir.join("dhcp.log"))?;
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", space, "setpriv", "--pdeathsig", "KILL"])
        .args(["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"])
        .args(["--port=0", "--leasefile-ro", "--log-facility=-"])
        .args(["--user=root", "--pid-file"])
        .arg(format!("--interface={BRIDGE}"))
        .arg(format!(
            "--dhcp-range={},static,255.255.255.0,1h",
            settings.address(0)
        ))
        .arg("--dhcp-option=1,255.255.255.255")
        .arg(format!("--dhcp-option=3,{ROUTER}"))
        .arg(format!(
            "--dhcp-option=121,{ROUTER}/32,0.0.0.0,{metadata}/32,{ROUTER},0.0.0.0/0,{ROUTER}",
            metadata = switch::METADATA
        ))
        .args((2..=9).map(|number| {
            format!(
                "--dhcp-host={},{}",
                switch::mac(number),
                settings.address(number)
            )
        }))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true);
    command.spawn().context("run dnsmasq")
}

/// The part of the metadata that cloud-init makes the network of. A hardware address without quotes would be a
/// number of base 60 to it.
fn network_config(number: u8) -> String {
    format!(
        "network-config:
  config:
  - mac_address: '{}'
    name: eth0
    subnets:
    - ipv4: true
      type: dhcp
    type: physical
  version: 1
public-keys: []
",
        switch::mac(number)
    )
}
