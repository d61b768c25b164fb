//! HTTP basic auth: bcrypt is slow on purpose, so right answers are remembered and guesses counted.
//!
//! What is remembered is a hash under a key of this process over the stored credential and what was
//! presented: a changed credential forgets by itself, and memory holds no password.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tidepool_shared::id::InstanceId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::guesses::Guesses;
use crate::ambient::Chance;

/// Instances whose right answer is remembered.
const REMEMBERED_MAX: usize = 64 * 1024;
/// Hashes computed at the same time: the rest of the machine serves.
const HASHERS: usize = 2;
/// How long a password waits for its turn.
const HASHER_WAIT: Duration = Duration::from_secs(5);
/// Turns that nobody has or waits for are forgotten when there are more.
const TURNS_KEPT: usize = 1024;
/// User and password, in base 64.
const CREDENTIAL_MAX_BYTES: usize = 512;
/// bcrypt reads no further: whatever is longer would be another way to say the same.
const PASSWORD_MAX_BYTES: usize = 72;

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
    /// There is one right answer at a time, and nobody can have another's forgotten.
    remembered: Mutex<HashMap<InstanceId, Fingerprint>>,
    guesses: Guesses,
    turns: Turns,
    hashers: Arc<Semaphore>,
}

type Fingerprint = [u8; 32];

impl Passwords {
    pub(super) fn new(chance: &Chance) -> Self {
        Self {
            key: chance.secret(),
            remembered: Mutex::default(),
            guesses: Guesses::default(),
            turns: Turns::default(),
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
        if self.remembers(instance, &fingerprint) {
            return Password::Right;
        }
        if !self.guesses.take(instance, peer) {
            return Password::NotChecked;
        }
        let outcome = match self.turn(instance).await {
            None => Password::NotChecked,
            // Whoever was before may have brought the same.
            Some(_) if self.remembers(instance, &fingerprint) => Password::Right,
            Some(turn) => compare(turn, stored.to_owned(), user, password).await,
        };
        if outcome != Password::Wrong {
            self.guesses.give_back(instance, peer);
        }
        if outcome == Password::Right {
            self.remember(instance, fingerprint);
        }
        outcome
    }

    /// One password of an instance is looked at after the other, so that no instance has all hashers.
    async fn turn(&self, instance: InstanceId) -> Option<Turn> {
        let waiting = async {
            let of_instance = self.turns.of(instance).acquire_owned().await.ok()?;
            let hasher = Arc::clone(&self.hashers).acquire_owned().await.ok()?;
            Some(Turn {
                _of_instance: of_instance,
                _hasher: hasher,
            })
        };
        timeout(HASHER_WAIT, waiting).await.ok().flatten()
    }

    fn fingerprint(&self, stored: &str, user: &str, password: &str) -> Fingerprint {
        [self.key.as_str(), stored, user, password]
            .iter()
            .fold(Sha256::new(), |hash, part| {
                hash.chain_update(part.len().to_be_bytes())
                    .chain_update(part)
            })
            .finalize()
            .into()
    }

    fn remembers(&self, instance: InstanceId, fingerprint: &Fingerprint) -> bool {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&instance)
            .is_some_and(|known| known == fingerprint)
    }

    fn remember(&self, instance: InstanceId, fingerprint: Fingerprint) {
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX && !remembered.contains_key(&instance) {
            let any = remembered.keys().next().copied();
            any.and_then(|any| remembered.remove(&any));
        }
        remembered.insert(instance, fingerprint);
    }
}

/// Held while a password is hashed.
struct Turn {
    _of_instance: OwnedSemaphorePermit,
    _hasher: OwnedSemaphorePermit,
}

/// Whose turn it is at each instance.
#[derive(Default)]
struct Turns(Mutex<HashMap<InstanceId, Weak<Semaphore>>>);

impl Turns {
    fn of(&self, instance: InstanceId) -> Arc<Semaphore> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= TURNS_KEPT {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        if let Some(turn) = turns.get(&instance).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Semaphore::new(1));
        turns.insert(instance, Arc::downgrade(&turn));
        turn
    }
}

/// A wrong user name costs a whole hash, too, so that time tells nothing.
async fn compare(turn: Turn, stored: String, user: String, password: String) -> Password {
    let is_right = tokio::task::spawn_blocking(move || {
        // Kept by the hash, which runs on when its client is gone.
        let _turn = turn;
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

/// User and password of the request. bcrypt repeats a short password with a zero byte between, so one with such
/// a byte could be another way to say the same, too.
fn presented(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > CREDENTIAL_MAX_BYTES {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    if password.len() > PASSWORD_MAX_BYTES || password.contains('\0') {
        return None;
    }
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

    /// Each would cost a hash and be forgiven, as it is right.
    #[tokio::test]
    async fn a_password_is_said_in_one_way_only() {
        let passwords = Passwords::new(&Chance::from_seed(1));
        let id = InstanceId::new(Uuid::from_u128(1));
        let long = "x".repeat(PASSWORD_MAX_BYTES);
        let (of_long, of_short) = (stored(&long), stored("pw"));
        for (text, stored, expected) in [
            (format!("ann:{long}"), &of_long, Password::Right),
            (format!("ann:{long}y"), &of_long, Password::Absent),
            ("ann:pw".to_owned(), &of_short, Password::Right),
            ("ann:pw\0pw".to_owned(), &of_short, Password::Absent),
        ] {
            let judged = passwords.check(&basic(&text), stored, id, OWNER).await;
            assert_eq!(judged, expected, "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_has_one_hasher_and_leaves_the_others_theirs() {
        let passwords = Passwords::new(&Chance::from_seed(1));
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (one, other) = (InstanceId::new(one), InstanceId::new(other));
        let held = passwords.turn(one).await;
        assert!(held.is_some());
        assert!(passwords.turn(one).await.is_none(), "after waiting in vain");
        assert!(passwords.turn(other).await.is_some());
        drop(held);
        assert!(passwords.turn(one).await.is_some());
    }

    #[tokio::test]
    async fn no_instance_has_what_others_know_forgotten() {
        let passwords = Passwords::new(&Chance::from_seed(1));
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (one, other) = (InstanceId::new(one), InstanceId::new(other));
        passwords.remember(one, [1; 32]);
        for number in 0..=u8::MAX {
            passwords.remember(other, [number; 32]);
        }
        assert!(passwords.remembers(one, &[1; 32]));
        assert!(!passwords.remembers(other, &[1; 32]));
        assert_eq!(passwords.remembered.lock().unwrap().len(), 2);
    }
}
