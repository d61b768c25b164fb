//! Tells, once, of what has been wrong for too long; and once when it is right again.

use std::{borrow::Cow, time::Duration};

use tokio::time::Instant;

use super::Routes;
use crate::{causes::chain, doorbell::Ring};

/// That is how a frozen Traefik looks, or a Redis that is away.
pub(super) const AFTER: Duration = Duration::from_secs(10);

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) why: Cow<'static, str>,
    /// When it began; with the first look that finds it, if that is not known.
    pub(super) since: Option<Instant>,
}

impl From<&'static str> for Trouble {
    fn from(why: &'static str) -> Self {
        Self {
            why: why.into(),
            since: None,
        }
    }
}

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
    pub(super) async fn look(&mut self, trouble: Option<Trouble>) {
        if let Some(Trouble { why, since }) = trouble {
            let found = *self.since.get_or_insert_with(Instant::now);
            if !self.told && since.unwrap_or(found).elapsed() >= AFTER {
                tracing::error!(subject = self.subject, %why, "routes are not confirmed");
                self.told = self.tell("routes.unconfirmed", Some(&why)).await;
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
