//! The client against a Hetzner in miniature, with a paused clock: minutes of waiting take no time.
//!
//! Every test may answer any call otherwise than the miniature would; every body that is sent is checked
//! against the API's schema on the way.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    body::Bytes,
    http::{Method, Uri},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use reqwest::Url;
use serde_json::{Value, json};
use tidepool_shared::{id::ServerId, user_data::UserData};
use uuid::Uuid;

use super::{
    HetznerCloud, HetznerSettings, Pace, Token,
    api::Api,
    transport::{LostOnTheWay, Transport},
};
use crate::{
    ambient::{Chance, SystemClock},
    cloud::{CloudError, Fault, Labels, Order, Placement},
};

mod budget;
mod creation;
mod data;
mod deletion;
mod firewall;
mod miniature;
mod settling;
mod sweep;

use miniature::Miniature;

/// A call as it arrived.
#[derive(Debug, Clone)]
struct Seen {
    method: Method,
    /// Without the endpoint's own.
    path: String,
    query: Vec<(String, String)>,
    body: Value,
}

impl Seen {
    fn is(&self, method: &Method, path: &str) -> bool {
        self.method == *method && self.path == path
    }

    fn query(&self, key: &str) -> Option<&str> {
        let found = self.query.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }
}

/// What comes back.
enum Reply {
    Json(u16, Value),
    /// Not JSON at all, as from a proxy between.
    Page(u16),
    /// The connection breaks.
    Lost,
    /// No answer in anybody's lifetime.
    Never,
    /// Beside the answer, what is left of the budget.
    Left(u64, Box<Reply>),
}

fn refusal(status: u16, code: &str) -> Reply {
    let body = json!({"error": {"code": code, "message": "no", "details": null}});
    Reply::Json(status, body)
}

/// Answers a call in place of the miniature, or leaves it to it.
type Twist = dyn FnMut(&Seen, &mut Miniature) -> Option<Reply> + Send;

struct State {
    miniature: Miniature,
    twist: Box<Twist>,
    seen: Vec<Seen>,
}

/// The client and what it talks to.
struct Stage {
    cloud: HetznerCloud,
    state: Arc<Mutex<State>>,
}

impl Stage {
    /// Everything goes as it should.
    fn smooth() -> Self {
        Self::with(|_, _| None)
    }

    fn with(twist: impl FnMut(&Seen, &mut Miniature) -> Option<Reply> + Send + 'static) -> Self {
        let state = Arc::new(Mutex::new(State {
            miniature: Miniature::default(),
            twist: Box::new(twist),
            seen: Vec::new(),
        }));
        let heard = Arc::clone(&state);
        let router = Router::new().fallback(move |method: Method, uri: Uri, body: Bytes| {
            let reply = hear(&heard, method, &uri, &body);
            async move { respond(reply).await }
        });
        let api = Api::new(
            Transport::Here(router),
            Url::parse("http://127.0.0.1/v1").unwrap(),
            Token::new("geheim").unwrap(),
            Pace::REAL,
            Arc::new(Chance::from_seed(7)),
        );
        Self {
            cloud: HetznerCloud::over(api, settings(), Arc::new(SystemClock)),
            state,
        }
    }

    fn count(&self, method: &Method, path: &str) -> usize {
        self.seen(|seen| seen.is(method, path)).len()
    }

    fn seen(&self, wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .seen
            .iter()
            .filter(|seen| wanted(seen))
            .cloned()
            .collect()
    }

    fn miniature<T>(&self, act: impl FnOnce(&mut Miniature) -> T) -> T {
        act(&mut self
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .miniature)
    }
}

fn hear(state: &Mutex<State>, method: Method, uri: &Uri, body: &Bytes) -> Reply {
    let path = uri.path().strip_prefix("/v1/").unwrap().to_owned();
    let url = Url::parse(&format!("http://a{uri}")).unwrap();
    let seen = Seen {
        query: url.query_pairs().into_owned().collect(),
        body: serde_json::from_slice(body).unwrap_or(Value::Null),
        method,
        path,
    };
    data::check_request(&seen);
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let State {
        miniature,
        twist,
        seen: all,
    } = &mut *state;
    all.push(seen.clone());
    twist(&seen, miniature).unwrap_or_else(|| miniature.reply(&seen))
}

async fn respond(reply: Reply) -> Response {
    match reply {
        Reply::Json(status, body) => {
            let headers = [("x-correlation-id", "c0ffee")];
            (code(status), headers, axum::Json(body)).into_response()
        }
        Reply::Page(status) => (code(status), "<html>").into_response(),
        Reply::Lost => {
            let mut response = StatusCode::OK.into_response();
            response.extensions_mut().insert(LostOnTheWay);
            response
        }
        Reply::Never => std::future::pending().await,
        Reply::Left(left, reply) => {
            let mut response = Box::pin(respond(*reply)).await;
            response
                .headers_mut()
                .insert("ratelimit-remaining", left.into());
            response
                .headers_mut()
                .insert("ratelimit-limit", 3600u64.into());
            response
        }
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap()
}

fn settings() -> HetznerSettings {
    serde_json::from_value(json!({
        "token_file": "/nowhere",
        "env": "test",
        "admitted": ["192.0.2.7/32", "2001:db8::7/128"],
        "edge_port": 443,
    }))
    .unwrap()
}

/// The token in its user data is `einmalig`.
fn order(name: &str) -> Order {
    Order {
        image: None,
        name: name.to_owned(),
        placement: Placement {
            server_type: "cx23".to_owned(),
            location: "nbg1".to_owned(),
        },
        labels: Labels::from([("role".to_owned(), "pool".to_owned())]),
        user_data: UserData {
            server: ServerId::new(Uuid::nil()),
            enrolment_token: "einmalig".to_owned(),
            coordinators: "192.0.2.7:4433"
                .parse::<std::net::SocketAddr>()
                .unwrap()
                .into(),
            ca: "PEM".to_owned(),
            proxy: "http://192.0.2.7:8080".to_owned(),
            admission: None,
        },
    }
}

fn ours() -> Value {
    json!({"managed-by": "tidepool", "env": "test", "role": "pool"})
}

fn fault<T: std::fmt::Debug>(outcome: Result<T, CloudError>) -> Fault {
    outcome.unwrap_err().fault
}

/// An error with all its causes, as it is logged.
fn whole(error: &CloudError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
