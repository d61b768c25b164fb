//! Routes for Traefik: keeps its configuration in Redis true to the store.
//!
//! There is one router a server, staged while the server is nobody's, so that a claim overwrites one key.
//! Every router asks the edge about each request ([`crate::edge`]); what Traefik does not know, or not
//! yet, falls to a wildcard route to the edge, which serves it itself. So nothing here is ever in the way
//! of a claim, and a Redis that is down, hung, empty or behind costs nobody an answer.
//!
//! Traefik is told by one hand-made `PUBLISH` a batch: key events would make it list everything once for
//! each key. What to write is decided by [`plan`]; this module reads, asks, writes and waits, and holds no
//! choices. It runs under the lease. Way not taken: Traefik's HTTP provider, which is atomic, but leaves a
//! Traefik that restarts while no coordinator answers without any route.

use std::sync::Arc;

use futures_util::future::join_all;
use reqwest::Client;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    ambient::Clock,
    doorbell::Doorbell,
    store::{EventStore, RouteStore, Store},
};

mod alarm;
mod api;
mod inspect;
mod plan;
mod sink;
mod tree;
mod witness;
mod writer;

use self::{
    alarm::Alarm,
    api::Api,
    witness::{Asked, Witness},
    writer::Writer,
};
pub use self::{
    inspect::inspect,
    sink::{InvalidUrl, RedisUrl},
    tree::{EDGES, ROOT, SERVER, SIGN_IN, TRANSPORT},
};

/// Where routes are written, and who must have read them.
#[derive(Debug, Clone)]
pub struct RoutesSettings {
    pub redis: RedisUrl,
    /// Base URLs of every Traefik's API.
    pub traefik: Vec<String>,
    /// Where nginx listens on every server.
    pub server_port: u16,
}

/// What is read of the store, and where alarms go.
#[derive(Clone)]
pub struct RoutesStore {
    pub routes: Arc<dyn RouteStore>,
    pub events: Arc<dyn EventStore>,
}

impl From<Arc<dyn Store>> for RoutesStore {
    fn from(store: Arc<dyn Store>) -> Self {
        Self {
            routes: Arc::clone(&store) as Arc<dyn RouteStore>,
            events: store,
        }
    }
}

/// The routes reconciler.
pub struct Routes {
    settings: RoutesSettings,
    store: RoutesStore,
    doorbell: Doorbell,
    clock: Arc<dyn Clock>,
    http: Client,
}

impl Routes {
    pub fn new(
        settings: RoutesSettings,
        store: impl Into<RoutesStore>,
        doorbell: Doorbell,
        clock: Arc<dyn Clock>,
    ) -> reqwest::Result<Self> {
        Ok(Self {
            settings,
            store: store.into(),
            doorbell,
            clock,
            http: Api::client()?,
        })
    }

    /// Runs until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let stirred = Arc::new(Notify::new());
        let (asked, questions) = watch::channel(Asked {
            revision: None,
            since: Instant::now(),
            staged: Arc::default(),
        });
        let witness = |url: &String| {
            let api = Api::new(url, self.http.clone());
            Witness::new(api, questions.clone(), Arc::clone(&stirred))
        };
        let (witnesses, seen): (Vec<_>, Vec<_>) = self.settings.traefik.iter().map(witness).unzip();
        let looks = self
            .settings
            .traefik
            .iter()
            .zip(witnesses)
            .map(|(url, witness)| {
                let alarm = Alarm::new(self, format!("Traefik at {url}"));
                witness.run(alarm, cancel.clone())
            });
        let writer = Writer::new(self, asked, seen, stirred);
        tokio::join!(writer.run(&cancel), join_all(looks));
    }
}
