//! The gate: whether a request comes from someone who is signed in to exactly this instance.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::HeaderMap;
use tidepool_shared::id::InstanceId;

use super::{
    basic::{Password, Passwords},
    headers::{PASS, Visitor},
    host::Site,
    lookups::{Looked, Lookups},
    passes::Passes,
    sessions::{SessionHash, Sessions},
};
use crate::{
    ambient::{Chance, Clock},
    model::Route,
    store::{AccessStore, Stored},
};

/// How often a session that holds a connection open is looked up again.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// By what a request was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant {
    Session(SessionHash),
    Password,
    Pass,
    /// Nobody is signed in: a web hook, which shows the gateway a token or a signature.
    Hook,
}

impl Grant {
    pub(super) fn visitor(self) -> Visitor {
        match self {
            Self::Session(_) | Self::Password | Self::Pass => Visitor::Owner,
            Self::Hook => Visitor::Hook,
        }
    }
}

/// The gate's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed(Grant),
    SignInFirst,
    TooManyGuesses,
    TooManyLookups,
}

/// The gate.
pub(super) struct Gate {
    sessions: Sessions,
    passwords: Passwords,
    pub(super) passes: Passes,
}

impl Gate {
    pub(super) fn new(
        store: Arc<dyn AccessStore>,
        lookups: Arc<Lookups>,
        site: &Site,
        clock: Arc<dyn Clock>,
        chance: &Chance,
    ) -> Self {
        Self {
            sessions: Sessions::new(store, lookups, clock, site),
            passwords: Passwords::new(chance),
            passes: Passes::default(),
        }
    }

    /// Judges a request. An error of the store lets nobody in.
    pub(super) async fn judge(
        &self,
        headers: &HeaderMap,
        route: &Route,
        peer: IpAddr,
    ) -> Stored<Verdict> {
        if let Some(pass) = headers.get(PASS)
            && self.passes.spend(pass.as_bytes(), route.instance)
        {
            return Ok(Verdict::Allowed(Grant::Pass));
        }
        let opening = self.sessions.opening(headers, route.instance, peer);
        match opening.await? {
            Looked::Found(hash) => return Ok(Verdict::Allowed(Grant::Session(hash))),
            Looked::NotNow => return Ok(Verdict::TooManyLookups),
            Looked::Nothing => {}
        }
        let Some(stored) = &route.basic_auth else {
            return Ok(Verdict::SignInFirst);
        };
        let password = self.passwords.check(headers, stored, route.instance, peer);
        Ok(match password.await {
            Password::Right => Verdict::Allowed(Grant::Password),
            Password::Wrong | Password::Absent => Verdict::SignInFirst,
            Password::NotChecked => Verdict::TooManyGuesses,
        })
    }

    /// Whether what let a connection in still would. Basic auth and passes need no look: a changed
    /// credential cancels the instance's token, a pass never opens a WebSocket for long.
    async fn still_holds(&self, grant: Grant, instance: InstanceId) -> Stored<bool> {
        match grant {
            Grant::Session(hash) => self.sessions.opens(hash, instance).await,
            Grant::Password | Grant::Pass => Ok(true),
            // A POST, which no WebSocket begins with.
            Grant::Hook => Ok(false),
        }
    }

    /// Ends when what let a visitor in does not hold any more. A store that does not answer ends nothing: the
    /// connection was allowed, and nothing says that it is not.
    pub(super) async fn until_void(&self, grant: Grant, instance: InstanceId) {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            if matches!(self.still_holds(grant, instance).await, Ok(false)) {
                return;
            }
        }
    }

    /// The shown session that opens this instance, if any.
    pub(super) async fn session(
        &self,
        headers: &HeaderMap,
        instance: InstanceId,
        peer: IpAddr,
    ) -> Stored<Looked<SessionHash>> {
        self.sessions.opening(headers, instance, peer).await
    }

    pub(super) fn forget_sessions(&self, instance: InstanceId) {
        self.sessions.forget(instance);
    }
}
