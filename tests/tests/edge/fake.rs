//! What edge and routes read of a store, in memory: a small working thing, not a list of expectations.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use async_trait::async_trait;
use tidepool_coordinator::{
    ambient::Moment,
    model::{ApiToken, Certificate, CertificateMark, Destination, Route},
    store::{AccessStore, CertificateStore, Idempotency, RouteStore, Stored, Transition},
};
use tidepool_shared::id::{InstanceId, TokenId};

#[derive(Default)]
pub(crate) struct State {
    pub(crate) routes: Vec<Route>,
    pub(crate) destinations: Vec<Destination>,
    pub(crate) links: HashMap<[u8; 32], InstanceId>,
    pub(crate) sessions: HashMap<[u8; 32], InstanceId>,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) challenges: HashMap<String, String>,
    /// How often a session, a link or a challenge was asked for.
    pub(crate) lookups: usize,
}

#[derive(Default)]
pub(crate) struct FakeStore {
    state: Mutex<State>,
    /// Whoever has it holds up the looks for sessions.
    pub(crate) held: tokio::sync::Mutex<()>,
}

impl FakeStore {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

#[async_trait]
impl RouteStore for FakeStore {
    async fn routes(&self) -> Stored<Vec<Route>> {
        Ok(self.state().routes.clone())
    }

    async fn routes_of(&self, id: InstanceId) -> Stored<Vec<Route>> {
        let mut routes = self.state().routes.clone();
        routes.retain(|route| route.instance == id);
        Ok(routes)
    }

    async fn destinations(&self) -> Stored<Vec<Destination>> {
        Ok(self.state().destinations.clone())
    }
}

#[async_trait]
impl CertificateStore for FakeStore {
    async fn certificate_marks(
        &self,
        instance: Option<InstanceId>,
    ) -> Stored<Vec<CertificateMark>> {
        let state = self.state();
        let certificates = state.certificates.iter();
        let asked = certificates.filter(|it| instance.is_none_or(|asked| asked == it.instance));
        let marks = asked.map(|certificate| CertificateMark {
            name: certificate.name.clone(),
            instance: certificate.instance,
            issued_at: certificate.validity.issued_at,
        });
        Ok(marks.collect())
    }

    async fn certificate(&self, name: &str, _: InstanceId) -> Stored<Option<Certificate>> {
        let state = self.state();
        let mut certificates = state.certificates.iter();
        Ok(certificates.find(|it| it.name == name).cloned())
    }

    async fn challenge(&self, token: &str, _: Moment) -> Stored<Option<String>> {
        let mut state = self.state();
        state.lookups += 1;
        Ok(state.challenges.get(token).cloned())
    }
}

#[async_trait]
impl AccessStore for FakeStore {
    async fn create_login_link(
        &self,
        secret_hash: [u8; 32],
        instance: InstanceId,
        _expires: Moment,
        _now: Moment,
    ) -> Stored<()> {
        self.state().links.insert(secret_hash, instance);
        Ok(())
    }

    async fn redeem_login_link(
        &self,
        secret_hash: [u8; 32],
        instance: InstanceId,
        session_hash: [u8; 32],
        _session_expires: Moment,
        _now: Moment,
    ) -> Stored<bool> {
        let mut state = self.state();
        state.lookups += 1;
        if state.links.get(&secret_hash) != Some(&instance) {
            return Ok(false);
        }
        state.links.remove(&secret_hash);
        state.sessions.insert(session_hash, instance);
        Ok(true)
    }

    async fn session(&self, session_hash: [u8; 32], _now: Moment) -> Stored<Option<InstanceId>> {
        self.state().lookups += 1;
        drop(self.held.lock().await);
        Ok(self.state().sessions.get(&session_hash).copied())
    }

    async fn end_sessions(
        &self,
        instance: InstanceId,
        session_hash: Option<[u8; 32]>,
    ) -> Stored<u64> {
        let mut state = self.state();
        let before = state.sessions.len();
        state.sessions.retain(|hash, of| {
            *of != instance || session_hash.is_some_and(|wanted| wanted != *hash)
        });
        Ok(u64::try_from(before - state.sessions.len()).unwrap_or(u64::MAX))
    }

    async fn create_api_token(&self, _: &ApiToken) -> Stored<()> {
        unreachable!("the edge knows no API tokens")
    }

    async fn api_token(&self, _: TokenId) -> Stored<Option<ApiToken>> {
        unreachable!("the edge knows no API tokens")
    }

    async fn api_tokens(&self) -> Stored<Vec<ApiToken>> {
        unreachable!("the edge knows no API tokens")
    }

    async fn revoke_api_token(&self, _: TokenId, _: Moment) -> Stored<Transition> {
        unreachable!("the edge knows no API tokens")
    }

    async fn begin_idempotent(
        &self,
        _: TokenId,
        _: &str,
        _: [u8; 32],
        _: Moment,
    ) -> Stored<Idempotency> {
        unreachable!("the edge knows no idempotency keys")
    }

    async fn finish_idempotent(
        &self,
        _: TokenId,
        _: &str,
        _: u16,
        _: &str,
        _: Moment,
    ) -> Stored<()> {
        unreachable!("the edge knows no idempotency keys")
    }

    async fn abandon_idempotent(&self, _: TokenId, _: &str) -> Stored<()> {
        unreachable!("the edge knows no idempotency keys")
    }

    async fn forget_expired(&self, _: Moment) -> Stored<u64> {
        unreachable!("the edge forgets nothing in the store")
    }
}
