//! A firewall's rules, and what makes one wrong.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::fake_hetzner::refusal::Refusal;

/// Rules of one firewall.
const MAX_RULES: usize = 50;

/// Networks of one rule.
const MAX_NETWORKS: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Direction {
    In,
    Out,
}

/// One rule; its schema has been checked.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Rule {
    direction: Direction,
    protocol: String,
    port: Option<String>,
    #[serde(default)]
    source_ips: Vec<String>,
    #[serde(default)]
    destination_ips: Vec<String>,
    description: Option<String>,
}

impl Rule {
    pub(super) fn view(&self) -> Value {
        json!({
            "direction": match self.direction {
                Direction::In => "in",
                Direction::Out => "out",
            },
            "protocol": self.protocol,
            "port": self.port,
            "source_ips": self.source_ips,
            "destination_ips": self.destination_ips,
            "description": self.description,
        })
    }

    fn fault(&self) -> Option<&'static str> {
        let (needed, other) = match self.direction {
            Direction::In => (&self.source_ips, &self.destination_ips),
            Direction::Out => (&self.destination_ips, &self.source_ips),
        };
        let has_ports = matches!(self.protocol.as_str(), "tcp" | "udp");
        match &self.port {
            None if has_ports => return Some("port is required for tcp and udp"),
            Some(_) if !has_ports => return Some("port is only allowed for tcp and udp"),
            Some(port) if !is_port(port) => return Some("port is not a port or a range"),
            None | Some(_) => {}
        }
        if needed.is_empty() || !other.is_empty() {
            return Some("source_ips belong to direction in, destination_ips to direction out");
        }
        if needed.len() > MAX_NETWORKS {
            return Some("has more than 100 networks");
        }
        if !needed.iter().all(|network| is_network(network)) {
            return Some("is not a network in CIDR notation without host bits");
        }
        None
    }
}

pub(super) fn check(rules: &[Rule]) -> Result<(), Refusal> {
    if rules.len() > MAX_RULES {
        return Err(Refusal::field("rules", "are more than 50"));
    }
    match rules.iter().find_map(Rule::fault) {
        None => Ok(()),
        Some(fault) => Err(Refusal::field("rules", fault)),
    }
}

/// `22` or `1024-5000`.
fn is_port(text: &str) -> bool {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match text.split_once('-') {
        None => port(text).is_some(),
        Some((from, to)) => port(from)
            .zip(port(to))
            .is_some_and(|(from, to)| from <= to),
    }
}

fn is_network(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let Ok(length) = length.parse::<u32>() else {
        return false;
    };
    let no_host_bits = |bits: u128, width: u32| {
        length <= width && bits.checked_shl(128 - width + length).unwrap_or(0) == 0
    };
    match address.parse() {
        Ok(IpAddr::V4(v4)) => no_host_bits(u128::from(v4.to_bits()), 32),
        Ok(IpAddr::V6(v6)) => no_host_bits(v6.to_bits(), 128),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_no_host_bits() {
        for good in [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "192.0.2.1/32",
            "::/0",
            "2001:db8::/32",
            "::1/128",
        ] {
            assert!(is_network(good), "{good}");
        }
        for bad in [
            "10.0.0.1/8",
            "10.0.0.0",
            "10.0.0.0/33",
            "::1/64",
            "x/8",
            "::/129",
        ] {
            assert!(!is_network(bad), "{bad}");
        }
    }

    #[test]
    fn ports_are_numbers_or_ranges() {
        for (port, good) in [
            ("22", true),
            ("1024-5000", true),
            ("0", false),
            ("9-8", false),
        ] {
            assert_eq!(is_port(port), good, "{port}");
        }
    }

    #[test]
    fn a_wrong_rule_is_refused() {
        let rule = |value: Value| serde_json::from_value::<Rule>(value).unwrap();
        let ssh = json!({
            "direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["192.0.2.0/24"],
        });
        assert!(check(&[rule(ssh.clone())]).is_ok());
        assert!(check(&vec![rule(ssh.clone()); 51]).is_err());
        for (field, value) in [
            ("port", Value::Null),
            ("protocol", json!("icmp")),
            ("direction", json!("out")),
            ("source_ips", json!([])),
            ("source_ips", json!(["192.0.2.1/24"])),
        ] {
            let mut wrong = ssh.clone();
            wrong[field] = value;
            assert!(check(&[rule(wrong)]).is_err(), "{field}");
        }
    }
}
