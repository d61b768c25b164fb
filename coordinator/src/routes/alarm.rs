//! Tells, once, of what has been wrong for too long; and once when it is right again.

use std::time::Duration;

use tokio::time::Instant;

use super::Routes;
use crate::{causes::chain, doorbell::Ring};

/// That is how a frozen Traefik looks, or a Redis that is away.
const AFTER: Duration = Duration::from_secs(10);

/// An alarm about one thing.
pub(super) struct Alarm<'r> {
    routes: &'r Routes,
    /// What it is about, for people.
    subject: String,
    since: Option<Instant>,
    told: bool,
}

impl<'r> Alarm<'r> {
    pub(super) fn new(routes: &'r Routes, subject: String) -> Self {
        Self {
            routes,
            subject,
            since: None,
            told: false,
        }
    }

    /// Takes in what is wrong now, if anything.
    pub(super) async fn look(&mut self, trouble: Option<&'static str>) {
        if let Some(why) = trouble {
            let since = *self.since.get_or_insert_with(Instant::now);
            if !self.told && since.elapsed() >= AFTER {
                tracing::error!(subject = self.subject, why, "routes are not confirmed");
                self.told = self.tell("routes.unconfirmed", Some(why)).await;
            }
            return;
        }
        self.since = None;
        if self.told {
            tracing::info!(subject = self.subject, "routes are confirmed again");
            self.told = !self.tell("routes.confirmed", None).await;
        }
    }

    /// Whether it was told; if not, the next look tells.
    async fn tell(&self, kind: &str, why: Option<&str>) -> bool {
        let data = serde_json::json!({ "about": self.subject, "why": why });
        let now = self.routes.clock.now();
        let told = self.routes.store.events.tell(kind, data, now).await;
        if let Err(error) = &told {
            tracing::warn!(error = %chain(error), "an alarm was not written");
        }
        self.routes.doorbell.ring(Ring::Events);
        told.is_ok()
    }
}
