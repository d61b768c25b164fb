//! So many at a time for each of many: connections of an address, WebSockets of an instance.
//!
//! Without it whoever comes first and often takes the places that all share.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// The places that each one may take. It remembers only those that hold some.
#[derive(Debug)]
pub struct Quota<K> {
    each: usize,
    taken: Mutex<HashMap<K, usize>>,
}

/// A place, given back by dropping it.
#[derive(Debug)]
pub struct Place<K: Copy + Eq + Hash> {
    quota: Arc<Quota<K>>,
    whose: K,
}

impl<K: Copy + Eq + Hash> Quota<K> {
    pub fn new(each: usize) -> Arc<Self> {
        Arc::new(Self {
            each,
            taken: Mutex::default(),
        })
    }

    /// A place of this one's, if there is one left.
    pub fn take(self: &Arc<Self>, whose: K) -> Option<Place<K>> {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = all.get(&whose).copied().unwrap_or(0);
        if taken >= self.each {
            return None;
        }
        all.insert(whose, taken.saturating_add(1));
        Some(Place {
            quota: Arc::clone(self),
            whose,
        })
    }
}

impl<K: Copy + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut all = self
            .quota
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let left = all
            .get(&self.whose)
            .map_or(0, |taken| taken.saturating_sub(1));
        if left == 0 {
            all.remove(&self.whose);
        } else {
            all.insert(self.whose, left);
        }
    }
}

/// Whom an address belongs to, as far as can be told: an IPv6 host has a whole /64 to choose from.
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_took_all_its_places_leaves_those_of_others() {
        let quota = Quota::new(2);
        let (first, _second) = (quota.take('a').unwrap(), quota.take('a').unwrap());
        assert!(quota.take('a').is_none());
        let other = quota.take('b').unwrap();
        drop(first);
        let _third = quota.take('a').unwrap();
        assert!(quota.take('a').is_none());
        drop(other);
        assert_eq!(quota.taken.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_host_cannot_multiply_by_its_own_addresses() {
        let of = |address: &str| neighbourhood(address.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
