//! The coordinator's own look through the edge, over the very path that the owner will take.

use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::Instant;

use super::{EdgeHandle, body::Broken, body::whole, headers::PASS};
use crate::model::Instance;

/// The gateway's answer to this needs its HTTP server, its configuration and a proven owner.
const PROBE: &str = "/control-ui-config.json";
const DEADLINE: Duration = Duration::from_secs(5);
const BODY_MAX_BYTES: usize = 1024 * 1024;

/// Why an instance is not reachable as its owner.
#[derive(Debug, thiserror::Error)]
pub enum NotReachable {
    #[error("the instance has no host name")]
    NoHost,
    #[error("too many probes at once")]
    Busy,
    #[error("no answer in time")]
    TimedOut,
    #[error("ask the edge")]
    Ask(#[source] hyper_util::client::legacy::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("read the answer")]
    Body(#[source] Broken),
    #[error("answer is not JSON")]
    NotJson(#[source] serde_json::Error),
}

impl EdgeHandle {
    /// Asks once, as the owner, through the real listener; returns how long that took. Waits first
    /// (within its deadline) for the route to be live.
    pub async fn verify(&self, instance: &Instance) -> Result<Duration, NotReachable> {
        tokio::time::timeout(DEADLINE, async {
            self.route_live(instance.id).await;
            let began = Instant::now();
            self.ask(instance).await?;
            Ok(began.elapsed())
        })
        .await
        .unwrap_or(Err(NotReachable::TimedOut))
    }

    async fn ask(&self, instance: &Instance) -> Result<(), NotReachable> {
        let inner = &self.0;
        let host = instance
            .hosts
            .first()
            .and_then(|host| HeaderValue::from_str(host).ok())
            .ok_or(NotReachable::NoHost)?;
        let pass = inner
            .gate
            .passes
            .issue(instance.id, &inner.chance)
            .and_then(|pass| HeaderValue::from_str(&pass).ok())
            .ok_or(NotReachable::Busy)?;
        let mut request = Request::new(whole(""));
        *request.uri_mut() = format!("http://{}{PROBE}", self.reachable_address())
            .parse()
            .map_err(|_| NotReachable::NoHost)?;
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(PASS, pass);
        let response = inner
            .servers
            .request(request)
            .await
            .map_err(NotReachable::Ask)?;
        if response.status() != StatusCode::OK {
            return Err(NotReachable::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), BODY_MAX_BYTES)
            .collect()
            .await
            .map_err(NotReachable::Body)?
            .to_bytes();
        serde_json::from_slice::<serde::de::IgnoredAny>(&body).map_err(NotReachable::NotJson)?;
        Ok(())
    }

    /// An edge that listens on every address is asked on loopback.
    fn reachable_address(&self) -> std::net::SocketAddr {
        let mut address = self.0.address;
        if address.ip().is_unspecified() {
            let loopback: std::net::IpAddr = match address.ip() {
                std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            };
            address.set_ip(loopback);
        }
        address
    }
}
