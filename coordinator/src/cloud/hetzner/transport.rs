//! How a request gets to the API and its answer back: over the network, or in a test into a router of
//! this process, which a paused clock can wait for.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use reqwest::{Url, redirect::Policy};

use super::{call::CallFailed, pace::Pace};

/// Seconds to connect.
const CONNECT_PATIENCE: u32 = 5;

/// Connections are cheap to make again, and a stale one costs a call that is in doubt.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// A page of 50 servers with everything about each of them is far below this.
const ANSWER_MAX: usize = 8 << 20;

/// The way to the API.
#[derive(Debug)]
pub(super) enum Transport {
    Network(reqwest::Client),
    #[cfg(test)]
    Here(axum::Router),
}

/// What came back. Deliberately without `Debug`, as [`super::call::Answer`].
pub(super) struct Exchanged {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Transport {
    pub(super) fn network(endpoint: &Url, pace: Pace) -> Result<Self, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tidepool/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(pace.seconds(CONNECT_PATIENCE))
            .pool_idle_timeout(IDLE_CONNECTION)
            // A redirect would carry the token elsewhere.
            .redirect(Policy::none());
        if endpoint.scheme() == "http" {
            // No TLS then, and no need for this machine to have any root certificates.
            builder = builder.tls_certs_only([]);
        }
        builder.build().map(Self::Network)
    }

    pub(super) async fn exchange(
        &self,
        request: Request<Vec<u8>>,
    ) -> Result<Exchanged, CallFailed> {
        match self {
            Self::Network(client) => over_network(client, request).await,
            #[cfg(test)]
            Self::Here(router) => here(router.clone(), request).await,
        }
    }
}

async fn over_network(
    client: &reqwest::Client,
    request: Request<Vec<u8>>,
) -> Result<Exchanged, CallFailed> {
    let request = reqwest::Request::try_from(request).map_err(CallFailed::NotReached)?;
    let mut response = client.execute(request).await.map_err(|error| {
        if error.is_connect() || error.is_builder() {
            CallFailed::NotReached(error)
        } else {
            CallFailed::Lost(Some(error))
        }
    })?;
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    let mut body = BytesMut::new();
    let lost = |error| CallFailed::Lost(Some(error));
    while let Some(chunk) = response.chunk().await.map_err(lost)? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(CallFailed::TooLong(ANSWER_MAX));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Exchanged {
        status,
        headers,
        body: body.freeze(),
    })
}

/// A response with [`LostOnTheWay`] is a connection that broke.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(super) struct LostOnTheWay;

#[cfg(test)]
async fn here(router: axum::Router, request: Request<Vec<u8>>) -> Result<Exchanged, CallFailed> {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    let response = router
        .oneshot(request.map(axum::body::Body::from))
        .await
        .expect("a router does not fail");
    if response.extensions().get::<LostOnTheWay>().is_some() {
        return Err(CallFailed::Lost(None));
    }
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("it is in memory").to_bytes();
    Ok(Exchanged {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}
