//! The stub's WebSocket session: challenge, connect, and turns that call the model once.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use serde_json::{Value, json};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{Shared, http::Caller, traces::Traces};

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// The most that is read of a model's answer.
const MAX_ANSWER: usize = 1024 * 1024;

/// Holds a session to its end.
pub(crate) async fn hold(
    mut socket: Socket,
    caller: Caller,
    origin: Option<&str>,
    shared: &Shared,
) -> Result<(), Error> {
    let challenge = json!({"nonce": "00000000-0000-4000-8000-000000000000", "ts": 0});
    event(&mut socket, "connect.challenge", &challenge).await?;
    let mut connected = false;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else {
            continue;
        };
        let request: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let method = request["method"].as_str().unwrap_or_default();
        if connected {
            serve(&mut socket, &request, method, shared).await?;
        } else if let Some(reason) = refusal(method, caller, origin, shared).await {
            answer(&mut socket, &request, Err(reason)).await?;
            let frame = CloseFrame {
                code: CloseCode::Policy,
                reason: reason.into(),
            };
            return socket.close(Some(frame)).await;
        } else {
            connected = true;
            answer(&mut socket, &request, Ok(hello(shared))).await?;
        }
    }
    Ok(())
}

async fn refusal(
    method: &str,
    caller: Caller,
    origin: Option<&str>,
    shared: &Shared,
) -> Option<&'static str> {
    if method != "connect" {
        return Some("first request must be connect");
    }
    let config = shared.config.read().await;
    if !origin.is_some_and(|origin| config.admits_origin(origin)) {
        return Some("origin not allowed");
    }
    (caller != Caller::Owner).then_some("control ui requires device identity")
}

async fn serve(
    socket: &mut Socket,
    request: &Value,
    method: &str,
    shared: &Shared,
) -> Result<(), Error> {
    let traces = Traces::of(&shared.switches.config_path);
    let params = &request["params"];
    match method {
        "sessions.create" => {
            let key = traces.create(params["incognito"] == true);
            answer(socket, request, Ok(json!({"ok": true, "key": key}))).await
        }
        "sessions.delete" => {
            traces.delete(params["key"].as_str().unwrap_or_default());
            answer(socket, request, Ok(json!({"ok": true}))).await
        }
        "sessions.list" => {
            let list = traces.list(params["archived"] == true);
            answer(socket, request, Ok(list)).await
        }
        "sessions.usage" => answer(socket, request, Ok(traces.usage())).await,
        "audit.list" => answer(socket, request, Ok(traces.audit())).await,
        "chat.send" => turn(socket, request, shared).await,
        _ => answer(socket, request, Err("unknown method")).await,
    }
}

async fn turn(socket: &mut Socket, request: &Value, shared: &Shared) -> Result<(), Error> {
    let key = &request["params"]["sessionKey"];
    answer(
        socket,
        request,
        Ok(json!({"runId": "run", "status": "started"})),
    )
    .await?;
    let config = shared.config.read().await.clone();
    let relay = config.relay().map(str::to_owned);
    Traces::of(&shared.switches.config_path)
        .ran(key.as_str().unwrap_or_default(), config.keeps_audit());
    let ended = match ask_model(relay.unwrap_or_default()).await {
        Ok(text) => json!({"sessionKey": key, "state": "final", "message": {"role": "assistant",
            "content": [{"type": "text", "text": text}]}}),
        Err(reason) => json!({"sessionKey": key, "state": "error", "errorMessage": reason}),
    };
    event(socket, "chat", &ended).await
}

/// One streamed call, as OpenClaw makes it; the text of its chunks.
async fn ask_model(relay: String) -> Result<String, String> {
    let body = json!({"model": "default", "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "system", "content": "stub"}, {"role": "user", "content": "hi"}]});
    let request = Request::post(format!("{relay}/chat/completions"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "OpenAI/JS 7.15.0")
        .body(Full::<Bytes>::from(body.to_string()))
        .map_err(|error| error.to_string())?;
    let client: Client<HttpConnector, _> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client
        .request(request)
        .await
        .map_err(|error| error.to_string())?;
    let status = answer.status();
    let bytes = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    if !status.is_success() {
        return Err(format!("{} from the model", status.as_u16()));
    }
    Ok(String::from_utf8_lossy(&bytes)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|chunk| {
            Some(
                chunk
                    .pointer("/choices/0/delta/content")?
                    .as_str()?
                    .to_owned(),
            )
        })
        .collect())
}

fn hello(shared: &Shared) -> Value {
    json!({
        "type": "hello-ok", "protocol": 4,
        "server": {"version": shared.switches.version, "connId": "stub"},
        "features": {"methods": ["chat.send"], "events": ["chat"]}, "snapshot": {},
        "auth": {"role": "operator", "scopes": ["operator.admin", "operator.read", "operator.write"]},
        "policy": {"maxPayload": 26_214_400, "tickIntervalMs": 15_000},
    })
}

async fn answer(
    socket: &mut Socket,
    request: &Value,
    outcome: Result<Value, &str>,
) -> Result<(), Error> {
    let id = &request["id"];
    let frame = match outcome {
        Ok(payload) => json!({"type": "res", "id": id, "ok": true, "payload": payload}),
        Err(reason) => json!({"type": "res", "id": id, "ok": false,
            "error": {"code": "INVALID_REQUEST", "message": reason}}),
    };
    socket.send(Message::text(frame.to_string())).await
}

async fn event(socket: &mut Socket, name: &str, payload: &Value) -> Result<(), Error> {
    let frame = json!({"type": "event", "event": name, "payload": payload});
    socket.send(Message::text(frame.to_string())).await
}
