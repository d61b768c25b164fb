//! Who may reach a server, said once: the cloud's firewall and the server's own packet filter are both made
//! from this.

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// The one port of a server that can be reached, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// TCP; nginx listens there.
    pub port: u16,
    /// The main servers' networks.
    pub sources: BTreeSet<Cidr>,
}

/// A network in CIDR notation without host bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// It is not a network.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a network such as `192.0.2.7/32`, with nothing beyond its prefix")]
pub struct BadCidr(String);

impl Cidr {
    /// Whether it is one of version 4.
    pub fn is_v4(&self) -> bool {
        self.network.is_ipv4()
    }

    /// Whether every address of the other one is in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.is_v4() == other.is_v4()
            && self.prefix <= other.prefix
            && leading(other.network, self.prefix) == leading(self.network, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let parse = || {
            let (network, prefix) = text.split_once('/')?;
            let (network, prefix): (IpAddr, u8) = (network.parse().ok()?, prefix.parse().ok()?);
            has_no_host_bits(network, prefix).then_some(Self { network, prefix })
        };
        parse().ok_or_else(|| BadCidr(text.to_owned()))
    }
}

fn has_no_host_bits(network: IpAddr, prefix: u8) -> bool {
    let width = if network.is_ipv4() { 32 } else { 128 };
    prefix <= width && bits(network).checked_shl(prefix.into()).unwrap_or(0) == 0
}

/// So many of an address's first bits; nothing but them.
fn leading(address: IpAddr, prefix: u8) -> u128 {
    let rest = 128_u32.saturating_sub(prefix.into());
    bits(address).checked_shr(rest).unwrap_or(0)
}

/// An address's bits, to the left of 128.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl TryFrom<String> for Cidr {
    type Error = BadCidr;

    fn try_from(text: String) -> Result<Self, BadCidr> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_no_host_bits() {
        for good in [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "192.0.2.7/32",
            "::/0",
            "2001:db8::/64",
        ] {
            assert_eq!(good.parse::<Cidr>().unwrap().to_string(), good);
        }
        for bad in [
            "10.0.0.1/8",
            "10.0.0.0/33",
            "2001:db8::1/64",
            "10.0.0.0",
            "a/1",
            "",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_covers_what_is_in_it_by_the_same_family() {
        let covers = |wide: &str, narrow: &str| {
            let [wide, narrow] = [wide, narrow].map(|text| text.parse::<Cidr>().unwrap());
            wide.covers(&narrow)
        };
        for (wide, narrow) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8", "10.255.0.0/16"),
            ("0.0.0.0/0", "192.0.2.7/32"),
            ("fc00::/7", "fd00::1/128"),
        ] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            ("10.0.0.0/8", "10.0.0.0/7"),
            ("10.0.0.0/8", "11.0.0.0/8"),
            ("0.0.0.0/0", "::/0"),
            ("::/0", "10.0.0.0/8"),
            ("fc00::/7", "fe80::/10"),
        ] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }
}
