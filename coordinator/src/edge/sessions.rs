//! Browser sessions: from cookie to instance, with a short memory of what the store said.
//!
//! Only good answers are remembered, for less than two seconds, and forgotten at once when the
//! doorbell tells of the instance; so a deleted session stops working even if the ring is lost. What is made up
//! is paced ([`Lookups`]).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, header};
use tidepool_shared::{document::Digest, id::InstanceId};
use tokio::time::Instant;

use super::{
    host::Site,
    lookups::{Looked, Lookups},
};
use crate::{
    ambient::{Clock, SECRET_CHARS},
    store::{AccessStore, Stored},
};

/// The session cookie's name where there is no TLS: on one machine only.
const PLAIN: &str = "tidepool_session";
/// By https. With this prefix browsers take it from this very host only, so no neighbour on a sibling
/// host name can plant one.
const PREFIXED: &str = "__Host-tidepool_session";

/// SHA-256 of a session's secret: all that is kept of it.
pub(super) type SessionHash = [u8; 32];

const REMEMBERED_FOR: Duration = Duration::from_millis(1500);
const REMEMBERED_MAX: usize = 8192;
/// A neighbour on a sibling host name can set cookies for the common domain; so a visitor may show
/// several sessions, and the right one counts. More than this are not looked at.
const COOKIES_MAX: usize = 4;

/// Who opens what.
pub(super) struct Sessions {
    store: Arc<dyn AccessStore>,
    lookups: Arc<Lookups>,
    clock: Arc<dyn Clock>,
    cookie: &'static str,
    remembered: Mutex<HashMap<SessionHash, (InstanceId, Instant)>>,
}

impl Sessions {
    pub(super) fn new(
        store: Arc<dyn AccessStore>,
        lookups: Arc<Lookups>,
        clock: Arc<dyn Clock>,
        site: &Site,
    ) -> Self {
        Self {
            store,
            lookups,
            clock,
            cookie: name(site),
            remembered: Mutex::default(),
        }
    }

    /// The shown session that opens this instance, if any.
    pub(super) async fn opening(
        &self,
        headers: &HeaderMap,
        instance: InstanceId,
        peer: IpAddr,
    ) -> Stored<Looked<SessionHash>> {
        for secret in shown(headers, self.cookie).take(COOKIES_MAX) {
            let hash = Digest::of(secret.as_bytes()).0;
            let opened = match self.recall(&hash) {
                Some(opened) => Looked::Found(opened),
                None => self.lookups.look(peer, self.ask(hash)).await?,
            };
            match opened {
                Looked::Found(opened) if opened == instance => return Ok(Looked::Found(hash)),
                Looked::Found(_) | Looked::Nothing => {}
                Looked::NotNow => return Ok(Looked::NotNow),
            }
        }
        Ok(Looked::Nothing)
    }

    /// Whether this session opens exactly this instance now.
    pub(super) async fn opens(&self, hash: SessionHash, instance: InstanceId) -> Stored<bool> {
        let opened = match self.recall(&hash) {
            Some(opened) => Some(opened),
            None => self.ask(hash).await?,
        };
        Ok(opened == Some(instance))
    }

    async fn ask(&self, hash: SessionHash) -> Stored<Option<InstanceId>> {
        let asked = Instant::now();
        let opened = self.store.session(hash, self.clock.now()).await?;
        if let Some(opened) = opened {
            self.remember(hash, opened, asked);
        }
        Ok(opened)
    }

    /// Forgets what opens this instance.
    pub(super) fn forget(&self, instance: InstanceId) {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, (opened, _)| *opened != instance);
    }

    fn recall(&self, hash: &SessionHash) -> Option<InstanceId> {
        let remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (instance, asked) = remembered.get(hash)?;
        (asked.elapsed() < REMEMBERED_FOR).then_some(*instance)
    }

    fn remember(&self, hash: SessionHash, instance: InstanceId, asked: Instant) {
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, (_, asked)| asked.elapsed() < REMEMBERED_FOR);
        }
        if remembered.len() < REMEMBERED_MAX {
            remembered.insert(hash, (instance, asked));
        }
    }
}

/// The cookie's text. Without `Domain`, so that no other host name gets it.
pub(super) fn cookie(site: &Site, secret: &str, life: Duration) -> String {
    let (name, max_age) = (name(site), life.as_secs());
    let secure = if site.https() { "; Secure" } else { "" };
    format!("{name}={secret}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}")
}

/// The text that makes a browser forget it.
pub(super) fn no_cookie(site: &Site) -> String {
    cookie(site, "", Duration::ZERO)
}

/// Whether a cookie of this name is the edge's alone, by whichever scheme.
pub(super) fn is_ours(name: &str) -> bool {
    [PLAIN, PREFIXED].contains(&name)
}

fn name(site: &Site) -> &'static str {
    if site.https() { PREFIXED } else { PLAIN }
}

/// The session secrets among the cookies: what is as long as ours.
fn shown<'h>(headers: &'h HeaderMap, cookie: &'h str) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(move |(name, _)| *name == cookie)
        .map(|(_, secret)| secret)
        .filter(|secret| secret.len() == SECRET_CHARS)
}
