//! Talking to the running gateway: is it up, does it know the owner, and its first turn.
//!
//! Every answer is bounded in time and size, and judged by its JSON body: OpenClaw answers unknown
//! paths with 200 and its page, and a foreign process on the port could answer anything.

mod session;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

pub use self::session::{TurnFailed, WarmUp};
use crate::openclaw::{HOST, ORIGIN, OWNER, Place, USER_HEADER};

/// A starting gateway's event loop has been seen to stall for this long.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read; the control interface's settings are about 2 KB.
const MAX_BODY: usize = 64 * 1024;
/// Between two looks at a starting gateway.
const POLL: Duration = Duration::from_millis(100);
/// What the gateway sees as the client of the agent's own requests (a documentation address): the
/// trusted proxy must name some client, and a loopback one does not count.
const AGENT_AS_CLIENT: HeaderValue = HeaderValue::from_static("192.0.2.1");
/// The settings of the control interface: answered to the owner only.
const OWNERS_PATH: &str = "/control-ui-config.json";

/// A gateway at its address.
#[derive(Debug, Clone)]
pub struct Gateway {
    place: Place,
    client: Client<HttpConnector, Empty<Bytes>>,
}

/// Whether a gateway takes traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Startup {
    /// Nobody answers, or not like a gateway.
    Absent,
    /// It boots, or drains before a restart.
    NotYet,
    Started,
}

/// What a gateway says of itself and its channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Absent,
    Ready,
    /// What fails, by OpenClaw's names: a channel, `startup-sidecars`, `agent-database:main`, …
    Failing(Vec<String>),
}

/// Whom a request pretends to come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    Owner,
    /// Through the trusted proxy, but without an identity.
    Nobody,
}

/// Why an answer was not usable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("no answer within {PROBE_TIMEOUT:?}")]
    Timeout,
    #[error("request the gateway")]
    Request(#[source] hyper_util::client::legacy::Error),
    #[error("read the gateway's answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("build the request")]
    Build(#[source] http::Error),
}

impl Gateway {
    /// A gateway at this place; nothing is connected yet.
    pub fn new(place: Place) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_local_address(place.source);
        connector.set_connect_timeout(Some(PROBE_TIMEOUT));
        // A kept connection would hold up a restart, which waits for its end.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Self { place, client }
    }

    /// Where it listens, as a client reaches it.
    pub fn address(&self) -> SocketAddr {
        let mut address = self.place.gateway;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        address
    }

    /// May traffic be sent to it? Independent of its channels.
    pub async fn startup(&self) -> Startup {
        match self.ask("/startupz", As::Nobody).await {
            Ok((StatusCode::OK, body)) if body["ok"] == true && body["status"] == "started" => {
                Startup::Started
            }
            Ok((StatusCode::SERVICE_UNAVAILABLE, body)) if body["status"].is_string() => {
                Startup::NotYet
            }
            Ok(_) | Err(_) => Startup::Absent,
        }
    }

    /// Does its listener answer at all?
    pub async fn is_live(&self) -> bool {
        matches!(
            self.ask("/healthz", As::Nobody).await,
            Ok((StatusCode::OK, body)) if body["ok"] == true
        )
    }

    /// Is its listener closed? One that is too busy to answer is open.
    pub async fn refuses_connections(&self) -> bool {
        let connected = timeout(PROBE_TIMEOUT, session::connect(self)).await;
        matches!(connected, Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    }

    /// Are its channels fine too? For health reports, never for routing.
    pub async fn readiness(&self) -> Readiness {
        match self.ask("/readyz", As::Owner).await {
            Ok((StatusCode::OK, body)) if body["ready"] == true => Readiness::Ready,
            Ok((StatusCode::SERVICE_UNAVAILABLE, body)) if body["ready"] == false => {
                Readiness::Failing(failing(&body))
            }
            Ok(_) | Err(_) => Readiness::Absent,
        }
    }

    /// Does it let the owner in?
    pub async fn admits(&self, who: As) -> bool {
        self.said_version(who).await.is_some()
    }

    /// The version that it tells its owner.
    pub async fn version(&self) -> Option<String> {
        self.said_version(As::Owner).await
    }

    async fn said_version(&self, who: As) -> Option<String> {
        match self.ask(OWNERS_PATH, who).await {
            Ok((StatusCode::OK, body)) => body["serverVersion"]
                .as_str()
                .map(|said| said.chars().take(64).collect()),
            Ok(_) | Err(_) => None,
        }
    }

    /// Waits until it takes traffic; `false` when it did not within `patience`.
    pub async fn started_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.startup().await != Startup::Started {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(POLL).await;
        }
        true
    }

    async fn ask(&self, path: &str, who: As) -> Result<(StatusCode, Value), Unanswered> {
        timeout(PROBE_TIMEOUT, self.exchange(path, who))
            .await
            .map_err(|_| Unanswered::Timeout)?
    }

    async fn exchange(&self, path: &str, who: As) -> Result<(StatusCode, Value), Unanswered> {
        let mut request = Request::get(format!("http://{}{path}", self.address()))
            .body(Empty::new())
            .map_err(Unanswered::Build)?;
        request.headers_mut().extend(headers(who));
        let answer = self
            .client
            .request(request)
            .await
            .map_err(Unanswered::Request)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(Unanswered::Body)?
            .to_bytes();
        // Not JSON is an answer as well: the page.
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }
}

/// What nginx sends along, as constants: see `snapshot-image` for its side.
fn headers(who: As) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([
        (header::HOST, HeaderValue::from_static(HOST)),
        (HeaderName::from_static("x-forwarded-for"), AGENT_AS_CLIENT),
        (
            HeaderName::from_static("x-forwarded-proto"),
            HeaderValue::from_static("https"),
        ),
        (
            HeaderName::from_static("x-forwarded-host"),
            HeaderValue::from_static(HOST),
        ),
        (header::ORIGIN, HeaderValue::from_static(ORIGIN)),
    ]);
    if who == As::Owner {
        headers.insert(
            HeaderName::from_static(USER_HEADER),
            HeaderValue::from_static(OWNER),
        );
    }
    headers
}

fn failing(body: &Value) -> Vec<String> {
    let names = body["failing"].as_array().into_iter().flatten();
    names
        .filter_map(Value::as_str)
        .take(8)
        .map(|name| name.chars().take(64).collect())
        .collect()
}
