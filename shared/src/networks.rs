//! Which private networks a gateway's container may reach.
//!
//! A server's packet filter refuses a container every private network, and this is the exception. What a document
//! may name is bounded here, and coordinator and agent both read it by this type: an agent does not believe a
//! coordinator that would open the cloud's metadata to a customer.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::admission::Cidr;

/// Private networks: at most [`Self::MAX`], each within one of [`Self::WITHIN`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "Vec<Cidr>", try_from = "Vec<Cidr>")]
pub struct Networks(BTreeSet<Cidr>);

/// They may not be allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedNetworks {
    #[error("{0} networks are more than {max}", max = Networks::MAX)]
    TooMany(usize),
    #[error("`{0}` is not within a private network: {within}", within = Networks::WITHIN.join(", "))]
    NotPrivate(Cidr),
}

impl Networks {
    /// A packet filter looks through them at each packet.
    pub const MAX: usize = 16;

    /// Neither loopback nor link-local, where clouds tell a server's secrets, nor multicast.
    pub const WITHIN: [&str; 5] = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "fc00::/7",
    ];

    /// Whether there are none.
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them once, in order.
    pub fn iter(&self) -> impl Iterator<Item = Cidr> {
        self.0.iter().copied()
    }
}

impl TryFrom<Vec<Cidr>> for Networks {
    type Error = RefusedNetworks;

    fn try_from(given: Vec<Cidr>) -> Result<Self, RefusedNetworks> {
        if given.len() > Self::MAX {
            return Err(RefusedNetworks::TooMany(given.len()));
        }
        match given.iter().find(|network| !is_private(network)) {
            Some(network) => Err(RefusedNetworks::NotPrivate(*network)),
            None => Ok(Self(given.into_iter().collect())),
        }
    }
}

impl From<Networks> for Vec<Cidr> {
    fn from(networks: Networks) -> Self {
        networks.0.into_iter().collect()
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, network) in self.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

fn is_private(network: &Cidr) -> bool {
    let covers = |text: &&str| text.parse().is_ok_and(|wide: Cidr| wide.covers(network));
    Networks::WITHIN.iter().any(covers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(networks: &[&str]) -> Result<Networks, serde_json::Error> {
        serde_json::from_value(serde_json::json!(networks))
    }

    #[test]
    fn private_networks_are_taken_once_each_in_order() {
        let networks = read(&[
            "fd00:1::/32",
            "192.168.0.0/16",
            "10.20.0.0/16",
            "10.20.0.0/16",
            "172.31.0.0/24",
            "100.64.0.7/32",
            "10.0.0.0/8",
        ]);
        let said =
            "10.0.0.0/8, 10.20.0.0/16, 100.64.0.7/32, 172.31.0.0/24, 192.168.0.0/16, fd00:1::/32";
        assert_eq!(networks.unwrap().to_string(), said);
        assert!(read(&[]).unwrap().are_none());
    }

    #[test]
    fn nothing_but_private_networks_is_taken() {
        for bad in [
            "0.0.0.0/0",
            "10.0.0.0/7",
            "11.0.0.0/8",
            "127.0.0.0/8",
            "169.254.169.254/32",
            "169.254.0.0/16",
            "172.16.0.0/11",
            "172.32.0.0/16",
            "192.0.0.0/8",
            "192.169.0.0/16",
            "100.128.0.0/16",
            "198.18.0.0/15",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "255.255.255.255/32",
            "::/0",
            "::1/128",
            "::ffff:10.0.0.0/104",
            "fe80::/10",
            "fe80::a9fe:a9fe/128",
            "f800::/5",
            "ff02::/16",
            "2001:db8::/32",
            // With a host part.
            "10.20.0.1/16",
            "10.0.0.1",
        ] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_packet_filter_is_given_sixteen_at_most() {
        let many = |count: u8| -> Vec<Cidr> {
            let texts = (0..count).map(|number| format!("10.{number}.0.0/16"));
            texts.map(|text| text.parse().unwrap()).collect()
        };
        assert!(Networks::try_from(many(16)).is_ok());
        let refused = Networks::try_from(many(17)).unwrap_err();
        assert_eq!(refused.to_string(), "17 networks are more than 16");
    }
}
