//! Browser sessions: from cookie to instance, with a short memory of what the store said.
//!
//! Only good answers are remembered, for less than two seconds, and forgotten at once when the
//! doorbell tells of the instance; so a deleted session stops working even if the ring is lost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, header};
use tidepool_shared::{document::Digest, id::InstanceId};
use tokio::time::Instant;

use super::host::Site;
use crate::{
    ambient::Clock,
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
    clock: Arc<dyn Clock>,
    cookie: &'static str,
    remembered: Mutex<HashMap<SessionHash, (InstanceId, Instant)>>,
}

impl Sessions {
    pub(super) fn new(store: Arc<dyn AccessStore>, clock: Arc<dyn Clock>, site: &Site) -> Self {
        Self {
            store,
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
    ) -> Stored<Option<SessionHash>> {
        for secret in shown(headers, self.cookie).take(COOKIES_MAX) {
            let hash = Digest::of(secret.as_bytes()).0;
            if self.opens(hash, instance).await? {
                return Ok(Some(hash));
            }
        }
        Ok(None)
    }

    /// Whether this session opens exactly this instance now.
    pub(super) async fn opens(&self, hash: SessionHash, instance: InstanceId) -> Stored<bool> {
        if let Some(opened) = self.recall(&hash) {
            return Ok(opened == instance);
        }
        let asked = Instant::now();
        let opened = self.store.session(hash, self.clock.now()).await?;
        if let Some(opened) = opened {
            self.remember(hash, opened, asked);
        }
        Ok(opened == Some(instance))
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

/// The session secrets among the cookies.
fn shown<'h>(headers: &'h HeaderMap, cookie: &'h str) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(move |(name, _)| *name == cookie)
        .map(|(_, secret)| secret)
}
