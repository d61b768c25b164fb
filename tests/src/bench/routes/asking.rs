//! One way to a server, and whether its answer is the right one.

use reqwest::{Client, StatusCode};

use crate::front::Told;

/// By which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Past everything, as no visitor can.
    Direct,
    Edge,
    Traefik,
    /// Through Traefik to the edge, without a route of Redis': as everything is where there are too many for that, and
    /// a stream of events always.
    Wildcard,
}

/// As whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    AsOwner,
    /// Nobody has to sign in for it.
    AsHook,
}

/// Whom is asked, and what must come back.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) host: String,
    pub(super) server: String,
    pub(super) proof: String,
    pub(super) cookie: String,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The instance's own server gave it.
    pub(super) is_right: bool,
}

/// A client with connections of its own.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) client: Client,
    pub(super) url: String,
    pub(super) way: Way,
    pub(super) instance: Instance,
}

impl Asker {
    pub(super) async fn ask(&self, asked: Asked) -> anyhow::Result<Answer> {
        let Self {
            client,
            url,
            way,
            instance,
        } = self;
        let request = match asked {
            Asked::AsOwner => client.get(url).header("cookie", &instance.cookie),
            Asked::AsHook => client
                .post(format!("{url}hooks/wake"))
                .header("authorization", "Bearer token"),
        };
        // Only the direct way needs the first; everybody else drops it.
        let request = request
            .header("x-tidepool-proof", &instance.proof)
            .header("host", &instance.host);
        let request = match way {
            Way::Wildcard => request.header("accept", "text/event-stream"),
            Way::Direct | Way::Edge | Way::Traefik => request,
        };
        let answer = request.send().await?;
        let (status, body) = (answer.status(), answer.text().await?);
        let told = Told::read(&body).filter(|_| status == StatusCode::OK);
        let is_right = told.is_some_and(|told| {
            told.get("server") == instance.server && told.get("proof") == instance.proof
        });
        Ok(Answer { status, is_right })
    }
}
