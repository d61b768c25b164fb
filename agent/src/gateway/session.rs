//! The owner's WebSocket session, as far as the agent needs it: one turn that leaves no trace.
//!
//! A gateway's first turn is its slowest (it loads what it needs, makes the agent's database and the
//! workspace), so it is run before there is a customer. It runs in an *incognito* session, which
//! OpenClaw keeps in memory only; a normal one would leave an archived transcript, a row in the
//! usage page and a full-text index even after its deletion. Together with
//! [`Stage::WarmingUp`](crate::openclaw::Stage), which switches the audit record off, nothing stays.
//! The way not taken: the chat endpoint over HTTP, which would have to be enabled on every server.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, client::IntoClientRequest as _, protocol::WebSocketConfig},
};

use super::{As, Gateway, headers};

/// The whole warm-up. A first turn has been measured at 3 to 14 s, on a busy machine 26 s.
const PATIENCE: Duration = Duration::from_mins(2);
/// The largest frame that is taken; the hello with all its method names is about 40 KB.
const MAX_FRAME: usize = 4 * 1024 * 1024;
/// Frames that one exchange may take; a turn sends some dozens.
const MAX_FRAMES: usize = 10_000;
/// The protocol generation of OpenClaw's sessions.
const PROTOCOL: u32 = 4;

/// What the warm-up turn took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmUp {
    pub took: Duration,
}

/// Why the warm-up turn did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum TurnFailed {
    #[error("connect to the gateway")]
    Connect(#[source] std::io::Error),
    #[error("talk to the gateway")]
    Talk(#[source] tungstenite::Error),
    #[error("the gateway closed the session")]
    Closed,
    #[error("the gateway refused `{method}`: {reason}")]
    Refused {
        method: &'static str,
        reason: String,
    },
    #[error("the turn ended as `{state}`: {reason}")]
    Ended { state: String, reason: String },
    #[error("not done within {PATIENCE:?}")]
    Timeout,
}

impl Gateway {
    /// Runs one turn and removes all that it left. May be repeated.
    pub async fn warm_up(&self) -> Result<WarmUp, TurnFailed> {
        let begin = Instant::now();
        timeout(PATIENCE, self.one_turn())
            .await
            .map_err(|_| TurnFailed::Timeout)??;
        Ok(WarmUp {
            took: begin.elapsed(),
        })
    }

    async fn one_turn(&self) -> Result<(), TurnFailed> {
        let mut session = Session::open(self).await?;
        let created = session
            .call("sessions.create", json!({ "incognito": true }))
            .await?;
        let key = created["key"].clone();
        let turn = session.turn(&key).await;
        // Also after a failed turn; the turn's own failure says more.
        let deleted = session.call("sessions.delete", json!({ "key": key })).await;
        turn?;
        deleted.map(drop)
    }
}

/// A connected session of the owner's.
struct Session {
    socket: WebSocketStream<TcpStream>,
    calls: u32,
}

impl Session {
    async fn open(gateway: &Gateway) -> Result<Self, TurnFailed> {
        let stream = connect(gateway).await.map_err(TurnFailed::Connect)?;
        let mut request = format!("ws://{}/", gateway.address())
            .into_client_request()
            .map_err(TurnFailed::Talk)?;
        request.headers_mut().extend(headers(As::Owner));
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let (socket, _) = client_async_with_config(request, stream, Some(limits))
            .await
            .map_err(TurnFailed::Talk)?;
        let mut session = Self { socket, calls: 0 };
        session
            .wait_for(|frame| (frame["event"] == "connect.challenge").then_some(()))
            .await?;
        session.call("connect", hello()).await?;
        Ok(session)
    }

    /// Asks for something and waits for its answer; events in between are not ours.
    async fn call(&mut self, method: &'static str, params: Value) -> Result<Value, TurnFailed> {
        self.calls += 1;
        let id = self.calls.to_string();
        let request = json!({ "type": "req", "id": id, "method": method, "params": params });
        self.socket
            .send(Message::text(request.to_string()))
            .await
            .map_err(TurnFailed::Talk)?;
        let mut answer = self
            .wait_for(|frame| (frame["type"] == "res" && frame["id"] == *id).then_some(frame))
            .await?;
        if answer["ok"] == true {
            Ok(answer["payload"].take())
        } else {
            let reason = text(&answer["error"]["message"]);
            Err(TurnFailed::Refused { method, reason })
        }
    }

    /// Sends one message and waits for the end of the run that it starts.
    async fn turn(&mut self, key: &Value) -> Result<(), TurnFailed> {
        let message = json!({
            "sessionKey": key, "message": "hi", "idempotencyKey": format!("warm-up-{}", text(key)),
        });
        self.call("chat.send", message).await?;
        let end = self
            .wait_for(|frame| {
                let payload = &frame["payload"];
                let over = ["final", "error", "aborted"].map(Value::from);
                (frame["event"] == "chat"
                    && payload["sessionKey"] == *key
                    && over.contains(&payload["state"]))
                .then(|| payload.clone())
            })
            .await?;
        if end["state"] == "final" {
            return Ok(());
        }
        Err(TurnFailed::Ended {
            state: text(&end["state"]),
            reason: text(&end["errorMessage"]),
        })
    }

    async fn wait_for<T>(
        &mut self,
        mut wanted: impl FnMut(Value) -> Option<T>,
    ) -> Result<T, TurnFailed> {
        for _ in 0..MAX_FRAMES {
            let frame = self.socket.next().await.ok_or(TurnFailed::Closed)?;
            match frame.map_err(TurnFailed::Talk)? {
                Message::Text(text) => {
                    let frame = serde_json::from_str(&text).unwrap_or(Value::Null);
                    if let Some(found) = wanted(frame) {
                        return Ok(found);
                    }
                }
                Message::Close(_) => return Err(TurnFailed::Closed),
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Err(TurnFailed::Closed)
    }
}

pub(super) async fn connect(gateway: &Gateway) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(source) = gateway.place.source {
        socket.bind((source, 0).into())?;
    }
    socket.connect(gateway.address()).await
}

/// The first request of a session.
fn hello() -> Value {
    json!({
        "minProtocol": PROTOCOL, "maxProtocol": PROTOCOL,
        "client": {
            // Not the control interface: that must name the build of its page.
            "id": "gateway-client", "version": env!("CARGO_PKG_VERSION"),
            "platform": "linux", "mode": "backend",
        },
        "role": "operator",
        "scopes": ["operator.admin", "operator.read", "operator.write"],
        "caps": [],
    })
}

/// A text from the gateway, bounded for logs and reports.
fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_default()
        .chars()
        .take(300)
        .collect()
}
