//! Calls to the API, and the three ways in which one can go wrong.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use super::target::Target;
use crate::api::{params::MAX_WAIT_S, problem::ProblemBody};

/// Beyond the longest wait that the server grants.
const PATIENCE: Duration = Duration::from_secs(MAX_WAIT_S + 30);

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Why a call has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum CallFailed {
    #[error("{}: {}", .0.title, .0.detail)]
    Refused(Box<ProblemBody>),
    #[error("cannot reach {url}")]
    NotReachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("it is not there yet; the time is up")]
    NotYet,
    #[error("the answer is not one of a Tidepool API: {0}")]
    Garbled(String),
}

/// A client of one API.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    target: Target,
}

impl Client {
    pub fn new(target: Target) -> Result<Self, CallFailed> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_PATIENCE)
            .user_agent(concat!("tidepool/", env!("CARGO_PKG_VERSION")));
        if target.url.starts_with("http:") {
            // A fresh machine may have no root certificates, and none are needed then.
            builder = builder.tls_certs_only([]);
        }
        let http = builder
            .build()
            .map_err(|error| CallFailed::Garbled(error.to_string()))?;
        Ok(Self { http, target })
    }

    /// A request that may be given headers and a body before it is sent.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.target.url))
            .bearer_auth(&self.target.token)
    }

    pub async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, CallFailed> {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post<A: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<A, CallFailed> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Sends and reads the answer of a success.
    pub async fn send<A: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<A, CallFailed> {
        let response = self.answered(request.timeout(PATIENCE)).await?;
        let bytes = response
            .bytes()
            .await
            .map_err(|error| self.not_reachable(error))?;
        serde_json::from_slice(&bytes).map_err(|error| CallFailed::Garbled(error.to_string()))
    }

    /// Sends what is answered without a body.
    pub async fn send_only(&self, request: RequestBuilder) -> Result<(), CallFailed> {
        self.answered(request.timeout(PATIENCE)).await.map(drop)
    }

    /// Sends and returns the response of a success, its body unread.
    pub async fn answered(&self, request: RequestBuilder) -> Result<Response, CallFailed> {
        let response = request
            .send()
            .await
            .map_err(|error| self.not_reachable(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let is_problem = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
        let bytes = response
            .bytes()
            .await
            .map_err(|error| self.not_reachable(error))?;
        match serde_json::from_slice(&bytes) {
            // Only `wait` answers so: with the present state instead of a problem.
            _ if status == StatusCode::REQUEST_TIMEOUT && !is_problem => Err(CallFailed::NotYet),
            Ok(problem) if is_problem => Err(CallFailed::Refused(Box::new(problem))),
            _ => Err(CallFailed::Garbled(format!("status {status}"))),
        }
    }

    fn not_reachable(&self, source: reqwest::Error) -> CallFailed {
        CallFailed::NotReachable {
            url: self.target.url.clone(),
            source: source.without_url(),
        }
    }
}

/// An argument as one segment of a path.
pub fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => write!(encoded, "%{byte:02X}").expect("writing to a string cannot fail"),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_cannot_leave_its_segment() {
        assert_eq!(segment("anna-1"), "anna-1");
        assert_eq!(segment("../a?b"), "%2E%2E%2Fa%3Fb");
    }
}
