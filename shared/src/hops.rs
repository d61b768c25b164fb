//! Peers whose word counts about who asks: the operator's own load balancers.
//!
//! Without any, and from everybody else, forwarding headers mean nothing: a caller is the address of the
//! connection.

use std::{net::IpAddr, sync::Arc};

/// The load balancers.
#[derive(Debug, Clone, Default)]
pub struct Hops(Arc<[IpAddr]>);

impl Hops {
    pub fn of(addresses: &[IpAddr]) -> Self {
        Self(addresses.iter().map(IpAddr::to_canonical).collect())
    }

    pub fn has(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Who asks, by the values of `X-Forwarded-For` in their order. A hop adds the address that it heard from at the end; what is before that is anybody's
    /// word. `None`: a hop that does not say.
    pub fn caller<'a>(
        &self,
        peer: IpAddr,
        forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> Option<IpAddr> {
        if !self.has(peer) {
            return Some(peer);
        }
        for value in forwarded_for.rev() {
            for address in std::str::from_utf8(value).ok()?.rsplit(',') {
                let address: IpAddr = address.trim().parse().ok()?;
                if !self.has(address) {
                    return Some(address);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(peer: &str, forwarded: &[&str]) -> Option<String> {
        let hops = Hops::of(&["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
        let values = forwarded.iter().map(|value| value.as_bytes());
        let caller = hops.caller(peer.parse().unwrap(), values)?;
        Some(caller.to_string())
    }

    #[test]
    fn only_a_hop_says_who_asks_and_only_its_own_word_counts() {
        let stranger = caller("192.0.2.1", &["198.51.100.7"]);
        assert_eq!(stranger.as_deref(), Some("192.0.2.1"));
        for forwarded in [
            &["198.51.100.7"][..],
            &["203.0.113.9, 198.51.100.7"],
            &["203.0.113.9", "198.51.100.7"],
            &["nonsense, 198.51.100.7, 10.0.0.2"],
        ] {
            let caller = caller("10.0.0.1", forwarded);
            assert_eq!(caller.as_deref(), Some("198.51.100.7"), "{forwarded:?}");
        }
        for forwarded in [&[][..], &["198.51.100.7, nonsense"], &["10.0.0.2"]] {
            assert_eq!(caller("10.0.0.1", forwarded), None, "{forwarded:?}");
        }
        let mapped = caller("::ffff:10.0.0.1", &["198.51.100.7"]);
        assert_eq!(mapped.as_deref(), Some("198.51.100.7"));
    }
}
