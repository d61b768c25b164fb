//! The network: a bridge in a namespace of its own, to which this machine and every server have a cable.
//!
//! The bridge is not in this machine's own namespace, where Docker's packet filter would eat what passes it.
//! The metadata service's address is the switch's, as it is a router's in a cloud. A host's hardware address
//! follows from its number, so that its link-local one says who it is, as in a cloud.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use super::{run::line, settings::NspawnSettings};

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";

/// The well-known address, in either family.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
pub const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);

/// The switch's interface, in its namespace.
pub const BRIDGE: &str = "br0";

/// Its own number among the hosts of its network.
pub(super) const SWITCH: u8 = 254;

/// A switch that is up.
#[derive(Debug)]
pub struct Switch {
    prefix: String,
    network: String,
}

impl Switch {
    /// Puts it up, with this machine's cable; what is up already stays.
    pub async fn put_up(settings: &NspawnSettings) -> io::Result<Self> {
        let switch = Self {
            prefix: settings.prefix(),
            network: settings.network.clone(),
        };
        if !switch.namespace_file().exists() {
            let made = switch.lay(settings.main(), settings.switch()).await;
            if made.is_err() {
                // Half a switch would be taken for a whole one.
                switch.take_down().await?;
            }
            made?;
        }
        if has_v6() {
            let space = switch.namespace();
            // At once: nobody else has it.
            let address = format!("{METADATA_V6}/64 dev {BRIDGE} nodad");
            line(&format!("ip -n {space} addr replace {address}")).await?;
        }
        Ok(switch)
    }

    async fn lay(&self, main: Ipv4Addr, own: Ipv4Addr) -> io::Result<()> {
        let (space, cable) = (self.namespace(), self.main_cable());
        // Without one of its own a bridge takes the lowest of its ports', another with each cable that comes or
        // goes, and servers would send to the one before until they ask again.
        let address = mac(SWITCH);
        for command in [
            format!("ip netns add {space}"),
            format!("ip -n {space} link set lo up"),
            format!("ip -n {space} link add {BRIDGE} address {address} type bridge"),
            format!("ip -n {space} addr add {own}/24 dev {BRIDGE}"),
            format!("ip -n {space} addr add {METADATA}/32 dev {BRIDGE}"),
            format!("ip -n {space} link set {BRIDGE} up"),
            format!("ip link add {cable} type veth peer name main netns {space}"),
            format!("ip -n {space} link set main master {BRIDGE}"),
            format!("ip -n {space} link set main up"),
            format!("ip addr add {main}/24 dev {cable}"),
            format!("ip link set {cable} up"),
        ] {
            line(&command).await?;
        }
        Ok(())
    }

    /// Gives the host of this number a namespace with a cable, as `eth0`; returns the namespace's name. One
    /// that has it already keeps it.
    pub async fn plug(&self, number: u8) -> io::Result<String> {
        let host = self.host(number);
        if PathBuf::from(NAMESPACES).join(&host).exists() {
            return Ok(host);
        }
        let (space, network, mac) = (self.namespace(), &self.network, mac(number));
        for command in [
            format!("ip netns add {host}"),
            format!("ip -n {host} link set lo up"),
            format!(
                "ip -n {space} link add p{number} type veth peer name eth0 address {mac} netns {host}"
            ),
            format!("ip -n {space} link set p{number} master {BRIDGE}"),
            format!("ip -n {space} link set p{number} up"),
            format!("ip -n {host} addr add {network}.{number}/24 dev eth0"),
            format!("ip -n {host} link set eth0 up"),
            // As a cloud's gateway does; it leads nowhere but to the metadata service.
            format!("ip -n {host} route add default via {network}.{SWITCH} dev eth0"),
        ] {
            line(&command).await?;
        }
        Ok(host)
    }

    /// Takes a host's namespace away, and its cable with it.
    pub async fn unplug(&self, number: u8) -> io::Result<()> {
        remove(&self.host(number)).await
    }

    /// Takes the switch away, and every cable that is left in it.
    pub async fn take_down(&self) -> io::Result<()> {
        remove(&self.namespace()).await
    }

    /// The namespace of a host, for `ip netns exec`.
    pub fn host(&self, number: u8) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// The switch's own namespace, for `ip netns exec`.
    pub fn namespace(&self) -> String {
        format!("{}-sw", self.prefix)
    }

    /// The file that names the switch's namespace.
    pub(super) fn namespace_file(&self) -> PathBuf {
        PathBuf::from(NAMESPACES).join(self.namespace())
    }

    fn main_cable(&self) -> String {
        format!("{}-main", self.prefix)
    }
}

/// The hardware address of the host of this number: one that its owner makes up.
pub fn mac(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

/// The link-local address that the kernel makes of [`mac`].
pub fn link_local(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, number.into())
}

/// Whether this machine's kernel knows the newer family; some are started without.
pub(super) fn has_v6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

async fn remove(namespace: &str) -> io::Result<()> {
    if PathBuf::from(NAMESPACES).join(namespace).exists() {
        line(&format!("ip netns del {namespace}")).await?;
    }
    Ok(())
}
