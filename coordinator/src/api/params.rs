//! Query parameters and the few request headers with a meaning of their own.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Query},
    http::{HeaderMap, header, request::Parts},
};
use serde::de::DeserializeOwned;
use tidepool_shared::document::Generation;

use super::problem::{Code, Problem};

/// The longest a request may wait, in seconds.
pub const MAX_WAIT_S: u64 = 60;

/// Query parameters; unknown ones are refused if the type refuses them.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(params)| Self(params))
            .map_err(|rejection| Problem::new(Code::InvalidParameter, rejection.body_text()))
    }
}

/// `Prefer: wait=N`: how long to hold the answer. Other preferences are not ours to judge.
#[derive(Debug, Clone, Copy)]
pub struct PreferWait(pub Duration);

impl<S: Send + Sync> FromRequestParts<S> for PreferWait {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        wait(&parts.headers).map(Self)
    }
}

fn wait(headers: &HeaderMap) -> Result<Duration, Problem> {
    let Some(seconds) = headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|preference| preference.trim().strip_prefix("wait="))
    else {
        return Ok(Duration::ZERO);
    };
    seconds
        .parse()
        .ok()
        .filter(|seconds| *seconds <= MAX_WAIT_S)
        .map(Duration::from_secs)
        .ok_or_else(|| Problem::new(Code::InvalidParameter, "`Prefer: wait=` takes 0 to 60 s"))
}

/// `If-Match`: the generation that the caller has read; `None` when it does not care.
#[derive(Debug, Clone, Copy)]
pub struct IfMatch(pub Option<Generation>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else {
            return Ok(Self(None));
        };
        let malformed = || Problem::new(Code::InvalidParameter, "`If-Match` takes an ETag of ours");
        let text = value.to_str().map_err(|_| malformed())?.trim();
        if text == "*" {
            return Ok(Self(None));
        }
        text.strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
            .and_then(|number| number.parse().ok())
            .map(|number| Self(Some(Generation(number))))
            .ok_or_else(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefer(value: &'static str) -> Result<u64, Code> {
        let mut headers = HeaderMap::new();
        headers.insert("prefer", value.parse().unwrap());
        wait(&headers)
            .map(|wait| wait.as_secs())
            .map_err(|problem| problem.code)
    }

    #[test]
    fn a_wait_is_found_among_other_preferences() {
        assert_eq!(prefer("return=minimal, wait=10"), Ok(10));
        assert_eq!(prefer("return=minimal"), Ok(0));
    }

    #[test]
    fn a_wait_beyond_the_ceiling_is_refused() {
        assert_eq!(prefer("wait=60"), Ok(60));
        assert_eq!(prefer("wait=61"), Err(Code::InvalidParameter));
        assert_eq!(prefer("wait=soon"), Err(Code::InvalidParameter));
    }
}
