//! The network of one gateway's container: a bridge with room for the machine and one container.
//!
//! nginx must know the machine's address on it before Docker is asked, and several servers may share
//! one machine in local mode. So everything about it follows from the gateway's port, of which each
//! server on a machine has its own: 65,536 networks of 16 addresses fit into 172.16.0.0/12, the range
//! of Docker's own bridges, which nginx's relay lets in.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};

/// 172.16.0.0/12.
const RANGE: u32 = 0xac10_0000;
/// Addresses in a network, as a power of two.
const SIZE_BITS: u32 = 4;

/// A network that follows from a gateway's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bridge {
    port: u16,
}

impl Bridge {
    /// The network of the gateway that this machine reaches at this port.
    pub fn of(port: u16) -> Self {
        Self { port }
    }

    /// The machine's own address on it: where the container finds the model relay, and where nginx
    /// comes from as the gateway sees it.
    pub fn address(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.first() + 1))
    }

    /// Its name with Docker and, because interfaces have at most 15 letters, that of the interface.
    pub fn name(self) -> String {
        format!("tidepool{}", self.port)
    }

    fn first(self) -> u32 {
        RANGE + (u32::from(self.port) << SIZE_BITS)
    }

    pub(super) fn request(self, labels: HashMap<String, String>) -> NetworkCreateRequest {
        let subnet = format!("{}/{}", Ipv4Addr::from(self.first()), 32 - SIZE_BITS);
        let options = [
            ("com.docker.network.bridge.name", self.name()),
            ("com.docker.network.bridge.enable_icc", "false".to_owned()),
        ];
        NetworkCreateRequest {
            name: self.name(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some(subnet),
                    gateway: Some(self.address().to_string()),
                    ..IpamConfig::default()
                }]),
                ..Ipam::default()
            }),
            options: Some(options.map(|(name, value)| (name.to_owned(), value)).into()),
            labels: Some(labels),
            ..NetworkCreateRequest::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_port_has_a_network_of_its_own_within_dockers_range() {
        let firsts: BTreeSet<u32> = (0..=u16::MAX)
            .map(|port| Bridge::of(port).first())
            .collect();
        assert_eq!(firsts.len(), 1 << 16);
        assert!(firsts.iter().all(|first| first & 0xfff0_0000 == RANGE));
    }

    #[test]
    fn its_names_fit_and_its_addresses_are_in_it() {
        let bridge = Bridge::of(18789);
        assert_eq!(bridge.address().to_string(), "172.20.150.81");
        let request = bridge.request(HashMap::new());
        let ipam = request.ipam.unwrap().config.unwrap();
        assert_eq!(ipam[0].subnet.as_deref(), Some("172.20.150.80/28"));
        assert!(Bridge::of(u16::MAX).name().len() <= 15);
    }
}
