//! Other coordinators of the same store: who holds a server's link answers what only it can.
//!
//! The question goes on as it came, with the caller's own token, to the API address that the other
//! coordinator announces; a question that was passed on once is not passed on again.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::de::DeserializeOwned;
use tidepool_shared::id::CoordinatorId;

use super::ApiState;
use crate::{causes::chain, model::Server, presence::SILENCE};

/// Marks a question that was passed on.
const PASSED_ON: HeaderName = HeaderName::from_static("x-tidepool-passed-on");

const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// The most that is read of an answer.
const MAX_ANSWER: usize = 4 << 20;

/// The way to other coordinators.
#[derive(Debug, Clone)]
pub struct Neighbours {
    own: CoordinatorId,
    http: Option<reqwest::Client>,
}

impl Neighbours {
    /// Of the coordinator of this id.
    pub fn new(own: CoordinatorId) -> Self {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_DEADLINE)
            .timeout(ANSWER_DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            .build();
        if let Err(error) = &http {
            tracing::error!(error = %chain(error), "other coordinators cannot be asked");
        }
        Self {
            own,
            http: http.ok(),
        }
    }

    /// What the coordinator that holds the server's link answers to `GET path`; `None` when there is no
    /// other, it does not answer, or the question has come from another already.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        state: &ApiState,
        server: &Server,
        path: &str,
        caller: &HeaderMap,
    ) -> Option<T> {
        let holder = server.holder.filter(|holder| *holder != self.own)?;
        if caller.contains_key(PASSED_ON) {
            return None;
        }
        let live = state
            .store
            .live_coordinators(SILENCE, state.now())
            .await
            .ok()?;
        let address = live
            .into_iter()
            .find(|known| known.id == holder)?
            .api_address;
        let url = format!("{}{path}", address.trim_end_matches('/'));
        let request = self
            .http
            .as_ref()?
            .get(url)
            .header(header::AUTHORIZATION, caller.get(header::AUTHORIZATION)?)
            .header(PASSED_ON, HeaderValue::from_static("1"));
        match answer(request).await {
            Ok(answer) => answer,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(coordinator.id = %holder, error, "another coordinator did not answer");
                None
            }
        }
    }
}

async fn answer<T: DeserializeOwned>(
    request: reqwest::RequestBuilder,
) -> Result<Option<T>, reqwest::Error> {
    let mut response = request.send().await?.error_for_status()?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(serde_json::from_slice(&body).ok())
}
