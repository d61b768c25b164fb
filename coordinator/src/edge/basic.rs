//! HTTP basic auth: bcrypt is slow on purpose, so right answers are remembered and guesses counted.
//!
//! What is remembered is a hash under a key of this process over the stored credential and what was
//! presented: a changed credential forgets by itself, and memory holds no password.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tidepool_shared::id::InstanceId;
use tokio::{sync::Semaphore, time::timeout};

use super::guesses::Guesses;
use crate::ambient::Chance;

const REMEMBERED_MAX: usize = 4096;
/// Hashes computed at the same time: the rest of the machine serves.
const HASHERS: usize = 2;
/// How long a password waits for its turn.
const HASHER_WAIT: Duration = Duration::from_secs(5);
/// More than bcrypt reads, less than harm.
const CREDENTIAL_MAX_BYTES: usize = 512;

/// What became of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Password {
    Right,
    Wrong,
    /// None was given.
    Absent,
    /// Too many were wrong lately, or wait to be looked at: this one was not.
    NotChecked,
}

/// Checks passwords.
pub(super) struct Passwords {
    key: String,
    remembered: Mutex<HashSet<[u8; 32]>>,
    guesses: Guesses,
    hashers: Arc<Semaphore>,
}

impl Passwords {
    pub(super) fn new(chance: &Chance) -> Self {
        Self {
            key: chance.secret(),
            remembered: Mutex::default(),
            guesses: Guesses::default(),
            hashers: Arc::new(Semaphore::new(HASHERS)),
        }
    }

    /// Compares what was presented with `user:bcrypt`.
    pub(super) async fn check(
        &self,
        headers: &HeaderMap,
        stored: &str,
        instance: InstanceId,
        peer: IpAddr,
    ) -> Password {
        let Some((user, password)) = presented(headers) else {
            return Password::Absent;
        };
        let fingerprint = self.fingerprint(stored, &user, &password);
        if self.remembers(&fingerprint) {
            return Password::Right;
        }
        if !self.guesses.take(instance, peer) {
            return Password::NotChecked;
        }
        let outcome = self.compare(stored.to_owned(), user, password).await;
        if outcome != Password::Wrong {
            self.guesses.give_back(instance, peer);
        }
        if outcome == Password::Right {
            self.remember(fingerprint);
        }
        outcome
    }

    /// A wrong user name costs a whole hash, too, so that time tells nothing.
    async fn compare(&self, stored: String, user: String, password: String) -> Password {
        let turn = Arc::clone(&self.hashers).acquire_owned();
        let Ok(Ok(hasher)) = timeout(HASHER_WAIT, turn).await else {
            return Password::NotChecked;
        };
        let is_right = tokio::task::spawn_blocking(move || {
            // Kept by the hash, which runs on when its client is gone.
            let _hasher = hasher;
            let Some((name, hash)) = stored.split_once(':') else {
                return false;
            };
            let right_password = bcrypt::verify(password, hash).unwrap_or(false);
            let right_name: bool = name.as_bytes().ct_eq(user.as_bytes()).into();
            right_name & right_password
        })
        .await
        .unwrap_or(false);
        if is_right {
            Password::Right
        } else {
            Password::Wrong
        }
    }

    fn fingerprint(&self, stored: &str, user: &str, password: &str) -> [u8; 32] {
        [self.key.as_str(), stored, user, password]
            .iter()
            .fold(Sha256::new(), |hash, part| {
                hash.chain_update(part.len().to_be_bytes())
                    .chain_update(part)
            })
            .finalize()
            .into()
    }

    fn remembers(&self, fingerprint: &[u8; 32]) -> bool {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(fingerprint)
    }

    fn remember(&self, fingerprint: [u8; 32]) {
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(fingerprint);
    }
}

/// User and password of the request.
fn presented(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > CREDENTIAL_MAX_BYTES {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::HeaderValue;
    use uuid::Uuid;

    use super::*;

    const OWNER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn basic(text: &str) -> HeaderMap {
        let value = format!("Basic {}", BASE64_STANDARD.encode(text));
        HeaderMap::from_iter([(
            header::AUTHORIZATION,
            HeaderValue::from_str(&value).unwrap(),
        )])
    }

    fn stored(password: &str) -> String {
        format!("ann:{}", bcrypt::hash(password, 4).unwrap())
    }

    #[tokio::test]
    async fn the_right_password_passes_and_any_other_does_not() {
        let passwords = Passwords::new(&Chance::from_seed(1));
        let (stored, id) = (stored("pw"), InstanceId::new(Uuid::from_u128(1)));
        let check = async |text: &str| passwords.check(&basic(text), &stored, id, OWNER).await;
        assert_eq!(check("ann:pw").await, Password::Right);
        assert_eq!(check("ann:pw").await, Password::Right);
        assert_eq!(check("ann:px").await, Password::Wrong);
        assert_eq!(check("bob:pw").await, Password::Wrong);
        assert_eq!(
            passwords.check(&HeaderMap::new(), &stored, id, OWNER).await,
            Password::Absent
        );
    }

    #[tokio::test]
    async fn a_changed_password_is_not_remembered() {
        let passwords = Passwords::new(&Chance::from_seed(1));
        let id = InstanceId::new(Uuid::from_u128(1));
        let old = basic("ann:old");
        assert_eq!(
            passwords.check(&old, &stored("old"), id, OWNER).await,
            Password::Right
        );
        assert_eq!(
            passwords.check(&old, &stored("new"), id, OWNER).await,
            Password::Wrong
        );
    }

    #[tokio::test]
    async fn guessing_is_stopped_for_one_peer_at_one_instance_and_the_known_password_still_passes()
    {
        let passwords = Passwords::new(&Chance::from_seed(1));
        let (stored, id) = (stored("pw"), InstanceId::new(Uuid::from_u128(1)));
        assert_eq!(
            passwords.check(&basic("ann:pw"), &stored, id, OWNER).await,
            Password::Right
        );
        let mut last = Password::Wrong;
        for guess in 0..=10 {
            last = passwords
                .check(&basic(&format!("ann:{guess}")), &stored, id, STRANGER)
                .await;
        }
        assert_eq!(last, Password::NotChecked);
        assert_eq!(
            passwords.check(&basic("ann:pw"), &stored, id, OWNER).await,
            Password::Right
        );
        let other = InstanceId::new(Uuid::from_u128(2));
        assert_eq!(
            passwords
                .check(&basic("ann:no"), &stored, other, STRANGER)
                .await,
            Password::Wrong
        );
    }
}
