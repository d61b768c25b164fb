//! A customer's browser, without the browser: one host name, one cookie, HTTP and WebSocket.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, handshake::client::Request},
};

use crate::{api::Api, evidence};

const PATIENCE: Duration = Duration::from_mins(1);

/// Someone who opens one instance's URL.
#[derive(Debug, Clone)]
pub struct Customer {
    /// Host and port, as in the URL.
    authority: String,
    /// Where that really is: test machines do not resolve `*.localhost`.
    edge: SocketAddr,
    cookie: Option<String>,
    http: reqwest::Client,
}

impl Customer {
    /// A stranger at this URL (`http://NAME.localhost:PORT`).
    pub fn at(url: &str) -> anyhow::Result<Self> {
        let authority = url.strip_prefix("http://").context("a local URL")?;
        let authority = authority.split('/').next().unwrap_or_default().to_owned();
        let port = authority
            .rsplit(':')
            .next()
            .unwrap_or_default()
            .parse()
            .context("its port")?;
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            authority,
            edge: ([127, 0, 0, 1], port).into(),
            cookie: None,
            http,
        })
    }

    /// Who `instance` is of, signed in by a login link of their own.
    ///
    /// # Errors
    /// The link was not given, or did not let them in.
    pub async fn owner_of(api: &Api, instance: &Value) -> anyhow::Result<Self> {
        let text = |field: &str| {
            let value = instance.get(field).and_then(Value::as_str);
            value.with_context(|| format!("an instance has a {field}"))
        };
        let mut owner = Self::at(text("url")?)?;
        let link = api.login_link(text("id")?).await?;
        ensure!(owner.open_link(&link).await?, "the login link was refused");
        Ok(owner)
    }

    /// Opens a login link and sends its page's form. Whether that let this customer in.
    pub async fn open_link(&mut self, link: &str) -> anyhow::Result<bool> {
        let path = link.splitn(4, '/').nth(3).context("a link has a path")?;
        let shown = self.request(&format!("/{path}")).send().await?;
        ensure!(
            shown.status() == StatusCode::OK && !shown.headers().contains_key("set-cookie"),
            "a link that is only looked at: {}",
            shown.status()
        );
        let answer = self.post(&format!("/{path}")).send().await?;
        let cookie = answer
            .headers()
            .get("set-cookie")
            .and_then(|value| value.to_str().ok());
        let Some(cookie) = cookie.and_then(|value| value.split(';').next()) else {
            ensure!(
                !answer.status().is_redirection(),
                "a redirect without a session"
            );
            return Ok(false);
        };
        evidence::note_secret(cookie.rsplit('=').next().unwrap_or_default());
        self.cookie = Some(cookie.to_owned());
        Ok(true)
    }

    /// Sends a login link's form to an instance that is switched off. Whether that let this customer in.
    pub async fn open_link_when_closed(&self, link: &str) -> anyhow::Result<bool> {
        let path = link.splitn(4, '/').nth(3).context("a link has a path")?;
        let answer = self.post(&format!("/{path}")).send().await?;
        Ok(answer.headers().contains_key("set-cookie"))
    }

    /// This customer's cookie, to be tried where it does not belong.
    pub fn cookie(&self) -> Option<&str> {
        self.cookie.as_deref()
    }

    /// The same browser at another instance's URL.
    pub fn moved_to(&self, url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            cookie: self.cookie.clone(),
            ..Self::at(url)?
        })
    }

    /// A request of this browser, to be changed and sent.
    pub fn request(&self, path: &str) -> reqwest::RequestBuilder {
        self.to(Method::GET, path)
    }

    /// A form of one of the instance's own pages.
    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.to(Method::POST, path)
            .header("origin", format!("http://{}", self.authority))
    }

    /// Signs out.
    pub async fn sign_out(&self) -> anyhow::Result<StatusCode> {
        Ok(self.post("/.tidepool/logout").send().await?.status())
    }

    fn to(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self
            .http
            .request(method, format!("http://{}{path}", self.edge))
            .header("host", &self.authority);
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    pub async fn status(&self, path: &str) -> anyhow::Result<StatusCode> {
        Ok(self.request(path).send().await?.status())
    }

    /// Whether the gateway takes this browser for the owner.
    pub async fn is_owner(&self) -> anyhow::Result<bool> {
        let answer = self.request("/control-ui-config.json").send().await?;
        Ok(answer.status() == StatusCode::OK
            && serde_json::from_slice::<Value>(&answer.bytes().await?).is_ok())
    }

    /// Opens the gateway's WebSocket as the Control UI does and says hello; the hello's payload.
    pub async fn hello(&self) -> anyhow::Result<(Socket, Value)> {
        let origin = format!("http://{}", self.authority);
        let mut socket = match self.websocket(&origin, &[]).await? {
            Ok(socket) => socket,
            Err(status) => bail!("the upgrade was refused: {status}"),
        };
        let challenge = next_json(&mut socket).await?;
        ensure!(
            challenge.get("event").and_then(Value::as_str) == Some("connect.challenge"),
            "not a challenge: {challenge}"
        );
        let connect = json!({
            "type": "req", "id": "1", "method": "connect",
            "params": {
                "minProtocol": 4, "maxProtocol": 4, "role": "operator", "caps": [],
                // Not the Control UI: that must name the build of its page.
            "client": {
                "id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend",
            },
                "scopes": ["operator.admin", "operator.read", "operator.write"],
            },
        });
        socket.send(Message::text(connect.to_string())).await?;
        let hello = answer_to(&mut socket, "1").await?;
        Ok((socket, hello))
    }

    /// An upgrade with this origin and these further headers; the status if it is refused.
    pub async fn websocket(
        &self,
        origin: &str,
        headers: &[(&'static str, &str)],
    ) -> anyhow::Result<Result<Socket, u16>> {
        let mut request: Request = format!("ws://{}/", self.authority).into_client_request()?;
        let mut set = |name: &'static str, value: &str| -> anyhow::Result<()> {
            request.headers_mut().insert(name, value.parse()?);
            Ok(())
        };
        set("origin", origin)?;
        if let Some(cookie) = &self.cookie {
            set("cookie", cookie)?;
        }
        for (name, value) in headers {
            set(name, value)?;
        }
        let stream = TcpStream::connect(self.edge).await?;
        match timeout(PATIENCE, client_async(request, stream)).await? {
            Ok((socket, _)) => Ok(Ok(socket)),
            Err(Error::Http(answer)) => Ok(Err(answer.status().as_u16())),
            Err(error) => Err(error.into()),
        }
    }
}

/// An open WebSocket.
pub type Socket = WebSocketStream<TcpStream>;

/// The next text frame as JSON.
pub async fn next_json(socket: &mut Socket) -> anyhow::Result<Value> {
    loop {
        let frame = timeout(PATIENCE, socket.next())
            .await?
            .context("the socket was closed")??;
        match frame {
            Message::Text(text) => return Ok(serde_json::from_str(&text)?),
            Message::Close(why) => bail!("the socket was closed: {why:?}"),
            _ => {}
        }
    }
}

/// Sends a request to the gateway and waits for its answer's payload.
pub async fn call(socket: &mut Socket, method: &str, params: Value) -> anyhow::Result<Value> {
    let id = format!("call-{method}");
    let request = json!({ "type": "req", "id": id, "method": method, "params": params });
    socket.send(Message::text(request.to_string())).await?;
    answer_to(socket, &id).await
}

async fn answer_to(socket: &mut Socket, id: &str) -> anyhow::Result<Value> {
    loop {
        let mut frame = next_json(socket).await?;
        if frame.get("id").and_then(Value::as_str) == Some(id) {
            ensure!(
                frame.get("ok") == Some(&Value::Bool(true)),
                "refused: {frame}"
            );
            return Ok(frame
                .get_mut("payload")
                .map(Value::take)
                .unwrap_or_default());
        }
    }
}
