//! The event log over HTTP: pages of it, and its live end.

pub mod stream;

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiState,
    page::{self, PageInfo},
    params::Params,
    problem::{Code, Problem, ProblemBody},
};
use crate::model::Event;

/// The most events of a page.
const MAX_LIMIT: u32 = 200;

/// An event as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    pub id: String,
    /// Gapless; orders everything.
    pub sequence: u64,
    #[serde(rename = "type")]
    pub kind: String,
    pub instance_id: Option<String>,
    pub server_id: Option<String>,
    #[schema(value_type = Value)]
    pub data: Value,
    pub at: String,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            id: event.id.to_string(),
            sequence: event.sequence,
            kind: event.kind,
            instance_id: event.instance.map(|id| id.to_string()),
            server_id: event.server.map(|id| id.to_string()),
            data: event.data,
            at: event.at.rfc3339(),
        }
    }
}

/// A page of events.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Events {
    pub data: Vec<EventView>,
    pub page: PageInfo,
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventParams {
    /// The id of the last event known.
    after: Option<String>,
    /// 1 to 200.
    limit: Option<u32>,
}

/// Lists events, oldest first. `next_cursor` is the id to pass as `after`.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(EventParams),
    responses((status = 200, body = Events), (status = "default", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(state): State<Arc<ApiState>>,
    Params(params): Params<EventParams>,
) -> Result<Json<Events>, Problem> {
    let limit = page::limit(params.limit, MAX_LIMIT)?;
    let after = match params.after.as_deref() {
        None => 0,
        Some(id) => state
            .store
            .event_sequence(id)
            .await?
            .ok_or_else(|| Problem::new(Code::InvalidParameter, "`after` is no event"))?,
    };
    let mut events = state
        .store
        .events_after(after, None, limit.saturating_add(1))
        .await?;
    let page = page::cut(&mut events, limit, |event| event.id.to_string());
    let data = events.into_iter().map(Into::into).collect();
    Ok(Json(Events { data, page }))
}
