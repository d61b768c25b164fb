//! One-time passes for the coordinator's own probe, so that it meets the very path that the owner
//! will. They exist in this process only, open one instance, once, and for a short while.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tidepool_shared::{document::Digest, id::InstanceId};
use tokio::time::Instant;

use crate::ambient::Chance;

const VALID_FOR: Duration = Duration::from_secs(10);
/// Probes under way at the same time are far fewer.
const ISSUED_MAX: usize = 1024;

/// Passes that were issued and not used.
#[derive(Default)]
pub(super) struct Passes(Mutex<HashMap<[u8; 32], (InstanceId, Instant)>>);

impl Passes {
    /// The secret of a new pass; `None` when too many are out.
    pub(super) fn issue(&self, instance: InstanceId, chance: &Chance) -> Option<String> {
        let secret = chance.secret();
        let mut issued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if issued.len() >= ISSUED_MAX {
            issued.retain(|_, (_, at)| at.elapsed() < VALID_FOR);
        }
        if issued.len() >= ISSUED_MAX {
            return None;
        }
        issued.insert(Digest::of(secret.as_bytes()).0, (instance, Instant::now()));
        Some(secret)
    }

    /// Spends a pass. Looked up by its hash, so that time tells nothing of the secret.
    pub(super) fn spend(&self, secret: &[u8], instance: InstanceId) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&Digest::of(secret).0)
            .is_some_and(|(of, at)| of == instance && at.elapsed() < VALID_FOR)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_pass_opens_its_instance_once() {
        let (passes, chance) = (Passes::default(), Chance::from_seed(1));
        let [a, b] = [1, 2].map(|number| InstanceId::new(Uuid::from_u128(number)));
        let pass = passes.issue(a, &chance).unwrap();
        assert!(passes.spend(pass.as_bytes(), a));
        assert!(!passes.spend(pass.as_bytes(), a));
        let pass = passes.issue(a, &chance).unwrap();
        assert!(!passes.spend(pass.as_bytes(), b));
    }
}
