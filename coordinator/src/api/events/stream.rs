//! The live end of the event log, as server-sent events.
//!
//! The log in the store is the truth; the doorbell only says when to look. A client that comes back
//! with `Last-Event-ID` misses nothing and sees nothing twice. Reading is paced by the client: no
//! queue grows for one that does not read. The token is looked up again at each look: a stream would
//! else outlive its revocation for ever.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::HeaderMap,
    response::{
        Sse,
        sse::{Event as Frame, KeepAlive},
    },
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use tidepool_shared::id::TokenId;
use tokio::time::timeout;
use utoipa::IntoParams;

use super::EventView;
use crate::{
    api::{
        ApiState,
        auth::{self, Caller},
        params::Params,
        problem::{Problem, ProblemBody},
    },
    doorbell::{Heard, Listener, Ring},
    model::Event,
    store::Stored,
};

/// Events read at a time.
const BATCH: u32 = 100;

/// A ring may be lost; so look at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Keeps proxies and clients from taking a quiet stream for a dead one.
const PING: Duration = Duration::from_secs(15);

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamParams {
    /// As `Last-Event-ID`, for whoever cannot set it.
    after: Option<String>,
}

/// Follows the event log.
///
/// From `Last-Event-ID` on, or from now without it. An id that is not known any more begins at the
/// oldest event.
#[utoipa::path(get, path = "/v1/events/stream", tag = "events",
    params(StreamParams, ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event received")),
    responses((status = 200, body = String, content_type = "text/event-stream"), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(in crate::api) async fn stream(
    State(state): State<Arc<ApiState>>,
    Extension(Caller(token)): Extension<Caller>,
    Params(params): Params<StreamParams>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Frame, Infallible>>>, Problem> {
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let last = match header.or(params.after.as_deref()) {
        Some(id) => state.store.event_sequence(id).await?.unwrap_or(0),
        None => state.store.last_sequence().await?,
    };
    let follower = Follower {
        listener: state.doorbell.listen(),
        state,
        token: token.id,
        last,
        read: VecDeque::new(),
    };
    let frames = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(frame(event)), follower))
    });
    Ok(Sse::new(frames).keep_alive(KeepAlive::new().interval(PING).text("ping")))
}

/// One client's place in the log.
struct Follower {
    state: Arc<ApiState>,
    listener: Listener,
    /// With what it was opened.
    token: TokenId,
    /// The last event read.
    last: u64,
    /// Read and not sent yet.
    read: VecDeque<Event>,
}

/// What a look at the log found.
enum Seen {
    New,
    Nothing,
    NotAllowed,
}

impl Follower {
    /// The next event; `None` when the stream is over. The client then comes back where it was.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return Some(event);
            }
            if self.state.closing.is_cancelled() {
                return None;
            }
            match self.look().await {
                Ok(Seen::New) => {}
                Ok(Seen::Nothing) => self.wait().await,
                Ok(Seen::NotAllowed) => return None,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "an event stream ends: the log cannot be read");
                    return None;
                }
            }
        }
    }

    /// Reads on, if the token still allows it.
    async fn look(&mut self) -> Stored<Seen> {
        if auth::good(&self.state, self.token).await?.is_none() {
            return Ok(Seen::NotAllowed);
        }
        let events = self
            .state
            .store
            .events_after(self.last, None, BATCH)
            .await?;
        self.last = events.last().map_or(self.last, |event| event.sequence);
        self.read.extend(events);
        Ok(if self.read.is_empty() {
            Seen::Nothing
        } else {
            Seen::New
        })
    }

    async fn wait(&mut self) {
        let Self {
            state, listener, ..
        } = self;
        tokio::select! {
            // A time-out is a look like any other.
            _ = timeout(LOOK_AGAIN, rung(listener)) => {}
            () = state.closing.cancelled() => {}
        }
    }
}

async fn rung(listener: &mut Listener) {
    loop {
        match listener.hear().await {
            Heard::Ring(Ring::Events) | Heard::Missed => return,
            Heard::Ring(Ring::Server(_) | Ring::Instance(_) | Ring::Pool | Ring::Images) => {}
            Heard::Closed => std::future::pending().await,
        }
    }
}

fn frame(event: Event) -> Frame {
    let view = EventView::from(event);
    let data = serde_json::to_string(&view).unwrap_or_default();
    Frame::default().id(view.id).event(view.kind).data(data)
}
