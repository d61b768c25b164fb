//! A browser before Traefik.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use reqwest::{Client, RequestBuilder, StatusCode, Upgraded};
use serde_json::Value;
use tidepool_tests::{evidence, front::Traefik};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::DOMAIN;

pub(crate) struct Visitor {
    pub(crate) client: Client,
    port: u16,
    pub(crate) cookie: Option<String>,
}

impl Visitor {
    /// One that comes from this address.
    pub(crate) fn of(traefik: &Traefik, from: IpAddr) -> anyhow::Result<Self> {
        Ok(Self {
            client: traefik.browser(from).build()?,
            port: traefik.ports.https,
            cookie: None,
        })
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("https://{name}.{DOMAIN}:{}", self.port)
    }

    pub(crate) fn get(&self, name: &str, path: &str) -> RequestBuilder {
        let request = self.client.get(format!("{}{path}", self.url(name)));
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    /// Opens a login link, and sends its page's form.
    pub(crate) async fn sign_in(&mut self, link: &str) -> anyhow::Result<()> {
        let (origin, _) = link.split_once("/.tidepool/").context("a link")?;
        ensure!(
            origin.ends_with(&self.url("")["https://".len()..]),
            "{link}"
        );
        let answer = self
            .client
            .post(link)
            .header("origin", origin)
            .send()
            .await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let said = answer.text().await?;
        let cookie = headers.get("set-cookie");
        let cookie = cookie.with_context(|| format!("no cookie: {status} {said}"))?;
        let cookie = cookie.to_str()?;
        ensure!(cookie.contains("Secure"), "{cookie}");
        let cookie = cookie.split(';').next().context("its name and value")?;
        evidence::note_secret(cookie.rsplit('=').next().unwrap_or_default());
        self.cookie = Some(cookie.to_owned());
        Ok(())
    }

    /// The first frame of the gateway's WebSocket, or the status of the refusal.
    pub(crate) async fn challenge(
        &self,
        origin: &str,
    ) -> anyhow::Result<Result<Value, StatusCode>> {
        let mut socket = match self.socket(origin).await? {
            Ok(socket) => socket,
            Err(refused) => return Ok(Err(refused)),
        };
        let frame = socket.next().await.context("a frame")??;
        Ok(Ok(serde_json::from_str(frame.to_text()?)?))
    }

    /// A WebSocket to the gateway, or the status of the refusal.
    pub(crate) async fn socket(
        &self,
        origin: &str,
    ) -> anyhow::Result<Result<WebSocketStream<Upgraded>, StatusCode>> {
        websocket(|| self.get("alice", "/"), origin).await
    }
}

/// A WebSocket by a request like this, or the status of the refusal. Whoever connects in the moment in which others
/// are cut off may be cut off with them, and comes again.
pub(crate) async fn websocket(
    get: impl Fn() -> RequestBuilder,
    origin: &str,
) -> anyhow::Result<Result<WebSocketStream<Upgraded>, StatusCode>> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let answer = loop {
        let request = get()
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("origin", origin);
        let answer = request.send().await?;
        // The second says so: what let them in has just changed, or the server is not back yet.
        let come_again = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];
        if !come_again.contains(&answer.status()) || Instant::now() >= deadline {
            break answer;
        }
        sleep(Duration::from_millis(50)).await;
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Err(answer.status()));
    }
    let upgraded = answer.upgrade().await?;
    Ok(Ok(WebSocketStream::from_raw_socket(
        upgraded,
        Role::Client,
        None,
    )
    .await))
}
