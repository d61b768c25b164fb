//! Connection ids that a restarted coordinator knows for its own, and does not give out again.
//!
//! A packet with the id of a connection that is gone is answered with a reset, if the id bears the key's
//! mark. quinn's own marked ids have 24 random bits. That is too few for a fleet: among the ids that ten
//! thousand links are given after a restart there are some that other agents still use from before, and
//! what those send is taken for the new connection's, is not readable as such, and is never answered.

use std::sync::Arc;

use aws_lc_rs::hmac;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

use crate::ambient::Chance;

const NONCE_LEN: usize = 8;
const MARK_LEN: usize = 4;

/// Random ids, each with a mark.
#[derive(Clone)]
pub(super) struct MarkedIds {
    key: hmac::Key,
    chance: Arc<Chance>,
}

impl MarkedIds {
    pub(super) fn new(key: u64, chance: Arc<Chance>) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key.to_be_bytes()),
            chance,
        }
    }

    fn marked(&self, nonce: &[u8]) -> Vec<u8> {
        let mark = hmac::sign(&self.key, nonce);
        let mark = mark.as_ref().iter().take(MARK_LEN);
        nonce.iter().chain(mark).copied().collect()
    }
}

impl ConnectionIdGenerator for MarkedIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let nonce = self.chance.below(u64::MAX).to_be_bytes();
        ConnectionId::new(&self.marked(&nonce))
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let nonce = id.get(..NONCE_LEN).ok_or(InvalidCid)?;
        if self.marked(nonce) == **id {
            Ok(())
        } else {
            Err(InvalidCid)
        }
    }

    fn cid_len(&self) -> usize {
        NONCE_LEN + MARK_LEN
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ids(key: u64, seed: u64) -> MarkedIds {
        MarkedIds::new(key, Arc::new(Chance::from_seed(seed)))
    }

    #[test]
    fn an_id_is_known_after_a_restart_and_not_by_another_coordinator() {
        let id = ids(1, 1).generate_cid();
        assert_eq!(id.len(), ids(1, 1).cid_len());
        assert!(ids(1, 2).validate(&id).is_ok());
        assert!(ids(2, 1).validate(&id).is_err());
        assert!(ids(1, 2).validate(&ConnectionId::new(&[7; 3])).is_err());
    }

    #[test]
    fn ids_from_before_and_after_a_restart_do_not_meet() {
        let (mut before, mut after) = (ids(1, 1), ids(1, 2));
        let used: HashSet<_> = (0..50_000).map(|_| before.generate_cid()).collect();
        assert!((0..50_000).all(|_| !used.contains(&after.generate_cid())));
    }
}
