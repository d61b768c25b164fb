//! The other port: switches, books and metadata, for other processes. No token; loopback only.
//!
//! ```text
//! GET|POST|DELETE /faults              the switches; POST adds one: {"fault":"drop_after","at":"POST /servers","often":{"next":3}}
//! PUT /faults/slowness                 {"ms": 500}
//! GET /faults/struck                   how often each fault has struck
//! GET /books                           everything that ever existed, and calls by operation
//! GET /violations                      answers that did not fit their schema
//! PUT /room                            {"server_type":"cx23","location":"nbg1","servers":3}
//! POST /snapshots                      {"labels":{…},"architecture":"x86","disk_size_gb":40}; answers {"id":…}
//! GET /machines/ADDRESS/hetzner/v1/…   metadata and user data, as the server of that address sees them
//! ```

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    fake::Fake,
    fault::Switch,
    image::{self, NewSnapshot},
    metadata,
};

pub(super) fn router(fake: Arc<Fake>) -> Router {
    Router::new()
        .route("/faults", get(list).post(add).delete(clear))
        .route("/faults/slowness", put(slowness))
        .route("/faults/struck", get(struck))
        .route("/books", get(books))
        .route("/violations", get(violations))
        .route("/room", put(room))
        .route("/snapshots", post(snapshot))
        .route("/machines/{address}/hetzner/v1/{*path}", get(metadata))
        .with_state(fake)
}

async fn list(State(fake): State<Arc<Fake>>) -> Response {
    Json(fake.faults.switches()).into_response()
}

async fn add(State(fake): State<Arc<Fake>>, Json(switch): Json<Switch>) -> StatusCode {
    fake.faults.add(switch);
    StatusCode::NO_CONTENT
}

async fn clear(State(fake): State<Arc<Fake>>) -> StatusCode {
    fake.faults.clear();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct Slowness {
    ms: u64,
}

async fn slowness(State(fake): State<Arc<Fake>>, Json(slowness): Json<Slowness>) -> StatusCode {
    fake.faults.set_slowness(Duration::from_millis(slowness.ms));
    StatusCode::NO_CONTENT
}

async fn struck(State(fake): State<Arc<Fake>>) -> Response {
    Json(fake.faults.struck()).into_response()
}

async fn books(State(fake): State<Arc<Fake>>) -> Response {
    let books = {
        let project = fake.lock();
        project.ledger.books(project.now)
    };
    Json(books).into_response()
}

async fn violations(State(fake): State<Arc<Fake>>) -> Response {
    let violations = fake.lock().violations.clone();
    Json(violations).into_response()
}

#[derive(Deserialize)]
struct Room {
    server_type: String,
    location: String,
    servers: u32,
}

async fn room(State(fake): State<Arc<Fake>>, Json(room): Json<Room>) -> StatusCode {
    let place = (room.server_type, room.location);
    fake.lock().room.insert(place, room.servers);
    StatusCode::NO_CONTENT
}

async fn snapshot(State(fake): State<Arc<Fake>>, Json(new): Json<NewSnapshot>) -> Response {
    let added = image::add(&mut fake.lock(), new, None, image::Status::Available);
    match added {
        Ok(id) => (StatusCode::CREATED, Json(json!({ "id": id }))).into_response(),
        Err(refusal) => (refusal.status, Json(refusal.body())).into_response(),
    }
}

async fn metadata(
    State(fake): State<Arc<Fake>>,
    Path((address, path)): Path<(String, String)>,
) -> Response {
    let answer = metadata::answer(&fake.lock(), &address, &path);
    match answer {
        Some(text) if text.is_empty() => StatusCode::NO_CONTENT.into_response(),
        Some(text) => text.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
